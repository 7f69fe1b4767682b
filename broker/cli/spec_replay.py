"""`brokerctl spec replay`: a recorded trace of one channel, judged by its class's description."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from broker.cli import groups, offline, show, spec_files
from broker.cli.client import DENIED, SUCCESS

if TYPE_CHECKING:
    import argparse


class _Fine(msgspec.Struct, frozen=True):
    ok: bool = True


class _ViolationLine(msgspec.Struct, frozen=True):
    violation: str
    party: str
    rule: str
    t: float


def register(specs: groups.Commands) -> None:
    """Add the command to the group `spec`."""
    leaf = groups.command(
        specs,
        "replay",
        offline.reporting(_run),
        help="who broke the protocol in a recorded trace",
        example="brokerctl spec replay --class vif trace.jsonl",
    )
    spec_files.add_class(leaf, required=True)
    leaf.add_argument(
        "trace",
        metavar="TRACE.jsonl",
        help="a change a line: t, side, key, value, writer; - is standard input",
    )


def _run(options: argparse.Namespace) -> int:
    # As in offline.policy: most commands need none of it.
    from broker.protocol.monitor import Monitor  # noqa: PLC0415
    from broker.protocol.replay import parse_trace, replay  # noqa: PLC0415

    spec = spec_files.described(options.specs, options.device_class)
    if options.trace == "-":
        changes = parse_trace(sys.stdin.buffer.read(), "standard input")
    else:
        changes = parse_trace(offline.read(Path(options.trace)), options.trace)
    violations = replay(Monitor(spec), changes)
    for found in violations:
        show.json_line(_ViolationLine(found.evidence, found.party, found.rule, found.time))
    if not violations:
        show.json_line(_Fine())
    return DENIED if violations else SUCCESS
