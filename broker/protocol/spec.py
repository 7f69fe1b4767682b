"""A protocol description: what the two ends of one class of device may do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.protocol.form import SpecForm
    from broker.protocol.ring_table import Rings
    from broker.protocol.states import State


class Side(msgspec.Struct, frozen=True):
    """One end's automaton. `kinds` are the directory names it has under xenstore.

    `needs` says for a state which of the other end's states must have been seen before the
    move there. An end without a state machine has no transitions and is `UNKNOWN` throughout.
    """

    kinds: tuple[str, ...]
    first: State
    transitions: Mapping[State, frozenset[State]]
    needs: Mapping[State, frozenset[State]]

    def reachable(self, start: State) -> frozenset[State]:
        """The states that legal moves lead to from `start`, itself among them.

        Watches coalesce: a state seen after another is legal if it is reachable from it.
        """
        found = {start}
        left = [start]
        while left:
            for state in self.transitions.get(left.pop(), frozenset()):
                if state not in found:
                    found.add(state)
                    left.append(state)
        return frozenset(found)


class Spec(msgspec.Struct, frozen=True):
    """A whole description. `digest` is `sha256:<hex>` of the file's exact bytes.

    `header` is the public header it was written from; `form` is the file itself, checked.
    `rings` are the tables of its ring messages.
    """

    name: str
    digest: str
    header: str
    frontend: Side
    backend: Side
    form: SpecForm
    rings: Rings | None
