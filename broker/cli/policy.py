"""`brokerctl policy check|decide|admit`: policies in files, without a broker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from broker.cli import groups, offline, proofs, requests, show
from broker.cli.client import BAD_INPUT, DENIED, SUCCESS
from broker.text.escape import printable

if TYPE_CHECKING:
    import argparse

    from broker.core.policy import Policy
    from broker.core.proofs import Request


def register(commands: groups.Commands) -> None:
    """Add the commands."""
    policy = groups.group(commands, "policy")
    leaf = groups.command(
        policy,
        "check",
        offline.reporting(_check),
        help="what is wrong with a policy, and what in it does nothing",
        example=(
            "brokerctl policy check etc/policy.yaml \\\n"
            "    --prove 'always-denies: {frontend: web_red, backend: db_blue}'"
        ),
    )
    leaf.add_argument("file", metavar="FILE", type=Path, help="the policy (YAML)")
    leaf.add_argument(
        "--prove",
        metavar="CHECK",
        action="append",
        default=[],
        help="a question about all requests, answered with a proof or a counterexample: "
        "never-errors, always-allows, always-denies, implies, equivalent, disjoint "
        "(docs/policy.md); can be repeated",
    )
    leaf = groups.command(
        policy,
        "decide",
        offline.reporting(_decide),
        help="who may connect to whom: labels, rules and resource; not the wall",
        example=(
            'echo \'{"class": "vif", "frontend": "web_red", "backend": "db_red"}\' |\n'
            "    brokerctl policy decide --policy etc/policy.yaml"
        ),
    )
    _policy_option(leaf)
    leaf.add_argument(
        "--requests",
        metavar="JSONL",
        type=Path,
        default=requests.STDIN,
        help="a file with one request a line: class, frontend, backend, and perhaps resource "
        "and mode (r or w); default: standard input",
    )
    leaf.add_argument(
        "--suggest",
        action="store_true",
        help="add to each denial the smallest changes of the policy that would grant it",
    )
    leaf = groups.command(
        policy,
        "admit",
        offline.reporting(_admit),
        help="who may run: Chinese Wall and host authorization",
        example="brokerctl policy admit --policy etc/policy.yaml --running bank_a bank_b",
    )
    _policy_option(leaf)
    leaf.add_argument(
        "--running",
        metavar="A,B",
        default="",
        help="labels of the running domains; the bootstrap label always runs",
    )
    leaf.add_argument("label", metavar="LABEL", help="the label that is to run")


def _policy_option(leaf: groups.Parser) -> None:
    leaf.add_argument("--policy", metavar="FILE", type=Path, required=True, help="the policy")


class _Checked(msgspec.Struct, frozen=True):
    ok: bool
    policy: str
    version: str
    digest: str
    warnings: int


def _check(options: argparse.Namespace) -> int:
    from broker.policy.load import check_policy  # noqa: PLC0415 - as in offline.policy

    policy, warnings = check_policy(offline.read(options.file), str(options.file))
    offline.report(warnings, "warning", as_json=options.json)
    major, minor = policy.version
    if options.json:
        version = f"{major}.{minor}"
        show.json_line(_Checked(True, policy.name, version, policy.digest, len(warnings)))  # noqa: FBT003 - `ok`
    else:
        rules = len(policy.definition.rules) + len(policy.definition.betweens)
        show.line(
            f"{policy.name} {major}.{minor}: good, {len(policy.labels)} labels, {rules} rules"
        )
        show.line(policy.digest)
    return proofs.answered(policy, options.prove, as_json=options.json)


class _Malformed(msgspec.Struct, frozen=True):
    error: str


def _decide(options: argparse.Namespace) -> int:
    policy = offline.policy(options.policy)
    malformed = denied = False
    for asked in requests.lines(options.requests):
        if isinstance(asked, requests.Malformed):
            malformed = True
            show.json_line(_Malformed(f"line {asked.line}: {asked.message}"))
            continue
        verdict = policy.explain(*asked)
        denied = denied or not verdict.granted
        line = offline.verdict_line(verdict)
        show.json_line(
            _suggesting(policy, asked, line) if options.suggest and not verdict.granted else line
        )
    if malformed:
        return BAD_INPUT
    return DENIED if denied else SUCCESS


class _Suggesting(msgspec.Struct, frozen=True):
    verdict: str
    reasons: tuple[offline.ReasonLine, ...]
    suggestions: list[list[str]]


def _suggesting(policy: Policy, asked: Request, line: offline.VerdictLine) -> _Suggesting:
    from broker.core.suggestion import suggest_grant  # noqa: PLC0415 - as in offline.policy

    words = [suggestion.words(asked) for suggestion in suggest_grant(policy, asked)]
    return _Suggesting(line.verdict, line.reasons, words)


def _admit(options: argparse.Namespace) -> int:
    policy = offline.policy(options.policy)
    running = options.running.split(",") if options.running else []
    for label in (options.label, *running):
        if not policy.has_label(label):
            raise offline.unknown(options.policy, "label", label)
    verdict = policy.admit(running, options.label)
    if options.json:
        show.json_line(offline.verdict_line(verdict))
    else:
        show.line("grant" if verdict.granted else "deny")
        for reason in verdict.reasons:
            show.line(printable(f"  {reason.where}: {reason.text}", 1000))
    return SUCCESS if verdict.granted else DENIED
