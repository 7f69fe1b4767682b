"""The grammar of ACM's XML, both dialects: which element holds which, in what order.

From security_policy.xsd as of 2005 (types and labels in two files) and as of 2006 to 2011. Where
ACM's two copies of the schema differ the wider one is taken; `check` looks at the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.text.escape import escape

if TYPE_CHECKING:
    from broker.policy.findings import Findings
    from broker.text.xml_tree import Element


class Child(msgspec.Struct, frozen=True):
    """An element that may stand below another; `most` None is any number."""

    name: str
    spec: Spec
    least: int = 0
    most: int | None = 1


class Spec(msgspec.Struct, frozen=True):
    """An element: its children in their order, its attributes, or just text."""

    children: tuple[Child, ...] = ()
    attributes: tuple[str, ...] = ()


_TEXT: Final = Spec()
_NAMED: Final = Spec(attributes=("from",))
_TYPES: Final = Spec((Child("Type", _TEXT, 0, None),))
_STE_LIST: Final = "SimpleTypeEnforcementTypes"
_WALL_LIST: Final = "ChineseWallTypes"
_POLICY_HEADER: Final = Spec(
    (
        Child("PolicyName", _TEXT),
        Child("Name", _TEXT),
        Child("PolicyUrl", _TEXT),
        Child("Reference", _TEXT),
        Child("Date", _TEXT),
        Child("NameSpaceUrl", _TEXT),
        Child("Version", _TEXT),
        Child("FromPolicy", Spec((Child("PolicyName", _TEXT, 1), Child("Version", _TEXT, 1)))),
    )
)
_LABEL_HEADER: Final = Spec(
    (
        Child("Name", _TEXT),
        Child("Date", _TEXT),
        Child("PolicyName", Spec((Child("Url", _TEXT), Child("Reference", _TEXT)))),
        Child("PolicyReference", Spec((Child("Url", _TEXT), Child("Reference", _TEXT)))),
    )
)
_VM_LABEL: Final = Spec(
    (
        Child("Name", _NAMED, 1),
        Child(_STE_LIST, _TYPES, 0, None),
        Child(_WALL_LIST, _TYPES, 0, None),
    )
)
_RESOURCE_LABEL: Final = Spec((Child("Name", _NAMED, 1), Child(_STE_LIST, _TYPES, 0, None)))
TEMPLATE: Final = Spec(
    (
        Child("LabelHeader", _LABEL_HEADER),
        Child(
            "SubjectLabels",
            Spec((Child("VirtualMachineLabel", _VM_LABEL, 1, None),), ("bootstrap",)),
        ),
        Child("ObjectLabels", Spec((Child("ResourceLabel", _RESOURCE_LABEL, 0, None),))),
    )
)
"""`SecurityLabelTemplate`: a part of the policy, or in 2005 a file of its own."""
NAMESPACE: Final = "http://www.ibm.com"
"""Of every element."""
DEFINITION: Final = Spec(
    (
        Child("PolicyHeader", _POLICY_HEADER, 1),
        Child("SimpleTypeEnforcement", Spec((Child(_STE_LIST, _TYPES, 1),), ("priority",))),
        Child(
            "ChineseWall",
            Spec(
                (
                    Child(_WALL_LIST, _TYPES, 1),
                    Child(
                        "ConflictSets",
                        Spec((Child("Conflict", Spec(_TYPES.children, ("name",)), 0, None),)),
                    ),
                ),
                ("priority",),
            ),
        ),
        Child("SecurityLabelTemplate", TEMPLATE),
    )
)
"""`SecurityPolicyDefinition`."""


def validate(element: Element, spec: Spec, findings: Findings) -> None:
    """Note what in `element` and below is not as `spec` says; depth is bounded by the reader."""
    for name, value in element.attributes.items():
        if name not in spec.attributes:
            findings.add(value, f"{element.name} has no attribute '{escape(name, 60)}'")
    if element.text and spec.children:
        findings.add(element.text, f"text in {element.name}: '{escape(element.text, 40)}'")
    at = 0
    counts = [0] * len(spec.children)
    for child in element.children:
        position = next(
            (i for i in range(at, len(spec.children)) if spec.children[i].name == child.name), None
        )
        if position is None:
            _misplaced(element, child, spec, findings)
            continue
        at = position
        counts[position] += 1
        most = spec.children[position].most
        if most is not None and counts[position] > most:
            findings.add(child.text, f"a second {child.name} in {element.name}")
        validate(child, spec.children[position].spec, findings)
    for wanted, count in zip(spec.children, counts, strict=True):
        if count < wanted.least:
            findings.add(element.text, f"{element.name} lacks its {wanted.name}")


def _misplaced(element: Element, child: Element, spec: Spec, findings: Findings) -> None:
    names = [known.name for known in spec.children]
    shown = escape(child.name, 60)
    if child.name in names:
        findings.add(child.text, f"{shown} stands too late: the order is {', '.join(names)}")
    else:
        known = f"; known here: {', '.join(names)}" if names else ""
        findings.add(child.text, f"{element.name} has no {shown}{known}")
