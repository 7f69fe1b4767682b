"""Who may run beside whom, as sets: the rows of `Policy.admit`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.core.definition import Definition
    from broker.core.reach import Reach


def wall_rows(definition: Definition, reach: Reach) -> list[int]:
    """For each label of `reach.names`, the labels that may run at the same time."""
    holders: dict[str, int] = {}
    for number, name in enumerate(reach.names):
        label = reach.labels.get(name)
        for wall in label.chinese_wall if label is not None else ():
            holders[wall] = holders.get(wall, 0) | 1 << number
    result = []
    for name in reach.names:
        label = reach.labels.get(name)
        apart = 0
        for members in definition.conflict_sets.values():
            for own in label.chinese_wall if label is not None else ():
                if own in members:
                    for member in members:
                        apart |= holders.get(member, 0) if member != own else 0
        result.append(0 if label is None else reach.everyone & ~apart)
    return result


def barred(definition: Definition, reach: Reach) -> int:
    """The labels that may not run even alone: against the bootstrap label, or its types."""
    first = next(
        number
        for number, name in enumerate(reach.names)
        if (label := reach.labels.get(name)) is not None and label.name == definition.bootstrap
    )
    beside_it = wall_rows(definition, reach)[first]
    held = frozenset(reach.labels[reach.names[first]].ste)
    mask = 0
    for number, name in enumerate(reach.names):
        label = reach.labels.get(name)
        if label is None:
            continue
        authorized = not definition.host_authorization or held.issuperset(label.ste)
        if not authorized or not beside_it >> number & 1:
            mask |= 1 << number
    return mask
