"""Two ends of a channel as their protocol description has them behave.

A `Pair` plays the toolstack, both drivers and the hotplug script of one device, after the
description alone: no class is known to this file. What it does is a list of `Change`, the form
that `brokerctl spec replay` reads. Every write is a moment of its own, keys before states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.protocol.check_keys import state_order
from broker.protocol.conditions import SIDES, all_of
from broker.protocol.group_rules import Instances
from broker.protocol.instances import described_names, name_of
from broker.protocol.product import Product
from broker.protocol.replay import Change
from broker.protocol.rule import Ends
from broker.protocol.rules import defaults_of
from broker.protocol.states import BY_WORD, State
from broker.sim.protocol_values import sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Literal

    from broker.protocol.form import KeyForm, SideForm
    from broker.protocol.spec import Spec

    Side = Literal["frontend", "backend"]
    Writer = Literal["frontend", "backend", "toolstack", "hotplug"]

LEFT_OUT: Final = "-"
"""What an example says of a key that is not to be written."""
_FIRST_GRANT: Final = 500
_FIRST_PORT: Final = 10
_TICK: Final = 0.25
_WAYS: Final = 4096
_ROUNDS: Final = 3


class Pair:
    """One device. `example` overrides what the description gives as its keys' values."""

    def __init__(self, spec: Spec, example: Mapping[str, str] | None = None) -> None:
        self.spec = spec
        self.changes: list[Change] = []
        self.directories: dict[str, dict[str, str]] = {side: {} for side in SIDES}
        self.now = 0.0
        self._example = {str(key): str(value) for key, value in (example or {}).items()}
        self._defaults = defaults_of(spec)
        self._ends = Ends(spec, self._defaults)
        self._product = Product(spec)
        self._next = _FIRST_GRANT
        self._next_port = _FIRST_PORT
        forms: dict[str, SideForm] = {"frontend": spec.form.frontend, "backend": spec.form.backend}
        self._forms = forms
        self.described = {side: described_names(form) for side, form in forms.items()}

    def write(self, side: str, key: str, value: str | None, writer: Writer | None = None) -> None:
        """Change one key, a moment later."""
        self.now += _TICK
        place: Side = "frontend" if side == SIDES[0] else "backend"
        self.changes.append(Change(self.now, place, key, value, writer))
        directory = self.directories[side]
        if value is not None:
            directory[key] = value
        else:
            for gone in [it for it in directory if not key or it == key]:
                del directory[gone]

    def state(self, side: str) -> int:
        """The state an end shows."""
        shown = self.directories[side].get("state", "0")
        return int(shown) if shown in tuple("12345678") else 0

    def next_state(self, side: str) -> int | None:
        """Where an end that wants to be connected goes next, if it need not wait."""
        own = self.state(side)
        other = self.state(SIDES[1] if side == SIDES[0] else SIDES[0])
        form = self._forms[side]
        onward = [
            int(BY_WORD[text])
            for source, targets in (form.transitions or {}).items()
            for text in targets
            if source == _text(own) and state_order(text) > state_order(source)
        ]
        if not onward:
            return None
        needs = self._product.front.needs if side == SIDES[0] else self._product.back.needs
        needed = needs[onward[0]]
        return onward[0] if not needed or needed >> other & 1 else None

    def create(self) -> None:
        """The toolstack makes both directories, the devices' own keys and both states."""
        for side in SIDES:
            for key, form in self._plain(side):
                value = self._wanted(side, key, form)
                if form.writer[0] == "toolstack" and value is not None:
                    self.write(side, key, value, "toolstack")
            for key in self._named_instances(side):
                if self.described[side][key][1].writer[0] == "toolstack":
                    self.write(side, key, self._example[f"{side}/{key}"], "toolstack")
        for side in SIDES:
            if self._forms[side].transitions is not None:
                self.write(side, "state", "1", "toolstack")
            else:
                self._publish_at_once(side)

    def open_gate(self) -> None:
        """The hotplug script lets the gated end pass."""
        if self.spec.form.gate is not None:
            for text, value in self.spec.form.gate.opened_by.items():
                side, _, key = text.partition("/")
                self.write(side, key, str(value), "hotplug")

    def connect(self) -> None:
        """Both ends connect, on the way that the description lists first."""
        self.open_gate()
        while True:
            moved = False
            for side in SIDES:
                target = self.next_state(side)
                if target is not None:
                    self.move(side, target)
                    moved = True
            if not moved:
                return

    def move(self, side: str, target: int) -> None:
        """An end publishes what is due, then writes its state."""
        self.publish(side, self.state(side), target)
        self.write(side, "state", str(target), _driver(side))

    def drive(self, f: int, b: int) -> bool:
        """Bring both ends into these states by legal moves; false: there is no way."""
        way = self._way((self.state("frontend"), self.state("backend")), (f, b))
        if way is None:
            return False
        for side, target in way:
            if target:
                self.move(side, target)
            else:
                self.write(side, "", None, "toolstack")
        return True

    def remove(self) -> None:
        """The toolstack takes the device away, as `xl destroy` does."""
        self.write("frontend", "", None, "toolstack")
        if "state" in self.directories["backend"]:
            self.write("backend", "online", "0", "toolstack")
            self.write("backend", "state", "5", "toolstack")
            self.write("backend", "state", "6", "backend")
        self.write("backend", "", None, "toolstack")

    def pass_time(self, seconds: float, side: str) -> None:
        """Nothing happens for a while; then an end writes what it had written before."""
        self.now += seconds
        directory = self.directories[side]
        if not directory:
            side = SIDES[1] if side == SIDES[0] else SIDES[0]
            directory = self.directories[side]
        key = "state" if "state" in directory else next(iter(directory))
        self.write(side, key, directory[key])

    def publish(self, side: str, source: int, target: int | None) -> None:
        """A driver writes the keys that are due on its way from one state to another."""
        done: set[str] = set()
        # What is called for depends on what has been published.
        for _ in range(_ROUNDS):
            for key, form in [*self._plain(side), *self._instances(side)]:
                if key in done or side not in form.writer or not _is_due(form, source, target):
                    continue
                if form.writer[0] == "toolstack" and key in self.directories[side]:
                    continue
                if self._is_called_for(side, key, form):
                    done.add(key)
                    self._publish_key(side, key, form)

    def valid(self, form: KeyForm) -> str:
        """A value of a key's type that was not used before, where there are many."""
        if form.type in ("gref", "mfn"):
            self._next += 1
            return str(self._next)
        if form.type == "port":
            self._next_port += 1
            return str(self._next_port)
        return sample(form)

    def bytes_of(self, side: str) -> dict[str, bytes]:
        """A directory as the store holds it."""
        return {key: value.encode() for key, value in self.directories[side].items()}

    def _publish_at_once(self, side: str) -> None:
        """Without states nothing tells when all is there: it comes in one transaction."""
        before = len(self.changes)
        self.publish(side, 0, None)
        self.changes[before:] = [
            Change(self.now, it.side, it.key, it.value, it.writer) for it in self.changes[before:]
        ]

    def _publish_key(self, side: str, key: str, form: KeyForm) -> None:
        value = self._wanted(side, key, form)
        if value is None:
            value = self.valid(form)
        if self.directories[side].get(key) != value:
            self.write(side, key, value, _driver(side))

    def _is_called_for(self, side: str, key: str, form: KeyForm) -> bool:
        if self._example.get(f"{side}/{key}") == LEFT_OUT:
            return False
        shown = [self.bytes_of(name) for name in SIDES]
        states = [self.state(name) for name in SIDES]
        if f"{side}/{key}" in self._example:
            return True
        allowed = all_of(form.allowed_if, self._defaults, unknown=True)
        if allowed is not None and not allowed(shown[0], shown[1], states[0], states[1]):
            return False
        needed = all_of(form.needed_if, self._defaults, unknown=False)
        called = needed is None or needed(shown[0], shown[1], states[0], states[1])
        return form.required and called if form.example is None else True

    def _wanted(self, side: str, key: str, form: KeyForm) -> str | None:
        value = self._example.get(f"{side}/{key}")
        if value == LEFT_OUT:
            return None
        return value if value is not None else (str(form.example) if form.example else form.example)

    def _plain(self, side: str) -> Iterator[tuple[str, KeyForm]]:
        # What the example asks for comes first: what else is needed hangs on it.
        keys = self._forms[side].keys.items()
        asked = [it for it in keys if f"{side}/{it[0]}" in self._example]
        yield from ((str(key), form) for key, form in asked)
        yield from ((str(key), form) for key, form in keys if f"{side}/{key}" not in self._example)

    def _named_instances(self, side: str) -> list[str]:
        plain = self._forms[side].keys
        named = [key.removeprefix(f"{side}/") for key in self._example if key.startswith(side)]
        return [key for key in named if key not in plain and self._example[f"{side}/{key}"] != "-"]

    def _instances(self, side: str) -> Iterator[tuple[str, KeyForm]]:
        for key in self._named_instances(side):
            yield key, self.described[side][key][1]
        for group in self._forms[side].groups.values():
            instances = Instances(self._ends, side, group)
            front, back = (self.bytes_of(name) for name in SIDES)
            states = [self.state(name) for name in SIDES]
            if not instances.called_for(front, back, states[0], states[1]):
                continue
            for instance in instances.wanted(front, back):
                for template, form in group.keys.items():
                    yield name_of(str(template), instance), form

    def _way(self, start: tuple[int, int], goal: tuple[int, int]) -> list[tuple[str, int]] | None:
        """The shortest way of moves, each end knowing what the other shows and showed."""
        ends = self._product.front, self._product.back
        first = (*start, ends[0].bit(start[1]), ends[1].bit(start[0]))
        ways: dict[tuple[int, int, int, int], list[tuple[str, int]]] = {first: []}
        left = [first]
        while left and len(ways) < _WAYS:
            node = left.pop(0)
            if node[:2] == goal:
                return ways[node]
            for number, end in enumerate(ends):
                for target in (*end.moves[node[number]], *end.restarts[node[number]], 0):
                    if not _may_move(end.needs[target], node[2 + number], node[number], target):
                        continue
                    after = list(node)
                    after[number] = target
                    after[3 - number] |= ends[1 - number].bit(target)
                    place = (after[0], after[1], after[2], after[3])
                    if place not in ways:
                        ways[place] = [*ways[node], (SIDES[number], target)]
                        left.append(place)
        return None


def _is_due(form: KeyForm, source: int, target: int | None) -> bool:
    """Whether a driver publishes a key on this move; `target` None: it has no states."""
    if target is None:
        return True
    due = state_order(form.by) if form.by is not None else 0
    before, after = (state_order(_text(state)) for state in (source, target))
    return after > before and due <= after and (before < due or not due)


def _may_move(needs: int, seen: int, source: int, target: int) -> bool:
    # The frontend's directory is not made again by a driver: it is made with the whole device.
    return source not in (0, target) and (not needs or bool(needs & seen))


def _driver(side: str) -> Writer:
    return "frontend" if side == SIDES[0] else "backend"


def _text(state: int) -> str:
    return State(state).word
