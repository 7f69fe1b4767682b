"""`brokerctl spec list|check`: the protocol descriptions in a directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from broker.cli import groups, offline, show, spec_header
from broker.cli.client import BAD_INPUT, SUCCESS
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    import argparse

    from broker.protocol.spec import Spec

_SHIPPED: Final = Path(__file__).parents[2] / "protocol_specs"


def register(commands: groups.Commands) -> None:
    """Add the commands."""
    specs = groups.group(commands, "spec")
    spec_header.register(specs, _SHIPPED)
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
        leaf.add_argument(
            "--specs",
            metavar="DIR",
            type=Path,
            default=_SHIPPED,
            help="where they are (default: those that came with brokerctl)",
        )


class _SpecLine(msgspec.Struct, frozen=True):
    protocol: str
    backend_kinds: tuple[str, ...]
    header: str
    digest: str


def _load(directory: Path) -> tuple[list[Spec], list[Problem]]:
    from broker.protocol.load import load_spec  # noqa: PLC0415 - as in offline.policy

    specs: list[Spec] = []
    problems: list[Problem] = []
    paths = sorted(directory.glob("*.yaml"))
    if not paths:
        problems.append(Problem(str(directory), 1, 1, "no description (*.yaml) in this directory"))
    for path in paths:
        try:
            spec = load_spec(offline.read(path), str(path))
        except ProblemsError as error:
            problems += error.problems
            continue
        if spec.name != path.stem:
            said = f"describes '{spec.name}', so it must be called {spec.name}.yaml"
            problems.append(Problem(str(path), 1, 1, said))
        specs.append(spec)
    return specs, problems


def _list(options: argparse.Namespace) -> int:
    specs, problems = _load(options.specs)
    if options.json:
        for spec in specs:
            show.json_line(_SpecLine(spec.name, spec.backend.kinds, spec.header, spec.digest))
    elif specs:
        rows = [(spec.name, ", ".join(spec.backend.kinds), spec.header) for spec in specs]
        show.table(("Protocol", "Backends", "Header"), rows)
    offline.report(problems, "error", as_json=options.json)
    return BAD_INPUT if problems else SUCCESS


def _check(options: argparse.Namespace) -> int:
    specs, problems = _load(options.specs)
    offline.report(problems, "error", as_json=options.json)
    if problems:
        return BAD_INPUT
    for spec in specs:
        if options.json:
            show.json_line(_SpecLine(spec.name, spec.backend.kinds, spec.header, spec.digest))
        else:
            show.line(f"{spec.name}: good, {spec.digest}")
    return SUCCESS
