"""The lines that `policy decide` and `policy suggest` are asked: JSON objects, strictly read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal

import msgspec

from broker.text.escape import escape
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.core import proofs

STDIN: Final = Path("-")

_MOST_BYTES: Final = 64 * 1024


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A channel asked about; without `mode` it writes."""

    device_class: str = msgspec.field(name="class")
    frontend: str
    backend: str
    resource: str | msgspec.UnsetType = msgspec.UNSET
    mode: Literal["r", "w"] = "w"


class Malformed(msgspec.Struct, frozen=True):
    """A line that is not a request, counted from 1, and why."""

    line: int
    message: str


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


def lines(path: Path) -> Iterator[proofs.Request | Malformed]:
    """Each line of a file, or of standard input, as it comes; or what is wrong with it.

    Raises:
        ProblemsError: the file cannot be read.
    """
    if path == STDIN:
        # Python has no standard input where it was closed: that is not the same as no requests.
        if sys.stdin is None:
            raise ProblemsError([Problem("-", 1, 1, "standard input is closed")])
        yield from _lines(sys.stdin.buffer)
        return
    try:
        with path.open("rb") as file:
            yield from _lines(file)
    except OSError as error:
        said = f"cannot be read: {error.strerror}"
        raise ProblemsError([Problem(str(path), 1, 1, said)]) from None


def _lines(file: BinaryIO) -> Iterator[proofs.Request | Malformed]:
    for number, line in enumerate(file, 1):
        try:
            asked = parse(line)
        except MalformedError as error:
            yield Malformed(number, str(error))
        else:
            resource = None if asked.resource is msgspec.UNSET else asked.resource
            yield asked.device_class, asked.frontend, asked.backend, resource, asked.mode


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise MalformedError("a key is given twice")
    return values
