"""`brokerctl spec`: the protocol descriptions in a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from broker.cli import groups, offline, show, spec_files, spec_graph, spec_header, spec_replay
from broker.cli.client import BAD_INPUT, SUCCESS

if TYPE_CHECKING:
    import argparse


def register(commands: groups.Commands) -> None:
    """Add the commands."""
    specs = groups.group(commands, "spec")
    spec_header.register(specs, spec_files.SHIPPED)
    for name, run, what in (
        ("list", _list, "the classes that are described"),
        ("check", _check, "what is wrong with descriptions"),
    ):
        leaf = groups.command(
            specs,
            name,
            offline.reporting(run),
            help=what,
            example=f"brokerctl spec {name} --specs protocol_specs",
        )
        spec_files.add_directory(leaf)
    spec_graph.register(specs)
    spec_replay.register(specs)


class _SpecLine(msgspec.Struct, frozen=True):
    protocol: str
    backend_kinds: tuple[str, ...]
    header: str
    digest: str


def _list(options: argparse.Namespace) -> int:
    specs, problems = spec_files.load_all(options.specs)
    if options.json:
        for spec in specs:
            show.json_line(_SpecLine(spec.name, spec.backend.kinds, spec.header, spec.digest))
    elif specs:
        rows = [(spec.name, ", ".join(spec.backend.kinds), spec.header) for spec in specs]
        show.table(("Protocol", "Backends", "Header"), rows)
    offline.report(problems, "error", as_json=options.json)
    return BAD_INPUT if problems else SUCCESS


def _check(options: argparse.Namespace) -> int:
    specs, problems = spec_files.load_all(options.specs)
    offline.report(problems, "error", as_json=options.json)
    if problems:
        return BAD_INPUT
    for spec in specs:
        if options.json:
            show.json_line(_SpecLine(spec.name, spec.backend.kinds, spec.header, spec.digest))
        else:
            show.line(f"{spec.name}: good, {spec.digest}")
    return SUCCESS
