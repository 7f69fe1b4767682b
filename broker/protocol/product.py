"""The product of both ends' automata: what a pair of states may have become, and who erred.

Between two looks at xenstore states are skipped, so a change is legal if some sequence of legal
moves of both ends leads there. A move may need that the mover has seen certain states of the
other end: what it can have seen is every state the other end was in since the mover's life
began (a mask, `1 << state`), for a party acts on what it read a moment ago. A life begins again
only on evidence: else every state would be reachable from every other.
"""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Final, NamedTuple

from broker.protocol.states import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.protocol.spec import Side, Spec

Node = tuple[int, int, int, int]
"""States of frontend and backend; what the frontend saw of the backend; and the other way."""
_STATES: Final = len(State)
_MOST_REMEMBERED: Final = 8192


class Judgement(NamedTuple):
    """Whether a change is legal. If not, the ends in error: neither, where one must be."""

    legal: bool
    front_seen: int
    back_seen: int
    front_moved_badly: bool = False
    back_moved_badly: bool = False
    front_moved_early: bool = False
    back_moved_early: bool = False


class End:
    """One end's automaton as tables."""

    def __init__(self, side: Side) -> None:
        self.has_machine = bool(side.transitions)
        self.first = int(side.first)
        self.needs = [0] * _STATES
        for state, seen in side.needs.items():
            self.needs[state] = sum(1 << other for other in seen)
        # Only what some move needs is remembered: it keeps the product small.
        self.minds = functools.reduce(operator.or_, self.needs)
        self.moves: list[tuple[int, ...]] = [()] * _STATES
        self.restarts: list[tuple[int, ...]] = [()] * _STATES
        for source, targets in side.transitions.items():
            again = [target for target in targets if _is_restart(source, target, side.first)]
            self.restarts[source] = tuple(sorted(again))
            self.moves[source] = tuple(sorted(set(targets) - set(again)))
        # Its directory appears with the first state in it: that is the toolstack's doing.
        self.restarts[State.UNKNOWN] = (self.first,) if self.has_machine else ()
        self.evident = {int(State.UNKNOWN), int(State.CLOSING), int(State.CLOSED)}
        self.evident |= {source for source in range(_STATES) if self.restarts[source]}

    def bit(self, other: int) -> int:
        """The other end's state as this end minds it."""
        return 1 << other & self.minds

    def reaches(self, start: int, goal: int, *, again: bool) -> bool:
        """Whether its own moves lead from one state to another, whatever the other end does."""
        found, left = {start}, [start]
        while left:
            state = left.pop()
            after = self.moves[state] + (self.restarts[state] if again else ())
            left += [target for target in (*after, int(State.UNKNOWN)) if target not in found]
            found.update(after, (int(State.UNKNOWN),))
        return goal in found


def _is_restart(source: State, target: State, first: State) -> bool:
    return target == first or (source == State.CLOSED and target != State.CLOSING)


class Product:
    """Both ends; what it has judged once it remembers, up to a bound."""

    def __init__(self, spec: Spec) -> None:
        self.front = End(spec.frontend)
        self.back = End(spec.backend)
        self._judged: dict[tuple[Node, int, int, bool, bool], Judgement] = {}

    def judge(
        self, node: Node, f: int, b: int, *, front_again: bool, back_again: bool
    ) -> Judgement:
        """Judge the change from `node` to states `f` and `b`.

        `front_again`, `back_again`: there is evidence that this end's life began again.
        """
        question = (node, f, b, front_again, back_again)
        said = self._judged.get(question)
        if said is None:
            if len(self._judged) >= _MOST_REMEMBERED:
                self._judged.clear()
            said = self._judged[question] = self._judge(node, f, b, front_again, back_again)
        return said

    def _judge(
        self,
        node: Node,
        f: int,
        b: int,
        front_again: bool,  # noqa: FBT001 - the memo's key, in its order
        back_again: bool,  # noqa: FBT001 - as above
    ) -> Judgement:
        front_bad = not self.front.reaches(node[0], f, again=front_again)
        back_bad = not self.back.reaches(node[1], b, again=back_again)
        # A bad move is taken as made, so that the other end's part can be judged.
        walk = _Walk(self.front, self.back, front_again=front_again, back_again=back_again)
        if front_bad:
            walk.jumps[0] = (node[0], f)
        if back_bad:
            walk.jumps[1] = (node[1], b)
        seen = walk.masks(node, f, b)
        front_early = back_early = False
        if seen is None:
            walk.needs = [True, False]
            front_early = walk.masks(node, f, b) is None
            walk.needs = [False, True]
            back_early = walk.masks(node, f, b) is None
        fs, bs = seen or (node[2] | self.front.bit(b), node[3] | self.back.bit(f))
        legal = seen is not None and not front_bad and not back_bad
        return Judgement(legal, fs, bs, front_bad, back_bad, front_early, back_early)


class _Walk:
    """One search through the product. Each end begins a new life once at most on the way."""

    def __init__(self, front: End, back: End, *, front_again: bool, back_again: bool) -> None:
        self._ends = front, back
        self._again = front_again, back_again
        self.needs = [True, True]
        self.jumps: list[tuple[int, int] | None] = [None, None]

    def masks(self, start: Node, f: int, b: int) -> tuple[int, int] | None:
        """What each end may have seen when the pair is at `f`, `b`; None: it cannot be there."""
        first = _Place((start[0], start[1]), (start[2], start[3]), self._again)
        found, left = {first}, [first]
        front_seen = back_seen = 0
        reached = False
        while left:
            place = left.pop()
            if place.states == (f, b):
                reached = True
                front_seen |= place.seen[0]
                back_seen |= place.seen[1]
            for side in (0, 1):
                for after in self._moves(place, side):
                    if after not in found:
                        found.add(after)
                        left.append(after)
        return (front_seen, back_seen) if reached else None

    def _moves(self, place: _Place, side: int) -> Iterator[_Place]:
        """Where one end can go from here."""
        end, state = self._ends[side], place.states[side]
        for target in end.moves[state]:
            needs = end.needs[target]
            if not self.needs[side] or not needs or needs & place.seen[side]:
                yield self._moved(place, side, target)
        if place.again[side]:
            for target in end.restarts[state]:
                yield self._moved(place, side, target, begins=True)
        jump = self.jumps[side]
        if jump is not None and state == jump[0]:
            yield self._moved(place, side, jump[1])
        if state and end.has_machine:
            yield self._moved(place, side, 0)

    def _moved(self, place: _Place, side: int, target: int, *, begins: bool = False) -> _Place:
        states, seen, again = list(place.states), list(place.seen), list(place.again)
        states[side] = target
        seen[1 - side] |= self._ends[1 - side].bit(target)
        if begins:
            seen[side] = self._ends[side].bit(states[1 - side])
            again[side] = False
        return _Place((states[0], states[1]), (seen[0], seen[1]), (again[0], again[1]))


class _Place(NamedTuple):
    """Where a search is: the states, what was seen, who may still begin a new life."""

    states: tuple[int, int]
    seen: tuple[int, int]
    again: tuple[bool, bool]
