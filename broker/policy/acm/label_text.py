"""ACM's label strings, `ACM:<policy>:<label>`, as xend wrote them into files and xenstore."""

from __future__ import annotations

from typing import Final

import msgspec

from broker.text.escape import escape

_TYPE: Final = "ACM"
_INVALID: Final = "INV_"


class LabelText(msgspec.Struct, frozen=True):
    """A label and its policy; `invalid` where an update or reset had made it void (`INV_ACM`)."""

    policy: str
    label: str
    invalid: bool


def parse_label(text: str) -> LabelText:
    """Read a label string: exactly three parts, none of them empty.

    Raises:
        ValueError: it is not one; the message says why.
    """
    parts = text.split(":")
    shown = escape(text, 80)
    if len(parts) != 3:
        raise ValueError(f"label '{shown}' has {len(parts)} parts, not TYPE:POLICY:LABEL")
    kind, policy, label = parts
    return label_of(kind, policy, label)


def label_of(kind: str, policy: str, label: str) -> LabelText:
    """The label of three parts, as resource_labels holds them.

    Raises:
        ValueError: the type is not ACM's, or a part is empty or has a colon.
    """
    shown = escape(f"{kind}:{policy}:{label}", 80)
    invalid = kind.startswith(_INVALID)
    if kind.removeprefix(_INVALID) != _TYPE:
        raise ValueError(f"label '{shown}' is not of type {_TYPE}")
    if not policy or not label:
        raise ValueError(f"label '{shown}' names no policy or no label")
    if ":" in policy or ":" in label:
        raise ValueError(f"label '{shown}' has a colon in a name")
    return LabelText(policy, label, invalid)
