"""What the agent tells the broker of each device: its life's nonce, then what is enforced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from twisted.logger import Logger

from broker.core.record import encode_value
from broker.xenstore.errors import ConnectionLostError
from broker.xenstore.paths import Channel, report_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.agent.lives import Slot
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.errors import StoreError

_REASON_LIMIT: Final = 400
"""Characters of a reason in a report: it has to fit a node with room to spare."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a slot stands after a pass: `state` as reported, whether this life was denied, why."""

    state: str
    refused: bool
    seq: int | None
    nonce: str
    reason: str


class Reports:
    """The nodes below this domain's report directory, each written once until it changes."""

    log = Logger()

    def __init__(self, connection: Callable[[], StoreConnection]) -> None:
        self._connection = connection
        self._written: dict[Slot, tuple[str, str]] = {}

    def forget_all(self) -> None:
        """The store may have lost what was reported: report all again."""
        self._written.clear()

    def forget(self, slot: Slot) -> None:
        """The slot's device is gone."""
        self._written.pop(slot, None)

    def complete(self, slot: Slot) -> bool:
        """Whether all there is to report on this slot is in the store."""
        return bool(self._written.get(slot, ("", ""))[1])

    async def nonces(self, lives: Sequence[tuple[Slot, Channel, str]]) -> set[Slot]:
        """Report each life's nonce; returns the slots where it was refused.

        Raises:
            ConnectionLostError: the store is gone.
        """
        news = [it for it in lives if self._written.get(it[0], ("", ""))[0] != it[2]]
        items = [
            (f"{report_dir(channel)}/nonce", nonce.encode("ascii")) for _, channel, nonce in news
        ]
        errors = await self._connection().write_many(items)
        failed: set[Slot] = set()
        for (slot, channel, nonce), error in zip(news, errors, strict=True):
            if error is None:
                self._written[slot] = (nonce, "")
            else:
                self._failed(channel, error)
                failed.add(slot)
        return failed

    async def outcomes(self, outcomes: Sequence[tuple[Slot, Channel, Outcome]]) -> set[Slot]:
        """Report what is enforced; as `nonces`."""
        news: list[tuple[Slot, Channel, str, str]] = []
        for slot, channel, outcome in outcomes:
            line = _line(outcome)
            nonce, last = self._written.get(slot, ("", ""))
            # Only after its nonce, which may have been refused a moment ago and now would not be.
            if nonce == outcome.nonce and last != line:
                news.append((slot, channel, nonce, line))
        items = [(f"{report_dir(it[1])}/enforced", it[3].encode("ascii")) for it in news]
        errors = await self._connection().write_many(items)
        failed: set[Slot] = set()
        for (slot, channel, nonce, line), error in zip(news, errors, strict=True):
            if error is None:
                self._written[slot] = (nonce, line)
            else:
                self._failed(channel, error)
                failed.add(slot)
        return failed

    def _failed(self, channel: Channel, error: StoreError) -> None:
        if isinstance(error, ConnectionLostError):
            raise error
        # Usual for a moment in a driver domain: dom0's helper has not made the node yet.
        self.log.debug("{channel}: cannot report: {error}", channel=channel, error=error)


def _line(outcome: Outcome) -> str:
    seq = "-" if outcome.seq is None else outcome.seq
    reason = encode_value(outcome.reason[:_REASON_LIMIT] or None)
    return f"{outcome.state} seq={seq} nonce={outcome.nonce} reason={reason}"
