"""ACM's two numberings of labels: one policy, two sets of ssidrefs, by which compiler it met.

The C compiler (to 2007) numbered in the order of the file, the Python one (from 2007) sorted;
both put the bootstrap label first. Here labels are numbered as they stand in the policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeVar

from broker.policy.acm.names import UNLABELED

if TYPE_CHECKING:
    from collections.abc import Iterable

Scheme = Literal["document", "alphabetical"]
SCHEMES: Final[tuple[Scheme, ...]] = ("document", "alphabetical")


class Named(Protocol):
    """Something with a name."""

    @property
    def name(self) -> str:
        """The name."""


N = TypeVar("N", bound=Named)


def in_order(things: Iterable[N], scheme: Scheme, bootstrap: str = "") -> tuple[N, ...]:
    """Labels, or resources, as a compiler numbered them; the bootstrap label stands first."""
    ordered = list(things)
    if scheme == "alphabetical":
        ordered.sort(key=lambda thing: thing.name)
    # ACM's label of the unlabelled had number 0, which is nobody's here: last, it moves no other.
    ordered.sort(key=lambda thing: (thing.name != bootstrap, thing.name == UNLABELED))
    return tuple(ordered)
