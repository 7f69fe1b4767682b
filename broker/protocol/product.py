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
            walk.front_jump = (node[0], f)
        if back_bad:
            walk.back_jump = (node[1], b)
        seen = walk.masks(node, f, b)
        front_early = back_early = False
        if seen is None:
            walk.back_needs = False
            front_early = walk.masks(node, f, b) is None
            walk.back_needs, walk.front_needs = True, False
            back_early = walk.masks(node, f, b) is None
        fs, bs = seen or (node[2] | self.front.bit(b), node[3] | self.back.bit(f))
        legal = seen is not None and not front_bad and not back_bad
        return Judgement(legal, fs, bs, front_bad, back_bad, front_early, back_early)


class _Walk:
    """One search through the product."""

    def __init__(self, front: End, back: End, *, front_again: bool, back_again: bool) -> None:
        self._front = front
        self._back = back
        self._front_again = front_again
        self._back_again = back_again
        self.front_needs = self.back_needs = True
        self.front_jump: tuple[int, int] | None = None
        self.back_jump: tuple[int, int] | None = None

    def masks(self, start: Node, f: int, b: int) -> tuple[int, int] | None:
        """What each end may have seen when the pair is at `f`, `b`; None: it cannot be there."""
        found, left = {start}, [start]
        front_seen = back_seen = 0
        reached = False
        while left:
            node = left.pop()
            if node[:2] == (f, b):
                reached = True
                front_seen |= node[2]
                back_seen |= node[3]
            for after in (*self._front_moves(node), *self._back_moves(node)):
                if after not in found:
                    found.add(after)
                    left.append(after)
        return (front_seen, back_seen) if reached else None

    def _front_moves(self, node: Node) -> list[Node]:
        f, b, fs, bs = node
        end, see = self._front, self._back.bit
        after = [
            (to, b, fs, bs | see(to))
            for to in end.moves[f]
            if not self.front_needs or not end.needs[to] or end.needs[to] & fs
        ]
        if self._front_again:
            after += [(to, b, end.bit(b), bs | see(to)) for to in end.restarts[f]]
        if self.front_jump is not None and f == self.front_jump[0]:
            after.append((self.front_jump[1], b, fs, bs | see(self.front_jump[1])))
        if end.has_machine and f:
            after.append((0, b, fs, bs | see(0)))
        return after

    def _back_moves(self, node: Node) -> list[Node]:
        f, b, fs, bs = node
        end, see = self._back, self._front.bit
        after = [
            (f, to, fs | see(to), bs)
            for to in end.moves[b]
            if not self.back_needs or not end.needs[to] or end.needs[to] & bs
        ]
        if self._back_again:
            after += [(f, to, fs | see(to), end.bit(f)) for to in end.restarts[b]]
        if self.back_jump is not None and b == self.back_jump[0]:
            after.append((f, self.back_jump[1], fs | see(self.back_jump[1]), bs))
        if end.has_machine and b:
            after.append((f, 0, fs | see(0), bs))
        return after
