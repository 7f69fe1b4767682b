"""`brokerctl policy suggest`: from what was denied to the smallest amendment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from broker.cli import client, connection, groups, offline, requests, show
from broker.cli.client import BAD_INPUT, SUCCESS
from broker.text.problems import Problem

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from broker.core.policy import Policy
    from broker.core.proofs import Request
    from broker.rpc.client import Client
    from broker.rpc.methods import Observed, PolicyText


def register(commands: groups.Commands) -> None:
    """Add the command."""
    leaf = groups.command(
        groups.group(commands, "policy"),
        "suggest",
        offline.reporting(_suggest),
        help="the smallest amendment that grants what was seen, for a person to edit",
        example="brokerctl policy suggest --policy corp.yaml --requests seen.jsonl",
    )
    source = leaf.add_mutually_exclusive_group(required=True)
    source.add_argument("--policy", metavar="FILE", type=Path, help="the policy")
    source.add_argument(
        "--observed",
        action="store_true",
        help="of the policy in force, by what the broker granted in observe mode alone",
    )
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
    connection.add_options(leaf, top=False)


class _Suggested(msgspec.Struct, frozen=True):
    denied: int
    changes: list[str]
    text: str


def _suggest(options: argparse.Namespace) -> int:
    if options.observed:
        return client.asking(_of_broker)(options)
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
    return _amended(policy, seen, options)


def _of_broker(broker: Client, options: argparse.Namespace) -> int:
    from broker.policy.load import load_policy  # noqa: PLC0415 - as in offline.policy

    observed: tuple[Observed, ...] = client.call(broker, "policy.observed")
    text: PolicyText = client.call(broker, "policy.show")
    policy = load_policy(text.text.encode("utf-8"), f"{text.name}-{text.version}.yaml")
    seen = [(it.device_class, it.frontend, it.backend, it.resource, it.mode) for it in observed]
    return _amended(policy, seen, options)


def _amended(policy: Policy, seen: Iterable[Request], options: argparse.Namespace) -> int:
    from broker.policy.amend import amend, amendment_text, whole_text  # noqa: PLC0415 - as there

    amendment = amend(policy, seen)
    text = (whole_text if options.whole else amendment_text)(policy, amendment)
    if options.json:
        changes = [str(change) for change in dict.fromkeys(amendment.changes)]
        show.json_line(_Suggested(amendment.denied, changes, text))
    else:
        show.document(text)
    return SUCCESS
