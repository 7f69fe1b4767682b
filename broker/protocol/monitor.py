"""The monitor: what both ends of a channel show, snapshot after snapshot; who broke what.

    monitor = Monitor(spec)                      # one for a class
    life = monitor.begin()                       # one for a channel's life
    life, violations = monitor.step(life, now, frontend_keys, backend_keys)

Pure and table-driven: the same snapshots at the same times give the same violations, whatever
the order of the keys in them. A snapshot is what both directories held at one moment (one
transaction); a directory that is gone is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.protocol.conditions import SIDES
from broker.protocol.life import NEVER, Life, Violation
from broker.protocol.look import Look
from broker.protocol.tables import Tables
from broker.protocol.values import MAX_VALUE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.protocol.conditions import Keys
    from broker.protocol.fields import Field
    from broker.protocol.rule import Name
    from broker.protocol.spec import Spec

MOST_KEYS: Final = 96
"""Keys of one directory that are kept as they are; of more, only those described."""
_NOTHING: Final[list[Field]] = []


class Monitor:
    """Judges channels of one class. It holds no channel's state: that is `Life`."""

    def __init__(self, spec: Spec) -> None:
        self._tables = Tables(spec)
        self._rules = self._tables.rules

    def rule_names(self) -> list[str]:
        """Every rule this monitor judges by, always in the same order."""
        tables = self._tables
        names = [rule.name for rule in tables.rules]
        ends = tables.product.front, tables.product.back
        for side, end, fields in zip(SIDES, ends, tables.fields, strict=True):
            names += [f"{side}.state.move"] if end.has_machine else []
            names += [f"{side}.state.early"] if any(end.needs) else []
            frozen = {it.described for it in fields.values() if it.frozen is not None}
            moving = {it.described for it in fields.values() if it.moves is not None}
            names += [f"{side}.{it}.fixed" for it in sorted(frozen)]
            names += [f"{side}.{it}.move" for it in sorted(moving)]
        names += ["gate"] if tables.gate is not None else []
        return [*names, "writer", *(deadline.name for deadline in tables.deadlines)]

    def begin(self) -> Life:
        """A channel nothing has been seen of."""
        return Life({}, {})

    def due(self, life: Life) -> float:
        """When, on the caller's clock, the next deadline ends; infinity where none runs.

        A step with the same snapshot after that moment reports it.
        """
        return life.due

    def step(
        self,
        life: Life,
        now: float,
        untrusted_front: Keys,
        untrusted_back: Keys,
        writers: Mapping[Name, str] | None = None,
    ) -> tuple[Life, tuple[Violation, ...]]:
        """Take a snapshot at `now` (seconds, any clock that does not run backwards).

        The mappings are kept and must not be changed afterwards. `writers` says, where it is
        known, who made the changes since the last step: by (end, key) one of `frontend`,
        `backend`, `toolstack`, `hotplug`.
        """
        found: list[Violation] = []
        if now < life.now:
            now = life.now
        elif life.due < now:
            life = self._expire(life, now, found)
        front, front_changed = life.front, _NOTHING
        if untrusted_front is not front:
            front, front_changed = self._taken(0, front, untrusted_front)
        back, back_changed = life.back, _NOTHING
        if untrusted_back is not back:
            back, back_changed = self._taken(1, back, untrusted_back)
        changed = front_changed + back_changed
        if not writers:
            if not changed:
                return life, tuple(found)
            if len(changed) == 1 and self._changes_nothing(life, changed[0], front, back):
                return self._followed(life, now, front, back), tuple(found)
        look = Look(self._tables, life, now, (front, back), writers or {})
        after = look.judge(changed)
        if look.found:
            found += look.found
            found.sort(key=_by_rule)
        return after, tuple(found)

    def _changes_nothing(self, life: Life, field: Field, front: Keys, back: Keys) -> bool:
        """Whether a change of one key leaves every rule and deadline as it was.

        Most changes are of this kind; they need none of what `Look` does.
        """
        if field.watched:
            return False
        old, directory = (life.back, back) if field.side else (life.front, front)
        name = field.name
        if field.frozen is not None and name in old:
            front_mask, back_mask = field.frozen
            if front_mask >> life.f & 1 and back_mask >> life.b & 1:
                return False
        if field.moves is not None:
            return False
        value = directory.get(name)
        if life.standing & field.type_bit or (value is not None and not field.check(value)):
            return False
        f, b, standing = life.f, life.b, life.standing
        for bit, broken in self._tables.others(field, f, b):
            if broken(front, back, f, b) is not bool(standing & bit):
                return False
        return True

    def _followed(self, life: Life, now: float, front: Keys, back: Keys) -> Life:
        return Life(
            front,
            back,
            life.f,
            life.b,
            life.front_seen,
            life.back_seen,
            life.standing,
            life.timers,
            life.due,
            now,
            True,  # noqa: FBT003 - keywords take a third of the time of the whole step
        )

    def _taken(self, side: int, old: Keys, new: Keys) -> tuple[Keys, list[Field]]:
        """The directory in a bounded form, and the described keys of it that changed."""
        fields = self._tables.fields[side]
        if len(new) > MOST_KEYS:
            new = _bounded(fields, new)
        # What of both is not in the other, found at the speed of C.
        difference = new.items() ^ old.items()
        if not difference:
            return old, _NOTHING
        changed = []
        for key, value in difference:
            if len(value) > MAX_VALUE + 1:
                return self._taken(side, old, _bounded(fields, new))
            # Of a changed value the difference holds both; of a removed one the old.
            if key in fields and new.get(key, value) is value:
                changed.append(fields[key])
        return new, changed

    def _expire(self, life: Life, now: float, found: list[Violation]) -> Life:
        """Report the deadlines that ended before `now`."""
        timers = []
        for number, since in life.timers:
            deadline = self._tables.deadlines[number]
            if since + deadline.within < now:
                said = f"{deadline.says}: frontend at {life.f}, backend at {life.b}"
                ended = since + deadline.within
                found.append(Violation(deadline.owner, deadline.name, said, ended))
                since = NEVER  # noqa: PLW2901 - reported once
            timers.append((number, since))
        return msgspec.structs.replace(life, timers=tuple(timers), due=self._first(timers))

    def _first(self, timers: list[tuple[int, float]]) -> float:
        deadlines = self._tables.deadlines
        return min((since + deadlines[number].within for number, since in timers), default=NEVER)


def _by_rule(violation: Violation) -> tuple[float, str, str, str]:
    return violation.time, violation.rule, violation.party, violation.evidence


def _bounded(fields: Mapping[str, Field], untrusted_keys: Keys) -> Keys:
    """Only what is described, of each value no more than shows that it is too long."""
    return {key: value[: MAX_VALUE + 1] for key, value in untrusted_keys.items() if key in fields}
