"""What to do about one channel's node: nothing, publish again, or decide anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from broker.core.channels import Decision

Action = Literal["keep", "publish", "decide"]


class Entry(msgspec.Struct, frozen=True):
    """The last decision on one path as the journal has it: its number, exact text, content."""

    seq: int
    text: bytes
    decision: Decision


class Step(msgspec.Struct, frozen=True):
    """What to do, and whether somebody else's text was found where ours should be."""

    action: Action
    foreign: bool


def plan(decision: Decision, entry: Entry | None, published: bytes | None) -> Step:
    """Compare what should be with what the journal says and what the node holds.

    `published` is the node's value as last read: absent (None) and empty both mean that no
    record was ever written there, which is no tampering; anything else that is not the
    journal's own text is.
    """
    foreign = bool(published) and (entry is None or published != entry.text)
    if entry is None or entry.decision != decision:
        return Step("decide", foreign)
    return Step("keep" if published == entry.text else "publish", foreign)
