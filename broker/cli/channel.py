"""`brokerctl channel list|explain|watch`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from broker.cli import client, show
from broker.rpc.client import Lagged
from broker.rpc.errors import RpcError

if TYPE_CHECKING:
    import argparse

    from broker.cli.groups import Commands, Parser
    from broker.rpc.client import Client
    from broker.rpc.methods import Channel, Decision, Explanation

_MAX_NODE_BYTES: Final = 4096
"""What a node holds at most, so that a record is shown whole."""


def register(commands: Commands) -> None:
    """Add the commands."""
    _filters(client.method_command(commands, "channel.list", _list))
    selector(client.method_command(commands, "channel.explain", _explain))
    _filters(client.method_command(commands, "channel.watch", _watch))


def selector(leaf: Parser) -> None:
    """Have a command take one channel."""
    leaf.add_argument(
        "channel",
        metavar="CLASS/DOMAIN/DEVICE",
        help="the frontend's device, as `channel list` writes it: vif/3/0 or vif/web1/0",
    )
    leaf.add_argument("--backend", metavar="DOMID", type=int, help="where two would answer")


def selected(options: argparse.Namespace) -> dict[str, object]:
    """The channel that a command was given, as the arguments of a call.

    Raises:
        RpcError: `bad_input`, it is none.
    """
    device_class, first, rest = options.channel.partition("/")
    frontend, last, device = rest.rpartition("/")
    if not (first and last and device_class and frontend and device):
        raise RpcError(
            "bad_input", f"not a channel: {options.channel}; write CLASS/DOMAIN/DEVICE: vif/3/0"
        )
    return {
        "device_class": device_class,
        "frontend": frontend,
        "device": device,
        "backend": options.backend,
    }


def _filters(leaf: Parser) -> None:
    leaf.add_argument("--domain", metavar="DOMAIN", help="either end: a domid, a uuid or a name")
    leaf.add_argument("--class", metavar="CLASS", dest="device_class", help="vif, vbd, ...")
    leaf.add_argument("--verdict", choices=["grant", "deny", "pending"])


def _list(broker: Client, options: argparse.Namespace) -> int:
    channels: tuple[Channel, ...] = client.call(broker, "channel.list", **_filter(options))
    if options.json:
        for channel in channels:
            show.json_line(channel)
    elif channels:
        _table(channels)
    if not channels:
        asked = set(_filter(options).values()) != {None}
        client.complain("no channel matches" if asked else "there are no channels")
    return client.SUCCESS


def _table(channels: tuple[Channel, ...]) -> None:
    """The channels; with the frontends' names, where they leave room for the rest."""
    head = ["Channel", "Labels", "Resource", "Verdict", "Enforced"]
    rows = [(_name(it), _labels(it), it.resource, it.verdict, _enforced(it)) for it in channels]
    named = [(channel.frontend_name, *row) for channel, row in zip(channels, rows, strict=True)]
    notes = [None if channel.verdict == "grant" else channel.reason for channel in channels]
    if show.fits(["Name", *head], named):
        show.table(["Name", *head], named, notes)
    else:
        show.table(head, rows, notes)


def _explain(broker: Client, options: argparse.Namespace) -> int:
    explanation: Explanation = client.call(broker, "channel.explain", **selected(options))
    if options.json:
        show.json_line(explanation)
    else:
        _print(explanation)
    granted = explanation.channel.verdict == "grant"
    return client.SUCCESS if granted else client.DENIED


def _print(explanation: Explanation) -> None:
    channel, policy = explanation.channel, explanation.policy
    show.facts(
        [
            ("channel", show.text(_name(channel))),
            ("frontend", f"{show.text(channel.frontend_name)} {show.text(channel.frontend_label)}"),
            ("backend", f"{channel.backend} {show.text(channel.backend_label)}"),
            ("resource", show.text(channel.resource)),
            ("verdict", channel.verdict),
            *_reasons(explanation),
            ("enforced", show.text(_enforced_long(channel))),
            ("policy", "none" if policy is None else f"{show.text(policy.name)} {policy.version}"),
            *(
                (f"  {show.text(key)}", show.text(value))
                for key, value in sorted(explanation.inputs.items())
            ),
        ]
    )
    for way in explanation.changes:
        show.paragraph("would be granted by", show.text("; ".join(way), _MAX_NODE_BYTES))
    if explanation.published is not None:
        show.paragraph("record", show.text(explanation.published, _MAX_NODE_BYTES))


def _watch(broker: Client, options: argparse.Namespace) -> int:
    for event in client.stream(broker, "channel.watch", **_filter(options)):
        if options.json:
            show.json_line(event)
        elif isinstance(event, Lagged):
            client.complain(f"{event.lost} events lost: this end did not read in time")
        else:
            _event(event)
    return client.SUCCESS


def _event(decision: Decision) -> None:
    channel = decision.channel
    when = datetime.fromtimestamp(decision.time, UTC).strftime("%H:%M:%SZ")
    before = decision.previous or "new"
    what = {
        "decision": f"{before} -> {channel.verdict}: {show.text(channel.reason)}",
        "report": f"{channel.verdict}, enforced: {show.text(_enforced_long(channel))}",
        "gone": "gone",
    }[decision.event]
    show.line(f"{when} {show.text(_name(channel))} {show.text(_labels(channel))} {what}")


def _filter(options: argparse.Namespace) -> dict[str, object]:
    return {
        "domain": options.domain,
        "device_class": options.device_class,
        "verdict": options.verdict,
    }


def _name(channel: Channel) -> str:
    return f"{channel.device_class}/{channel.frontend}/{channel.device} -> {channel.backend}"


def _labels(channel: Channel) -> str:
    return f"{channel.frontend_label or '-'},{channel.backend_label or '-'}"


def _enforced(channel: Channel) -> str | None:
    if channel.enforced is not None:
        return channel.enforced.state
    return None if channel.nonce_known else "no agent"


def _enforced_long(channel: Channel) -> str:
    report = channel.enforced
    if report is None:
        return "not yet reported" if channel.nonce_known else "the backend's agent is silent"
    stale = "" if report.seq == channel.seq else f" (on record {report.seq}, now {channel.seq})"
    why = f": {report.reason}" if report.reason else ""
    return f"{report.state}{stale}{why}"


def _reasons(explanation: Explanation) -> list[tuple[str, str]]:
    """Why; what the policy says counts only where the broker itself has nothing against it."""
    pairs, word = [], "because"
    for reason in explanation.reasons:
        pairs.append((f"  {word}", _reason(reason.where, reason.rule, reason.text)))
        if reason.rule == "broker":
            word = "otherwise"
    return pairs


def _reason(where: str, rule: str, words: str) -> str:
    place = f"{show.text(where)}: " if where else ""
    return f"{place}{show.text(words)} [{show.text(rule)}]"
