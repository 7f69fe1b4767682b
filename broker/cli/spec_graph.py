"""`brokerctl spec graph`: state diagrams of the protocol descriptions."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from broker.cli import groups, offline, show, spec_files
from broker.cli.client import BAD_INPUT, SUCCESS

if TYPE_CHECKING:
    import argparse

    from broker.text.problems import Problem


class _GraphLine(msgspec.Struct, frozen=True):
    dot: str


def register(specs: groups.Commands) -> None:
    """Add the command to the group `spec`."""
    leaf = groups.command(
        specs,
        "graph",
        offline.reporting(_run),
        help="state diagrams of both ends, in DOT, on standard output",
        example="brokerctl spec graph --class vif | dot -Tsvg > vif.svg",
    )
    spec_files.add_class(leaf, required=False)


def _run(options: argparse.Namespace) -> int:
    from broker.protocol.graph import dot  # noqa: PLC0415 - as in offline.policy

    problems: list[Problem] = []
    if options.device_class is None:
        specs, problems = spec_files.load_all(options.specs)
    else:
        specs = [spec_files.described(options.specs, options.device_class)]
    offline.report(problems, "error", as_json=options.json)
    if problems:
        return BAD_INPUT
    if options.json:
        show.json_line(_GraphLine(dot(specs)))
    else:
        sys.stdout.write(dot(specs))
    return SUCCESS
