"""`brokerctl status`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from broker.cli import client, show

if TYPE_CHECKING:
    import argparse

    from broker.cli.groups import Commands
    from broker.rpc.client import Client
    from broker.rpc.methods import Status


def register(commands: Commands) -> None:
    """Add the command."""
    client.method_command(commands, "status", _status)


def _status(broker: Client, options: argparse.Namespace) -> int:
    status: Status = client.call(broker, "status")
    if options.json:
        show.json_line(status)
    else:
        _print(status)
    return client.SUCCESS if status.health == "green" else client.DENIED


def _print(status: Status) -> None:
    policy = "none: everything is denied"
    if status.policy is not None:
        named = f"{status.policy.name} {status.policy.version}"
        policy = f"{show.text(named)} {show.text(status.policy.digest)}"
    domains = (
        f"{status.domains.labelled} labelled, {status.domains.unlabelled} unlabelled, "
        f"{status.domains.refused} refused"
    )
    channels = (
        f"{status.channels.grant} granted, {status.channels.deny} denied, "
        f"{status.channels.pending} pending"
    )
    error = "none"
    if status.last_error is not None:
        error = show.text(status.last_error)
        if status.last_error_time is not None:
            error = f"{_time(status.last_error_time)} {error}"
    show.facts(
        [
            ("health", status.health),
            *(("  problem", show.text(problem)) for problem in status.problems),
            *(("  warning", show.text(warning)) for warning in status.warnings),
            ("broker", f"{show.text(status.version)}, up {_duration(status.uptime)}"),
            ("state", status.state if status.enforcing else f"{status.state}, not enforcing"),
            ("policy", policy),
            (
                "store",
                f"{show.text(status.store)}, {'' if status.store_connected else 'not '}connected",
            ),
            ("domains", domains),
            ("channels", channels),
            ("audit log", f"{status.journal_seq} records so far, on the disk"),
            ("heartbeat", _heartbeat(status.heartbeat)),
            ("last error", error),
        ]
    )


def _heartbeat(count: int) -> str:
    if not count:
        return "none yet, so agents open nothing"
    return f"number {count}; without a new one agents open nothing"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))
