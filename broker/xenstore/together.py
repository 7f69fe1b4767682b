"""Waiting for several answers at once, so that the loss of one leaves none unheard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import FirstError, gatherResults

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


async def together(*awaited: Deferred[Any]) -> list[Any]:
    """The result of each, in order; raises what the first that fails failed with, as it was.

    What fails after it is heard and dropped: as a rule a connection's end fails them all.
    """
    try:
        return await gatherResults(awaited, consumeErrors=True)
    except FirstError as first:
        return first.subFailure.raiseException()
