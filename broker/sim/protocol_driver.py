"""One end's driver, as its protocol description has it behave: what it writes next.

Pure, and level-triggered as the kernel's xenbus drivers are: asked anew after every change, it
answers from what both directories hold alone. No class is known to this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.protocol.conditions import SIDES
from broker.protocol.product import Product
from broker.protocol.states import BY_WORD, State
from broker.protocol.tables import Tables
from broker.sim.protocol_pair import Pair

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.protocol.spec import Spec

Writes = list[tuple[str, bytes]]

_GONE: Final = (State.CLOSING, State.CLOSED)
_AT_REST: Final = (State.UNKNOWN, State.CLOSED)


class Driver:
    """The driver of one end, `frontend` or `backend`, of the devices of one description."""

    def __init__(self, spec: Spec, side: str) -> None:
        self._side = side
        self._other = SIDES[1] if side == SIDES[0] else SIDES[0]
        self._pair = Pair(spec)
        product = Product(spec)
        self._moves = (product.front if side == SIDES[0] else product.back).moves
        self._gate = Tables(spec).gate
        form = spec.form.gate
        self._gated = None if form is None else (form.side, int(BY_WORD[form.into]))
        self._opened_by = () if form is None else tuple(map(str, form.opened_by))

    def next(self, front: Mapping[str, bytes], back: Mapping[str, bytes]) -> Writes:
        """What this end writes into its own directory next, its state last; nothing: it waits."""
        pair = self._pair
        for side, directory in zip(SIDES, (front, back), strict=True):
            pair.directories[side] = {
                key: value.decode("latin-1") for key, value in directory.items()
            }
        own, other = pair.state(self._side), pair.state(self._other)
        if own == State.UNKNOWN:
            return []  # a driver makes no device
        if other in _GONE or (other == State.UNKNOWN and self._side == SIDES[1]):
            return self._close(own)
        target = self._onward(self._side, front, back)
        if target is None:
            return []
        if self._side == SIDES[0] and self._onward(self._other, front, back) is not None:
            return []  # the backend goes first where it can, and the frontend answers its offers
        pair.changes.clear()
        pair.publish(self._side, own, target)
        written = [(it.key, it.value) for it in pair.changes if it.side == self._side]
        keys = [(key, value.encode("latin-1")) for key, value in written if value is not None]
        return [*keys, ("state", b"%d" % target)]

    def _onward(
        self, side: str, front: Mapping[str, bytes], back: Mapping[str, bytes]
    ) -> int | None:
        """Where an end goes next on its way to being connected; None: it has to wait."""
        target = self._pair.next_state(side)
        if target is None or self._gated != (side, target):
            return target
        return target if self._is_open(front, back) else None

    def _is_open(self, front: Mapping[str, bytes], back: Mapping[str, bytes]) -> bool:
        """Whether the hotplug script has been here, and what it wrote opens the gate."""
        directories = {SIDES[0]: front, SIDES[1]: back}
        for text in self._opened_by:
            side, _, key = text.partition("/")
            if key not in directories[side]:
                return False
        states = [self._pair.state(side) for side in SIDES]
        return self._gate is None or self._gate.is_open(front, back, states[0], states[1])

    def _close(self, own: int) -> Writes:
        """The other end closes or is gone: this one follows, as directly as it may."""
        # A frontend that has shown nothing yet has nothing to close: its backend may come back.
        if own in _AT_REST or (self._side == SIDES[0] and own == State.INITIALISING):
            return []
        for target in (State.CLOSED, State.CLOSING):
            if target in self._moves[own]:
                return [("state", b"%d" % target)]
        return []
