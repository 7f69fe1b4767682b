"""Whether a `.map` file gives labels the numbers that they would have here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.policy.acm.names import adopted
from broker.policy.acm.numbering import in_order
from broker.text.escape import escape

if TYPE_CHECKING:
    from broker.policy.acm.document import AcmPolicy
    from broker.policy.acm.map_file import MapFile
    from broker.policy.acm.numbering import Scheme


def differences(
    document: AcmPolicy, scheme: Scheme, given: MapFile, accept: frozenset[str]
) -> list[str]:
    """What a map says otherwise than the policy numbered by `scheme` would be here."""
    said = []
    if given.policy != document.name:
        said.append(
            f"the map is of policy '{escape(given.policy, 60)}', not '{escape(document.name, 60)}'"
        )
    labels = [label.name for label in in_order(document.labels, scheme, document.bootstrap)]
    resources = [resource.name for resource in in_order(document.resources, scheme)]
    for tables, names, first in (
        (given.labels, labels, 1),
        (given.resources, resources, 1 + len(labels)),
    ):
        ours = {adopted(name, accept): number for number, name in enumerate(names, first)}
        for component, table in tables.items():
            for name, number in table.items():
                here = ours.get(adopted(name, accept))
                if here != number:
                    there = "no such label" if here is None else f"{here:x}"
                    said.append(
                        f"the map's {component} number of '{escape(name, 60)}' is {number:x}; "
                        f"numbered in {scheme} order it is {there}"
                    )
    return said
