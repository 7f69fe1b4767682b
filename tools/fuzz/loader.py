"""Any bytes as a description: it is refused with places, or everything made from it works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from broker.protocol.c_header import c_header
from broker.protocol.load import load_spec
from broker.protocol.monitor import Monitor
from broker.text.problems import ProblemsError
from tools.fuzz.expected import UnexpectedError, refused_well

if TYPE_CHECKING:
    from collections.abc import Iterator

_SPECS = Path(__file__).parents[2] / "protocol_specs"
_MADE = re.compile(r"[\x20-\x7e\n]*")


def run(data: bytes) -> None:
    """Load `data`; use what it makes.

    Raises:
        UnexpectedError: a problem has no place, or the header holds what is not ours.
    """
    try:
        spec = load_spec(data, "fuzz")
    except ProblemsError as error:
        refused_well(error)
        return
    Monitor(spec)
    if spec.rings is not None:
        header = c_header(spec.name, spec.digest, spec.rings)
        if not _MADE.fullmatch(header) or header.count("/*") != header.count("*/"):
            raise UnexpectedError(header)


def seeds() -> Iterator[bytes]:
    """The shipped descriptions, whole and in parts."""
    for path in sorted(_SPECS.glob("*.yaml")):
        data = path.read_bytes()
        yield data
        for place in (b"\nring:", b"\ninvariants:", b"\ndeadlines:", b"\nexamples:"):
            yield data.split(place)[0] + b"\n"


def words() -> Iterator[bytes]:
    """Every word of the shipped descriptions."""
    for path in _SPECS.glob("*.yaml"):
        yield from re.findall(rb"[A-Za-z0-9_-]+:?", path.read_bytes())
