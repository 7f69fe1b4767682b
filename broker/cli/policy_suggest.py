"""`brokerctl policy suggest`: from what was denied to the smallest amendment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from broker.cli import groups, offline, requests, show
from broker.cli.client import BAD_INPUT, SUCCESS
from broker.text.problems import Problem

if TYPE_CHECKING:
    import argparse


def register(commands: groups.Commands) -> None:
    """Add the command."""
    leaf = groups.command(
        groups.group(commands, "policy"),
        "suggest",
        offline.reporting(_suggest),
        help="the smallest amendment that grants what was seen, for a person to edit",
        example="brokerctl policy suggest --policy corp.yaml --requests seen.jsonl",
    )
    leaf.add_argument("--policy", metavar="FILE", type=Path, required=True, help="the policy")
    leaf.add_argument(
        "--requests",
        metavar="JSONL",
        type=Path,
        default=requests.STDIN,
        help="what was seen, as `policy decide` is asked; default: standard input",
    )
    leaf.add_argument(
        "--whole", action="store_true", help="the whole policy as it would be, without comments"
    )


class _Suggested(msgspec.Struct, frozen=True):
    denied: int
    changes: list[str]
    text: str


def _suggest(options: argparse.Namespace) -> int:
    from broker.policy.amend import amend, amendment_text, whole_text  # noqa: PLC0415 - as there

    policy = offline.policy(options.policy)
    seen, malformed = [], []
    for asked in requests.lines(options.requests):
        if isinstance(asked, requests.Malformed):
            malformed.append(Problem(str(options.requests), asked.line, 1, asked.message))
        else:
            seen.append(asked)
    if malformed:
        offline.report(malformed, "error", as_json=options.json)
        return BAD_INPUT
    amendment = amend(policy, seen)
    text = (whole_text if options.whole else amendment_text)(policy, amendment)
    if options.json:
        changes = [str(change) for change in dict.fromkeys(amendment.changes)]
        show.json_line(_Suggested(amendment.denied, changes, text))
    else:
        show.document(text)
    return SUCCESS
