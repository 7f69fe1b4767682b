"""`brokerctl label ssidref`: the number of a label in a policy file."""

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
        groups.group(commands, "label"),
        "ssidref",
        offline.reporting(_ssidref),
        help="a label's (or a resource's) reference in a policy, decimal",
        example="brokerctl label ssidref --policy etc/policy.yaml web_red",
    )
    leaf.add_argument("--policy", metavar="FILE", type=Path, required=True, help="the policy")
    leaf.add_argument("label", metavar="LABEL", help="a label, or else a resource")


class _Reference(msgspec.Struct, frozen=True):
    label: str
    ssidref: int


def _ssidref(options: argparse.Namespace) -> int:
    policy = offline.policy(options.policy)
    try:
        reference = policy.ssidref(options.label)
    except KeyError:
        raise offline.unknown(options.policy, "label or resource", options.label) from None
    if options.json:
        show.json_line(_Reference(options.label, reference))
    else:
        show.line(str(reference))
    return SUCCESS
