"""`brokerctl policy show|load`: the policy the broker enforces."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from broker.cli import client, show
from broker.rpc.errors import RpcError

if TYPE_CHECKING:
    import argparse

    from broker.cli.groups import Commands
    from broker.rpc.client import Client
    from broker.rpc.methods import PolicyChange, PolicySummary, PolicyText


def register(commands: Commands) -> None:
    """Add the commands."""
    client.method_command(commands, "policy.show", _show)
    leaf = client.method_command(commands, "policy.load", _load)
    leaf.add_argument("file", metavar="FILE", type=Path, help="the policy (YAML)")
    leaf.add_argument(
        "--replaces", metavar="DIGEST", help="only if this policy (sha256:...) is in force"
    )
    leaf.add_argument("--dry-run", action="store_true", help="say what it would change")


def _show(broker: Client, options: argparse.Namespace) -> int:
    policy: PolicyText = client.call(broker, "policy.show")
    if options.json:
        show.json_line(policy)
    else:
        # Bytes, so that what is written has the digest that is in force.
        sys.stdout.flush()
        sys.stdout.buffer.write(policy.text.encode("utf-8"))
        print(f"# {_named(policy)}\n# {show.text(policy.digest)}", file=sys.stderr)
    return client.SUCCESS


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
    )
    if options.json:
        show.json_line(change)
    else:
        _print(change)
    return client.SUCCESS


def _print(change: PolicyChange) -> None:
    named, would = _named(change.policy), "would " if change.dry_run else ""
    if not change.changed:
        show.line(f"{named} is in force already")
    elif change.dry_run:
        show.line(f"{named} would replace {_named(change.previous)}")
    else:
        show.line(f"{named} is in force; it replaced {_named(change.previous)}")
    show.line(f"  {show.text(change.policy.digest)}")
    for channel in change.closes:
        show.line(f"  {would}close {show.text(channel)}")
    for channel in change.opens:
        show.line(f"  {would}open {show.text(channel)}")
    for domain in change.unlabels:
        show.line(f"  {would}leave domain {show.text(domain)} without a label")
    for warning in change.warnings:
        client.complain(f"warning: {warning}")


def _named(policy: PolicySummary | PolicyText | None) -> str:
    if policy is None:
        return "no policy"
    return f"policy {show.text(policy.name)} {show.text(policy.version)}"
