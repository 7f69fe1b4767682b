"""The lines that `policy decide` is asked: one JSON object each, strictly read."""

from __future__ import annotations

import json
from typing import Final, Literal

import msgspec

from broker.text.escape import escape

_MOST_BYTES: Final = 64 * 1024


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A channel asked about; without `mode` it writes."""

    device_class: str = msgspec.field(name="class")
    frontend: str
    backend: str
    resource: str | msgspec.UnsetType = msgspec.UNSET
    mode: Literal["r", "w"] = "w"


class MalformedError(ValueError):
    """The line is not a request."""


def parse(line: bytes) -> Request:
    """Read one line.

    Raises:
        MalformedError: it is not one JSON object with exactly the keys of a request.
    """
    if len(line) > _MOST_BYTES:
        raise MalformedError(f"longer than {_MOST_BYTES} bytes")
    try:
        # msgspec alone would take the last of two equal keys.
        value = json.loads(line.decode("utf-8"), object_pairs_hook=_once)
        return msgspec.convert(value, Request)
    except MalformedError:
        raise
    except UnicodeDecodeError:
        raise MalformedError("not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise MalformedError(escape(str(error))) from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise MalformedError("a key is given twice")
    return values
