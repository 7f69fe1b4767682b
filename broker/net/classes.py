"""Equivalence classes of labels, and their numbers: what the bridge matches instead of labels.

Labels that may exchange frames with exactly the same labels share one class, so that the set of
allowed pairs grows with the number of classes squared and not with ports or labels.

Numbers are stable: a class keeps its number across a policy change wherever that is safe, and
then no port's elements change. It is safe only if the class still holds every label the number
stood for. A packet that is being looked up while a change commits may have read its sender's
number before and meet the new pairs after; a number that had passed on to other labels would then
open what neither policy opens. For the same reason a number is never given out again in the
change that retires it, and a retired number stays in the pairs, as narrow as both policies allow,
until the ports have moved: see `Classes.during` and `Classes.pairs`.

Pure: no kernel, no clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

MAX_CLASS: Final = 0xFFFF
"""Class numbers are 1 to this: they travel in the low 16 bits of a packet's mark."""

Pairs = frozenset[tuple[int, int]]


class ClassesError(ValueError):
    """There are more classes than numbers for them."""


class Classes(msgspec.Struct, frozen=True):
    """Which class each label is in, and which ordered pairs (sender, receiver) may pass.

    `members` maps a number to its labels. `pairs` holds for a settled network; `during` is
    `pairs` plus what the retired numbers still need while ports move, and equals `pairs` when no
    number was retired. A class's pair with itself tells whether its labels may reach each other,
    and whether two ports of one label may.
    """

    members: dict[int, frozenset[str]]
    number: dict[str, int]
    pairs: Pairs
    during: Pairs

    def may_pass(self, sender: str, receiver: str) -> bool:
        """Whether frames of a port labelled `sender` may reach one labelled `receiver`."""
        ends = self.number.get(sender), self.number.get(receiver)
        return ends in self.pairs


NONE: Final = Classes({}, {}, frozenset(), frozenset())
"""No policy: no label has a class, nothing may pass."""


def avoiding(numbers: Iterable[int]) -> Classes:
    """What to pass as `previous` when the kernel holds numbers whose labels are not known.

    They stand for nobody: none of them is given out, and none keeps a pair.
    """
    return Classes({n: frozenset() for n in numbers}, {}, frozenset(), frozenset())


def classify(
    labels: Iterable[str],
    frames: Callable[[str, str], bool],
    previous: Classes = NONE,
    alike: Callable[[str], Hashable] = str,
) -> Classes:
    """The classes of `labels` under `frames`, numbered after `previous` where that is safe.

    `frames(a, b)` is asked for both orders and passes only if both do, since a conversation
    needs both and the relation is meant to be symmetric. Labels of which `alike` is equal must be
    so to `frames`, each other and themselves included: then one is asked for all of them, and
    thousands of labels cost no more than what there is to tell them apart.

    Raises:
        ClassesError: more than `MAX_CLASS` numbers are needed.
    """
    kinds: dict[Hashable, list[str]] = {}
    for name in sorted(set(labels)):
        kinds.setdefault(alike(name), []).append(name)
    names = [group[0] for group in kinds.values()]
    peers: dict[str, set[str]] = {name: set() for name in names}
    for place, one in enumerate(names):
        for other in names[place:]:
            if frames(one, other) and (one == other or frames(other, one)):
                peers[one].add(other)
                peers[other].add(one)
    same: dict[frozenset[str], list[str]] = {}
    for name, group in zip(names, kinds.values(), strict=True):
        same.setdefault(frozenset(peers[name]), []).extend(group)
    members = _number([frozenset(group) for group in same.values()], previous)
    number = {label: n for n, group in members.items() for label in group}
    pairs = frozenset(
        (number[group[0]], number[peer]) for reached, group in same.items() for peer in reached
    )
    return Classes(members, number, pairs, pairs | _retired_pairs(previous, members, number, pairs))


def _number(groups: list[frozenset[str]], previous: Classes) -> dict[int, frozenset[str]]:
    """A number for each group: an old one where the group holds all it stood for, else a new."""
    members: dict[int, frozenset[str]] = {}
    fresh: list[frozenset[str]] = []
    for group in groups:
        kept = [
            (-len(old), n)
            for n in {previous.number[label] for label in group if label in previous.number}
            if (old := previous.members[n]) <= group
        ]
        if kept:
            members[min(kept)[1]] = group
        else:
            fresh.append(group)
    free = (n for n in range(1, MAX_CLASS + 1) if n not in members and n not in previous.members)
    for group in sorted(fresh, key=min):
        number = next(free, None)
        if number is None:
            raise ClassesError(f"more than {MAX_CLASS} classes of labels")
        members[number] = group
    return members


def _retired_pairs(
    previous: Classes,
    members: Mapping[int, frozenset[str]],
    number: Mapping[str, int],
    pairs: Pairs,
) -> Pairs:
    """Pairs with a retired number in them that every label it stood for may still use.

    A label that is gone from the policy may use nothing, and takes its number's pairs with it.
    """
    retired = [n for n in previous.members if n not in members]
    now: dict[int, set[int] | None] = {n: {n} for n in members}
    for n in retired:
        old = previous.members[n]
        now[n] = {number[label] for label in old} if all(label in number for label in old) else None
    kept = set()
    for one in retired:
        mine = now[one]
        for other, theirs in now.items():
            if mine and theirs and all((a, b) in pairs for a in mine for b in theirs):
                kept |= {(one, other), (other, one)}
    return frozenset(kept)
