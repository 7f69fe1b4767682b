"""`brokerctl status`, and what stands behind it: `metrics`, `agent list`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from broker.cli import client, show

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from broker.cli.groups import Commands
    from broker.rpc.client import Client
    from broker.rpc.methods import Agent, Finding, Status


_LONGEST: Final = 1000
_DIGEST: Final = 19
"""Characters of a digest that tell policies apart for people: `sha256:` and twelve digits."""


def register(commands: Commands) -> None:
    """Add the command."""
    client.method_command(commands, "status", _status)
    client.method_command(commands, "metrics", _metrics)
    client.method_command(commands, "agent.list", _agents)


def _status(broker: Client, options: argparse.Namespace) -> int:
    status: Status = client.call(broker, "status")
    if options.json:
        show.json_line(status)
    else:
        _print(status)
    return client.DENIED if status.health == "red" else client.SUCCESS


def _metrics(broker: Client, options: argparse.Namespace) -> int:
    metrics = client.call(broker, "metrics")
    if options.json:
        show.json_line(metrics)
    else:
        show.document(metrics.text)
    return client.SUCCESS


def _agents(broker: Client, options: argparse.Namespace) -> int:
    agents: tuple[Agent, ...] = client.call(broker, "agent.list")
    if options.json:
        for agent in agents:
            show.json_line(agent)
        return client.SUCCESS
    show.table(
        ("ID", "Name", "Heard", "Beat", "Channels", "Waiting", "Failed", "Policy"),
        [
            (
                agent.backend,
                agent.name,
                "never" if agent.age is None else f"{agent.age:.0f} s ago",
                None if agent.hears is None else "yes" if agent.hears else "no",
                agent.channels,
                agent.unconfirmed,
                agent.failed,
                None if agent.policy is None else agent.policy[:_DIGEST],
            )
            for agent in agents
        ],
    )
    return client.SUCCESS


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
            *(pair for finding in status.findings for pair in _finding(finding)),
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


def _finding(finding: Finding) -> Iterator[tuple[str, str]]:
    yield "  problem" if finding.level == "red" else "  warning", show.text(finding.text, _LONGEST)
    yield "    do", show.text(finding.action, _LONGEST)


def _heartbeat(count: int) -> str:
    if not count:
        return "none yet, so agents open nothing"
    return f"number {count}; without a new one agents open nothing"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))
