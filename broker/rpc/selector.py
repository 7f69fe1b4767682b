"""Which domain an operator means: a domid, a uuid or a name, as xl takes them."""

from __future__ import annotations

from typing import Literal

import msgspec

from broker.xenstore import paths


class Selector(msgspec.Struct, frozen=True):
    """A parsed selector; `value` is canonical (a domid is its decimal)."""

    kind: Literal["domid", "uuid", "name"]
    value: str

    @property
    def domid(self) -> int | None:
        """The domid, if that is what was given."""
        return int(self.value) if self.kind == "domid" else None


def parse_selector(text: str) -> Selector:
    """Read a selector.

    `domid:3`, `uuid:…` and `name:…` say which; without, a decimal is a domid, 36 characters
    of uuid (in either case) are a uuid, and the rest is a name.

    Raises:
        ValueError: it can be none of them; the message says what was expected.
    """
    kind, colon, value = text.partition(":")
    if not colon or kind not in ("domid", "uuid", "name"):
        kind, value = "", text
    if kind == "domid" or (not kind and value.isascii() and value.isdigit()):
        if paths.parse_domid(value) is None:
            raise ValueError(
                f"not a domid: {value[:80]!a}; a domid is a decimal below 32752 "
                "(for a domain of such a name put name: before it)"
            )
        return Selector("domid", value)
    if kind == "uuid" or (not kind and paths.is_uuid(value.lower())):
        if not paths.is_uuid(value.lower()):
            raise ValueError(f"not a uuid: {value[:80]!a}; write it as xl does, 8-4-4-4-12 digits")
        return Selector("uuid", value.lower())
    if not value or len(value) > 255 or not value.isprintable():
        raise ValueError(
            f"not a domain's name: {value[:80]!a}; 1 to 255 printable characters are expected"
        )
    return Selector("name", value)
