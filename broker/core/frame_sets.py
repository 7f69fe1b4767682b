"""Who may exchange frames with whom, as sets: the rows of `Policy.frames`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.core.definition import Definition
    from broker.core.reach import Reach


def frame_rows(definition: Definition, reach: Reach) -> list[int]:
    """For each label of `reach.names`, the labels it may exchange frames with."""
    numbers = {
        reach.labels[name].name: n for n, name in enumerate(reach.names) if name in reach.labels
    }
    denied = [0] * len(reach.names)
    allowed = [0] * len(reach.names)
    restricted = 0
    for rule in definition.betweens:
        one, other = (numbers[name] for name in rule.pair)
        rows = denied if rule.verb == "deny" else allowed
        rows[one] |= 1 << other
        rows[other] |= 1 << one
        if rule.verb == "allow":
            restricted |= 1 << one | 1 << other
    result = []
    for number, name in enumerate(reach.names):
        label = reach.labels.get(name)
        shared = 0
        for ste in label.ste if label is not None else ():
            shared |= reach.holders[ste]
        # Where some allow names either label, one must match.
        unrestricted = 0 if restricted >> number & 1 else ~restricted
        result.append(shared & ~denied[number] & (allowed[number] | unrestricted))
    return result
