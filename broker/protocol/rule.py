"""One rule of a description, and what making rules needs to know of the whole of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.protocol import values
from broker.protocol.check_keys import bounds_of, state_order
from broker.protocol.conditions import SIDES, references
from broker.protocol.states import BY_WORD

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from broker.protocol.conditions import Test
    from broker.protocol.form import ConditionForm, KeyForm, SideForm
    from broker.protocol.parties import Party
    from broker.protocol.spec import Spec
    from broker.protocol.values import Check

Name = tuple[str, str]
"""A key: whose directory, and its name in it."""
ALWAYS: Final = -1
"""The mask of every state."""
EVER: Final = (ALWAYS, ALWAYS)
_TIED: Final = {"frontend": "initialised", "backend": "init-wait"}
"""From which state on what an end published counts for the other."""


class Rule(msgspec.Struct, frozen=True):
    """One rule. `broken` is asked only in the states of the masks.

    `keys` are those it depends on; `stateful` says that it also depends on the states. `only_if`
    is a key (side 0 or 1, name) and whether it stands there: else the rule is not broken.
    """

    name: str
    party: Party
    says: str
    masks: tuple[int, int]
    broken: Test
    keys: frozenset[Name]
    stateful: bool = False
    only_if: tuple[int, str, bool] | None = None

    def in_force(self, f: int, b: int) -> bool:
        """Whether it holds the ends to anything in these states."""
        return bool(self.masks[0] >> f & 1 and self.masks[1] >> b & 1)


class Ends(msgspec.Struct, frozen=True):
    """What compiling the rules of both ends needs to know of the whole description."""

    spec: Spec
    defaults: dict[Name, bytes]

    def side(self, name: str) -> SideForm:
        """One end as it is written."""
        return self.spec.form.frontend if name == SIDES[0] else self.spec.form.backend

    def mask(self, name: str, by: str | None) -> int:
        """The states of an end in which it has come as far as `by`."""
        side = self.side(name)
        if side.transitions is None:
            return ALWAYS
        least = 1 if by is None else state_order(by)
        return sum(1 << BY_WORD[word] for word in side.transitions if state_order(word) >= least)

    def tied(self, name: str) -> int:
        """The states of an end in which what it published counts for the other."""
        return self.mask(name, _TIED[name])

    def tied_masks(self, names: Collection[str]) -> tuple[int, int]:
        """The masks of both ends for a rule between what those named have published."""
        front, back = (self.tied(side) if side in names else ALWAYS for side in SIDES)
        return front, back

    def masks(
        self, name: str, by: str | None, conditions: Iterable[ConditionForm]
    ) -> tuple[int, int]:
        """Masks of both ends for a rule of one of them, as far as it looks at the other."""
        masks = {name: self.mask(name, by)}
        other = SIDES[1] if name == SIDES[0] else SIDES[0]
        used = {found.side for condition in conditions for found in references(condition)}
        masks[other] = self.tied(other) if other in used else ALWAYS
        return masks[SIDES[0]], masks[SIDES[1]]


def check_for(key: KeyForm) -> Check:
    """Whether a value is one of this key's."""
    listed = tuple(map(str, key.values))
    return values.check_of(str(key.type), bounds_of(key), listed, power_of_two=key.power_of_two)


def keeper(name: str, key: KeyForm) -> Party:
    """Who answers for what stands in a key: the directory's owner, if it is a driver's.

    What the toolstack or a script wrote beside a backend is nobody's error that a sanction
    could reach; what stands in a guest's own directory is the guest's.
    """
    owner: Party = "frontend" if name == SIDES[0] else "backend"
    if key.read_only or (name == SIDES[1] and name not in key.writer):
        return "undetermined"
    return owner


def names_in(conditions: Iterable[ConditionForm]) -> set[Name]:
    """The keys that conditions speak of."""
    return {(it.side, it.key) for condition in conditions for it in references(condition)}


def looks(name: str, test: Test) -> Test:
    """A test of a frontend's directory, as one of `name`'s."""
    if name == SIDES[0]:
        return test
    return lambda front, back, f, b: test(back, front, b, f)


def described(key: KeyForm) -> str:
    """What a value of this key is, in words."""
    if key.values:
        some = " or a list of " if key.type == values.LISTED else "one of "
        return f"{some.removeprefix(' or ')}{', '.join(key.values)}"
    bounds = bounds_of(key) or values.RANGES.get(key.type)
    power = ", a power of two" if key.power_of_two else ""
    return f"a {key.type}" + (f", {bounds[0]} to {bounds[1]}{power}" if bounds else "")
