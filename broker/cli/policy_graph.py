"""`brokerctl policy graph`: pictures of a policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from broker.cli import groups, offline, show
from broker.cli.client import SUCCESS

if TYPE_CHECKING:
    import argparse


def register(commands: groups.Commands) -> None:
    """Add the command."""
    leaf = groups.command(
        groups.group(commands, "policy"),
        "graph",
        offline.reporting(_graph),
        help="a picture: who may talk to whom, by class, and what walls part",
        example="brokerctl policy graph --format svg etc/policy.yaml > policy.svg",
    )
    leaf.add_argument("file", metavar="FILE", type=Path, help="the policy (YAML)")
    leaf.add_argument(
        "--format",
        choices=("dot", "svg"),
        default="dot",
        help="DOT, for Graphviz, or SVG, for any browser (default: %(default)s)",
    )
    leaf.add_argument(
        "--class",
        metavar="CLASS",
        dest="classes",
        action="append",
        help="this class (or frames) alone; can be repeated",
    )


class _Graph(msgspec.Struct, frozen=True):
    format: str
    text: str


def _graph(options: argparse.Namespace) -> int:
    from broker.core.picture import FRAMES, picture  # noqa: PLC0415 - as in offline.policy
    from broker.policy.graph_dot import dot  # noqa: PLC0415
    from broker.policy.graph_svg import svg  # noqa: PLC0415

    policy = offline.policy(options.file)
    for name in options.classes or ():
        if not policy.has_class(name) and name != FRAMES:
            raise offline.unknown(options.file, "class", name)
    text = (svg if options.format == "svg" else dot)(picture(policy, options.classes))
    if options.json:
        show.json_line(_Graph(options.format, text))
    else:
        show.document(text)
    return SUCCESS
