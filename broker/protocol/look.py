"""One step of the monitor: the judgement of one change of what both ends show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.protocol.blame import blamed, evidence, written_by
from broker.protocol.conditions import SIDES
from broker.protocol.life import NEVER, Life, Violation
from broker.protocol.states import State
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.protocol.conditions import Keys
    from broker.protocol.fields import Field
    from broker.protocol.parties import Party
    from broker.protocol.product import Judgement
    from broker.protocol.rule import Name, Rule
    from broker.protocol.tables import Gate, Tables

_STATES: Final = {b"%d" % state: state for state in range(1, 9)}
_PARTIES: Final[tuple[Party, Party]] = ("frontend", "backend")
_WORDS: Final = [state.word for state in State]


class Look:
    """What was, what is, and what is wrong with that."""

    def __init__(
        self,
        tables: Tables,
        life: Life,
        now: float,
        directories: tuple[Keys, Keys],
        writers: Mapping[Name, str],
    ) -> None:
        self._tables = tables
        self._life = life
        self._now = now
        self._front, self._back = directories
        self._writers = writers
        self._changed: set[Name] = set()
        self._emptied = False, False
        self.found: list[Violation] = []

    def judge(self, changed: list[Field]) -> Life:
        """Judge the change; `changed` are the described keys that did."""
        life, tables = self._life, self._tables
        if self._writers:
            self._changed = {(SIDES[field.side], field.name) for field in changed}
            self._judge_writers()
        f = _STATES.get(self._front.get("state", b""), 0) if tables.has_machine[0] else 0
        b = _STATES.get(self._back.get("state", b""), 0) if tables.has_machine[1] else 0
        moved = f != life.f or b != life.b
        seen = [life.front_seen, life.back_seen]
        begun = False, False
        if moved:
            *seen, begun = self._move(f, b)
            gate = tables.gate
            if gate is not None and (b if gate.side else f) == gate.into:
                self._judge_gate(gate, f, b)
        looked_at: set[int] = set()
        timed = moved
        for field in changed:
            # Of most keys only their type is a rule, and it is kept.
            if len(field.rules) > 1 or not self._is_well_typed(field):
                looked_at.update(field.rules)
            timed = timed or field.watched
            if field.frozen is not None or field.moves is not None:
                self._judge_change(field, f, b, begun=begun[field.side])
        standing = self._judge_rules(looked_at, f, b, moved=moved)
        timers, due = life.timers, life.due
        if timed or standing != life.standing:
            timers, due = self._timers(f, b, standing)
        now = self._now
        return Life(
            self._front,
            self._back,
            f,
            b,
            seen[0],
            seen[1],
            standing,
            timers,
            due,
            now,
            started=True,
        )

    def _judge_writers(self) -> None:
        """No end writes what is not its to write."""
        for (side, key), writer in self._writers.items():
            number = SIDES.index(side)
            field = self._tables.fields[number].get(key)
            mine = writer == side if field is None or not field.writers else writer in field.writers
            if writer in SIDES and not mine:
                said = evidence(number, [key], self._shown(number), self._tables.fields[number], "")
                said = f"{said.removesuffix(': ')}: not the {writer}'s to write"
                self._note(_PARTIES[SIDES.index(writer)], "writer", said)

    def _is_well_typed(self, field: Field) -> bool:
        """Whether a key's value is of its type, as it was before."""
        value = self._shown(field.side).get(field.name)
        well_typed = value is None or field.check(value)
        return well_typed and bool(field.type_bit) and not self._life.standing & field.type_bit

    def _move(self, f: int, b: int) -> tuple[int, int, tuple[bool, bool]]:
        """Judge the change of states; what each end has seen now, and whose life began again."""
        life, tables = self._life, self._tables
        change = (life.f, life.b, life.front_seen, life.back_seen, f, b)
        known = tables.legal.get(change)
        if known is not None:
            return known
        said, begun = self._judge_move(f, b)
        after = said.front_seen, said.back_seen, begun
        if not said.legal:
            self._note_move(said, (f, b))
        elif not any(self._emptied):
            tables.remember_legal(change, after)
        return after

    def _judge_move(self, f: int, b: int) -> tuple[Judgement, tuple[bool, bool]]:
        life, product = self._life, self._tables.product
        node = (life.f, life.b, life.front_seen, life.back_seen)
        # A device that is not there did not come and go in between.
        again = (
            life.f in product.front.evident and not life.f == f == 0,
            life.b in product.back.evident and not life.b == b == 0,
        )
        said = product.judge(node, f, b, front_again=again[0], back_again=again[1])
        if not said.legal:
            self._emptied = (
                f != life.f and self._was_emptied(0, life.front, self._front),
                b != life.b and self._was_emptied(1, life.back, self._back),
            )
            again = again[0] or self._emptied[0], again[1] or self._emptied[1]
            said = product.judge(node, f, b, front_again=again[0], back_again=again[1])
        return said, (again[0] and f != life.f, again[1] and b != life.b)

    def _was_emptied(self, side: int, old: Keys, new: Keys) -> bool:
        """Whether all that this end's driver had put into its directory is gone."""
        fresh = self._tables.fresh[side]
        return any(key in fresh for key in old) and not any(key in fresh for key in new)

    def _note_move(self, said: Judgement, to: tuple[int, int]) -> None:
        life = self._life
        moves = f"{_WORDS[life.f]}/{_WORDS[life.b]} to {_WORDS[to[0]]}/{_WORDS[to[1]]}"
        early = said.front_moved_early, said.back_moved_early
        for side, bad in enumerate((said.front_moved_badly, said.back_moved_badly)):
            key = (SIDES[side], "state")
            if bad:
                party = written_by(_PARTIES[side], [key], self._changed, self._writers)
                text = f"no moves of the {SIDES[side]} lead from {moves} (frontend/backend)"
                self._note(party, f"{SIDES[side]}.state.move", text)
            elif early[side]:
                party = written_by(_PARTIES[side], [key], self._changed, self._writers)
                text = f"{moves} (frontend/backend): the {SIDES[side]} moved before it was its turn"
                self._note(party, f"{SIDES[side]}.state.early", text)
        if not any((said.front_moved_badly, said.back_moved_badly, *early)):
            text = f"{moves} (frontend/backend): one of them moved before it was its turn"
            self._note("undetermined", "state.early", text)

    def _judge_gate(self, gate: Gate, f: int, b: int) -> None:
        life = self._life
        if (life.b if gate.side else life.f) == gate.into:
            return
        before = life.started and gate.is_open(life.front, life.back, life.f, life.b)
        if not before and not gate.is_open(self._front, self._back, f, b):
            key = (SIDES[gate.side], "state")
            party = written_by(_PARTIES[gate.side], [key], self._changed, self._writers)
            text = f"{SIDES[gate.side]} state={gate.into}: it came here though its gate is closed"
            self._note(party, "gate", text)

    def _judge_change(self, field: Field, f: int, b: int, *, begun: bool) -> None:
        """Whether a key may have changed its value."""
        life = self._life
        old = (life.front, life.back)[field.side].get(field.name)
        directory = self._shown(field.side)
        new = directory.get(field.name)
        if old is None or begun or (new is None and "state" not in directory):
            return
        said = None
        if field.frozen is not None and not (new is None and field.removable):
            front, back = field.frozen
            if front >> f & 1 and front >> life.f & 1 and back >> b & 1 and back >> life.b & 1:
                said = "fixed", "changed, though it is fixed by now"
        if field.moves is not None and new is not None and new not in field.moves.get(old, ()):
            said = "move", f"no moves lead here from {escape(old, 20)}"
        if said is None:
            return
        place = (SIDES[field.side], field.name)
        party = written_by(field.party, [place], self._changed, self._writers)
        text = evidence(
            field.side, [field.name], directory, self._tables.fields[field.side], said[1]
        )
        self._note(party, f"{SIDES[field.side]}.{field.described}.{said[0]}", text)

    def _judge_rules(self, looked_at: set[int], f: int, b: int, *, moved: bool) -> int:
        """The rules that are broken now; those that were not before are noted."""
        life, rules = self._life, self._tables.rules
        front, back = self._front, self._back
        standing = life.standing
        if moved:
            again, in_force = self._tables.entered(life.f, life.b, f, b)
            standing &= in_force
            for number, side, name, present, broken in again:
                if name and (name in (back if side else front)) is not present:
                    standing &= ~(1 << number)
                elif broken(front, back, f, b) is not bool(standing >> number & 1):
                    looked_at.add(number)
        for number in looked_at:
            rule = rules[number]
            bit = 1 << number
            front_mask, back_mask = rule.masks
            if not (front_mask >> f & 1 and back_mask >> b & 1):
                continue
            if not rule.broken(front, back, f, b):
                standing &= ~bit
            elif not standing & bit:
                standing |= bit
                self._note_rule(rule, f, b)
        return standing

    def _note_rule(self, rule: Rule, f: int, b: int) -> None:
        life = self._life
        party = rule.party
        if life.started:
            old = (life.front, life.f, life.back, life.b)
            party = blamed(rule, old, (self._front, f, self._back, b))
            if party in SIDES and not self._answers_for(party, rule):
                party = "undetermined"
        party = written_by(party, rule.keys, self._changed, self._writers)
        side = 1 if rule.party == "backend" or rule.name.startswith("backend.") else 0
        keys = {key for name, key in rule.keys if name == SIDES[side]}
        present = [key for key in keys if key in self._shown(side)]
        text = evidence(
            side,
            present or sorted(keys)[:1],
            self._shown(side),
            self._tables.fields[side],
            rule.says,
        )
        self._note(party, rule.name, text)

    def _answers_for(self, party: Party, rule: Rule) -> bool:
        """Whether what changed of a rule's keys at this end is its driver's to answer for."""
        side = SIDES.index(party)
        old, new = (self._life.front, self._life.back)[side], self._shown(side)
        fields = self._tables.fields[side]
        changed = [key for name, key in rule.keys if name == party and old.get(key) != new.get(key)]
        return not changed or any(fields[key].party == party for key in changed)

    def _timers(self, f: int, b: int, standing: int) -> tuple[tuple[tuple[int, float], ...], float]:
        """The deadlines that run now. None runs for an end whose peer is in the wrong."""
        tables = self._tables
        began = dict(self._life.timers)
        timers = []
        due = NEVER
        for number in tables.timed(f, b):
            deadline = tables.deadlines[number]
            if standing & deadline.peer_rules:
                continue
            if deadline.when is not None and not deadline.when(self._front, self._back, f, b):
                continue
            since = began.get(number, self._now)
            timers.append((number, since))
            due = min(due, since + deadline.within)
        return tuple(timers), due

    def _shown(self, side: int) -> Keys:
        return self._back if side else self._front

    def _note(self, party: Party, rule: str, text: str) -> None:
        self.found.append(Violation(party, rule, text, self._now))
