"""`brokerctl policy show|load|pending|review|approve|reject|withdraw`: the policy in force."""

from __future__ import annotations

import contextlib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.cli import client, show
from broker.rpc.errors import RpcError

if TYPE_CHECKING:
    import argparse

    from broker.cli.groups import Commands
    from broker.rpc.client import Client
    from broker.rpc.methods import (
        PolicyChange,
        PolicyChanged,
        PolicySummary,
        PolicyText,
        Proposal,
        Review,
    )


_REVOKE: Final = "even if channels that are granted close"


def register(commands: Commands) -> None:
    """Add the commands."""
    client.method_command(commands, "policy.show", _show)
    leaf = client.method_command(commands, "policy.load", _load)
    leaf.add_argument("file", metavar="FILE", type=Path, help="the policy (YAML)")
    leaf.add_argument(
        "--replaces", metavar="DIGEST", help="only if this policy (sha256:...) is in force"
    )
    leaf.add_argument("--dry-run", action="store_true", help="say what it would change")
    leaf.add_argument("--revoke", action="store_true", help=_REVOKE)
    client.method_command(commands, "policy.pending", _pending)
    for name, run in (
        ("review", _review),
        ("approve", _approve),
        ("reject", _reject),
        ("withdraw", _withdraw),
    ):
        leaf = client.method_command(commands, f"policy.{name}", run)
        leaf.add_argument("id", metavar="ID", help="as `brokerctl policy pending` writes it")
        if name == "approve":
            leaf.add_argument("--revoke", action="store_true", help=_REVOKE)


def _show(broker: Client, options: argparse.Namespace) -> int:
    policy: PolicyText = client.call(broker, "policy.show")
    if options.json:
        show.json_line(policy)
    else:
        # Bytes, so that what is written has the digest that is in force.
        sys.stdout.flush()
        sys.stdout.buffer.write(policy.text.encode("utf-8"))
        print(f"# {_named(policy)}\n# {show.text(policy.digest)}", file=sys.stderr)
        if policy.changed is not None:
            print(f"# {_put_in_force(policy.changed)}", file=sys.stderr)
    return client.SUCCESS


def _put_in_force(change: PolicyChanged) -> str:
    """Who put the policy in force, when, and with whose approval."""
    when = datetime.fromtimestamp(change.time, UTC).strftime("%Y-%m-%d %H:%M UTC")
    words = f"put in force by {show.text(change.subject)} on {when}"
    return words + (f", approved by {show.text(change.approver)}" if change.approver else "")


def _load(broker: Client, options: argparse.Namespace) -> int:
    try:
        text = options.file.read_bytes().decode("utf-8")
    except OSError as error:
        raise RpcError("bad_input", f"{options.file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RpcError("bad_input", f"{options.file}: not UTF-8 (byte {error.start})") from None
    change: PolicyChange = client.call(
        broker,
        "policy.load",
        text=text,
        source=str(options.file),
        replaces=options.replaces,
        dry_run=options.dry_run,
        revoke=options.revoke,
    )
    return _changed(change, options)


def _pending(broker: Client, options: argparse.Namespace) -> int:
    waiting: tuple[Proposal, ...] = client.call(broker, "policy.pending")
    if options.json:
        for proposal in waiting:
            show.json_line(proposal)
    elif waiting:
        show.table(
            ["ID", "Policy", "Proposed by", "Role", "Until", "Governs"],
            [
                (
                    it.id,
                    f"{it.policy.name} {it.policy.version}",
                    it.subject,
                    it.role,
                    _minute(it.expires),
                    ", ".join(it.governs),
                )
                for it in waiting
            ],
        )
    return client.SUCCESS


def _review(broker: Client, options: argparse.Namespace) -> int:
    review: Review = client.call(broker, "policy.review", id=options.id)
    if options.json:
        show.json_line(review)
        return client.SUCCESS
    sys.stdout.flush()
    sys.stdout.buffer.write(review.text.encode("utf-8"))
    sys.stdout.buffer.flush()
    with contextlib.redirect_stdout(sys.stderr):
        show.line(f"# proposed by {show.text(review.proposal.subject)}")
        _print(review.change)
    return client.SUCCESS


def _approve(broker: Client, options: argparse.Namespace) -> int:
    change = client.call(broker, "policy.approve", id=options.id, revoke=options.revoke)
    return _changed(change, options)


def _reject(broker: Client, options: argparse.Namespace) -> int:
    return _dropped(client.call(broker, "policy.reject", id=options.id), options)


def _withdraw(broker: Client, options: argparse.Namespace) -> int:
    return _dropped(client.call(broker, "policy.withdraw", id=options.id), options)


def _dropped(proposal: Proposal, options: argparse.Namespace) -> int:
    if options.json:
        show.json_line(proposal)
    else:
        show.line(f"{_named(proposal.policy)} of {show.text(proposal.subject)} waits no more")
    return client.SUCCESS


def _changed(change: PolicyChange, options: argparse.Namespace) -> int:
    if options.json:
        show.json_line(change)
    else:
        _print(change)
    return client.SUCCESS


def _minute(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%MZ")


def _print(change: PolicyChange) -> None:
    named, would = _named(change.policy), "would " if change.dry_run else ""
    if not change.changed:
        show.line(f"{named} is in force already")
    elif change.proposal is not None:
        show.line(f"{named} waits for a second person: brokerctl policy approve {change.proposal}")
        would = "would "
    elif change.dry_run:
        show.line(f"{named} would replace {_named(change.previous)}")
    else:
        show.line(f"{named} is in force; it replaced {_named(change.previous)}")
    show.line(f"  {show.text(change.policy.digest)}")
    if change.governs:
        show.line(f"  {would}change {', '.join(map(show.text, change.governs))}")
    if change.second_person and change.dry_run:
        show.line("  needs a second person")
    for what in (
        *(f"close {channel}" for channel in change.closes),
        *(f"open {channel}" for channel in change.opens),
        *(f"refuse domain {domain}" for domain in change.refuses),
        *(f"leave domain {domain} without a label" for domain in change.unlabels),
    ):
        show.line(f"  {would}{show.text(what)}")
    for warning in change.warnings:
        client.complain(f"warning: {warning}")


def _named(policy: PolicySummary | PolicyText | None) -> str:
    if policy is None:
        return "no policy"
    return f"policy {show.text(policy.name)} {show.text(policy.version)}"
