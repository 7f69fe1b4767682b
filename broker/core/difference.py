"""What two policies decide differently: exact, over all labels, classes, resources and modes.

Labels are compared under what they are called now (`was`); a label of one policy alone has no
grants in the other. What is asked is what can happen: a resource with a match for one class is
not asked about in another. Equal differences of many labels are told once, as sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from broker.core.frame_sets import frame_rows
from broker.core.reach import Reach
from broker.core.wall_sets import barred, wall_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.core.definition import Definition
    from broker.core.policy import Policy

Access = Literal["all", "reading", "writing"]
"""Of a change: everything, or reading alone (writing was or stays denied), or writing alone."""


class ChannelChange(msgspec.Struct, frozen=True):
    """Every one of `frontends` with every one of `backends`, over each of `resources`.

    An empty `resources` is a channel without one.
    """

    gained: bool
    device_class: str
    access: Access
    frontends: tuple[str, ...]
    backends: tuple[str, ...]
    resources: tuple[str, ...]


class PairChange(msgspec.Struct, frozen=True):
    """Every one of `labels` with every one of `others`, in either order.

    `frames`: may exchange frames. `together`: may run at the same time.
    """

    gained: bool
    what: Literal["frames", "together"]
    labels: tuple[str, ...]
    others: tuple[str, ...]


class RunChange(msgspec.Struct, frozen=True):
    """Labels that may now run on this host when nobody else does, or no longer may."""

    gained: bool
    labels: tuple[str, ...]


class Difference(msgspec.Struct, frozen=True):
    """Everything decided differently; all empty where two policies decide the same."""

    channels: tuple[ChannelChange, ...]
    pairs: tuple[PairChange, ...]
    runs: tuple[RunChange, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing is decided differently."""
        return not (self.channels or self.pairs or self.runs)


_Key = tuple[bool, Access, int]
_OWN: Final = ""
"""Stands for no resource among the names of resources."""


def difference(old: Policy, new: Policy) -> Difference:
    """What `new` grants that `old` did not, and the other way round."""
    names = list(new.labels)
    called: dict[str, str] = {}
    for name, successor in new.successors(old).items():
        after = successor
        if after is None:
            # A name that means another label now can stand only for that one.
            after = f"{name} (former)" if new.has_label(name) else name
            names.append(after)
        called[after] = name
    before = Reach(old.definition, names, called)
    now = Reach(new.definition, names, {name: name for name in new.labels})
    return Difference(
        tuple(_channels(before, now)),
        tuple(_pairs(old.definition, new.definition, before, now)),
        tuple(_runs(old.definition, new.definition, before, now)),
    )


def _channels(before: Reach, now: Reach) -> Iterator[ChannelChange]:
    touched = _touched(before, now)
    for name in dict.fromkeys([*before.classes, *now.classes]):
        found: dict[_Key, dict[str, list[str]]] = {}
        for frontend in now.names:
            for resource, masks in _differing(before, now, name, frontend, touched):
                for gained, access, mask in _transitions(*masks):
                    if mask:
                        by_frontend = found.setdefault((gained, access, mask), {})
                        by_frontend.setdefault(frontend, []).append(resource)
        for (gained, access, mask), by_frontend in found.items():
            backends = now.named(mask)
            for frontends, over in _alike(by_frontend):
                yield ChannelChange(gained, name, access, frontends, backends, over)


def _alike(by_frontend: dict[str, list[str]]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Frontends with the same resources together; what is without a resource apart."""
    frontends_of: dict[tuple[str, ...], list[str]] = {}
    for frontend, over in by_frontend.items():
        frontends_of.setdefault(tuple(over), []).append(frontend)
    for resources, frontends in frontends_of.items():
        if _OWN in resources:
            yield tuple(frontends), ()
        named = tuple(each for each in resources if each != _OWN)
        if named:
            yield tuple(frontends), named


def _touched(before: Reach, now: Reach) -> frozenset[str]:
    """Resources about which types alone can make a difference: they, or their type's holders."""
    return frozenset(
        name
        for name in {**before.resources, **now.resources}
        if _about(before, name) != _about(now, name)
    )


def _about(reach: Reach, name: str) -> object:
    held = reach.resources.get(name)
    return (
        None
        if held is None
        else (held.ste, held.colours, held.device_class, reach.holders[held.ste])
    )


_Masks = tuple[int, int, int, int]
"""Backends granted: reading and writing before, reading and writing now."""


def _differing(
    before: Reach, now: Reach, device_class: str, frontend: str, touched: frozenset[str]
) -> Iterator[tuple[str, _Masks]]:
    """The resources over which something may differ, with who is granted what."""
    first, second = (_Side(reach, device_class, frontend) for reach in (before, now))
    yield _OWN, (*first.granted(None), *second.granted(None))
    same = first.key == second.key
    if same and not touched:
        return
    for resource in dict.fromkeys([*first.resources(), *second.resources()]):
        if same and resource not in touched:
            continue
        masks = (*first.granted(resource), *second.granted(resource))
        if masks[:2] != masks[2:]:
            yield resource, masks


class _Side:
    """One frontend in one class under one policy; `key` is equal where rules and label are."""

    def __init__(self, reach: Reach, device_class: str, frontend: str) -> None:
        self._reach = reach
        self._class = device_class
        self._frontend = frontend
        self._row = reach.row(device_class, frontend)
        self.key = self._row, reach.held(frontend)

    def resources(self) -> list[str]:
        """Those that this frontend may be granted at all."""
        return self._reach.within_reach(self._class, self._frontend)

    def granted(self, resource: str | None) -> tuple[int, int]:
        """Backends granted, reading and writing."""
        shared = self._reach.sharing(self._class, self._frontend, resource)
        reading, writing = self._row.open_for(resource)
        return shared & reading, shared & writing


def _transitions(
    read_before: int, write_before: int, read_now: int, write_now: int
) -> Iterator[tuple[bool, Access, int]]:
    """Who changed how; who may write may read, so three levels are all there are."""
    for gained, read, write in (
        (True, read_now & ~read_before, write_now & ~write_before),
        (False, read_before & ~read_now, write_before & ~write_now),
    ):
        yield gained, "all", read & write
        yield gained, "reading", read & ~write
        yield gained, "writing", write & ~read


def _pairs(old: Definition, new: Definition, before: Reach, now: Reach) -> Iterator[PairChange]:
    kinds: tuple[tuple[Literal["frames", "together"], list[int], list[int]], ...] = (
        ("frames", frame_rows(old, before), frame_rows(new, now)),
        ("together", wall_rows(old, before), wall_rows(new, now)),
    )
    for what, rows_before, rows_now in kinds:
        found: dict[tuple[bool, int], list[str]] = {}
        both = before.everyone & now.everyone
        for number, name in enumerate(now.names):
            after = rows_now[number] & -(1 << number)  # each pair once: with itself and later ones
            earlier = rows_before[number] & -(1 << number)
            if what == "together":
                # Of a label that only one policy has there is nothing to say.
                kept = both if both >> number & 1 else 0
                after, earlier = after & kept, earlier & kept
            for gained, mask in ((True, after & ~earlier), (False, earlier & ~after)):
                if mask:
                    found.setdefault((gained, mask), []).append(name)
        for (gained, mask), names in found.items():
            yield PairChange(gained, what, tuple(names), now.named(mask))


def _runs(old: Definition, new: Definition, before: Reach, now: Reach) -> Iterator[RunChange]:
    earlier = before.everyone & ~barred(old, before)
    after = now.everyone & ~barred(new, now)
    both = before.everyone & now.everyone
    for gained, mask in ((True, after & ~earlier & both), (False, earlier & ~after & both)):
        if mask:
            yield RunChange(gained, now.named(mask))
