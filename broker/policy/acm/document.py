"""What an ACM policy says, as it was written: names with their places, nothing checked yet."""

from __future__ import annotations

import msgspec

from broker.text.marked_yaml import Text  # noqa: TC001 - a type of fields, looked at when run


class AcmLabel(msgspec.Struct):
    """A `VirtualMachineLabel`; types are None where there is no element for them."""

    name: Text
    was: Text | None
    ste: list[Text] | None
    chinese_wall: list[Text] | None


class AcmResource(msgspec.Struct):
    """A `ResourceLabel`; ACM wants exactly one type."""

    name: Text
    was: Text | None
    ste: list[Text]


class AcmConflict(msgspec.Struct):
    """A `Conflict` of the Chinese Wall; in the oldest files it may lack a name."""

    name: Text
    types: list[Text]


class AcmPolicy(msgspec.Struct, kw_only=True):
    """A whole policy.

    `version` and `replaces` are as written; None where not given. `ste_types` and
    `chinese_wall_types` are None where the policy lacks that component. `primary` is what
    the components STE and CHWALL say about being the primary one. `comments` are the author's, by
    section of our policies and name there (as written); those on the whole by ("policy", "").
    """

    name: Text
    version: Text | None
    replaces: tuple[Text, Text] | None
    date: str
    ste_types: list[Text] | None
    chinese_wall_types: list[Text] | None
    conflicts: list[AcmConflict]
    bootstrap: Text
    labels: list[AcmLabel]
    resources: list[AcmResource]
    primary: dict[str, Text]
    several_lists: list[Text]
    """Labels with more than one list of types of one kind; the lists are joined."""
    comments: dict[tuple[str, str], list[str]]
