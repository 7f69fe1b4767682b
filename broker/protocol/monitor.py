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
    from broker.protocol.rule import Name
    from broker.protocol.spec import Spec
    from broker.protocol.tables import Field

MOST_KEYS: Final = 96
"""Keys of one directory that are kept as they are; of more, only those described."""


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
        now = max(now, life.now)
        found: list[Violation] = []
        if life.due < now:
            life = self._expire(life, now, found)
        front, front_changed = self._taken(0, life.front, untrusted_front)
        back, back_changed = self._taken(1, life.back, untrusted_back)
        if not front_changed and not back_changed and not writers:
            return msgspec.structs.replace(life, now=now), tuple(found)
        look = Look(self._tables, life, now, (front, back), writers or {})
        after = look.judge(front_changed + back_changed)
        if look.found:
            found += look.found
            found.sort(key=_by_rule)
        return after, tuple(found)

    def _taken(self, side: int, old: Keys, new: Keys) -> tuple[Keys, list[Field]]:
        """The directory in a bounded form, and the described keys of it that changed."""
        if new is old or new == old:
            return old, []
        fields = self._tables.fields[side]
        if len(new) > MOST_KEYS:
            new = _bounded(fields, new)
        changed = []
        old_value = old.get
        same = 0
        for key, value in new.items():
            before = old_value(key)
            if before is value or before == value:
                same += 1
            elif len(value) > MAX_VALUE + 1:
                return self._taken(side, old, _bounded(fields, new))
            elif key in fields:
                changed.append(fields[key])
        if same < len(old):
            changed += [fields[key] for key in old if key not in new and key in fields]
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


def _by_rule(violation: Violation) -> tuple[float, str, str]:
    return violation.time, violation.rule, violation.party


def _bounded(fields: Mapping[str, Field], untrusted_keys: Keys) -> Keys:
    """Only what is described, of each value no more than shows that it is too long."""
    return {key: value[: MAX_VALUE + 1] for key, value in untrusted_keys.items() if key in fields}
