"""`brokerctl spec c-header`: a class's ring messages, for a backend written in C to include."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from broker.cli import groups, offline, show
from broker.cli.client import SUCCESS
from broker.text.escape import escape
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    import argparse

    from broker.protocol.ring_table import Rings
    from broker.protocol.spec import Spec


class _HeaderLine(msgspec.Struct, frozen=True):
    protocol: str
    digest: str
    header: str


def register(specs: groups.Commands, shipped: Path) -> None:
    """Add the command to the group `spec`; `shipped` is where its descriptions are otherwise."""
    leaf = groups.command(
        specs,
        "c-header",
        offline.reporting(_run),
        help="a class's ring messages as a C99 header, on standard output",
        example="brokerctl spec c-header --class vbd > vbd_rings.h",
    )
    leaf.add_argument(
        "--class", metavar="CLASS", dest="device_class", required=True, help="like vbd"
    )
    leaf.add_argument(
        "--specs",
        metavar="DIR",
        type=Path,
        default=shipped,
        help="where the descriptions are (default: those that came with brokerctl)",
    )


def _run(options: argparse.Namespace) -> int:
    from broker.protocol.c_header import c_header  # noqa: PLC0415 - as in offline.policy

    spec, rings = _described(options.specs, options.device_class)
    header = c_header(spec.name, spec.digest, rings)
    if options.json:
        show.json_line(_HeaderLine(spec.name, spec.digest, header))
    else:
        sys.stdout.write(header)
    return SUCCESS


def _described(directory: Path, name: str) -> tuple[Spec, Rings]:
    """The description of the class `name`, and its rings.

    Raises:
        ProblemsError: there is none, it is bad, or it says nothing about rings.
    """
    from broker.protocol.load import load_spec  # noqa: PLC0415 - as in offline.policy

    # Looked for among the files that are there: the name is never made into a path.
    paths = {path.stem: path for path in directory.glob("*.yaml")}
    if name not in paths:
        known = ", ".join(sorted(paths)) or "none"
        said = f"no description of '{escape(name, 60)}' in this directory; there are: {known}"
        raise ProblemsError([Problem(str(directory), 1, 1, said)])
    path = paths[name]
    spec = load_spec(offline.read(path), str(path))
    if spec.rings is None:
        said = "has no 'ring' section, so there are no messages to check"
        raise ProblemsError([Problem(str(path), 1, 1, said)])
    return spec, spec.rings
