"""`brokerctl decision query`: what the broker would decide about two domains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.cli import client, show

if TYPE_CHECKING:
    import argparse

    from broker.cli.groups import Commands
    from broker.rpc.client import Client
    from broker.rpc.methods import DecisionAnswer

_DOMAIN = "a domid, a uuid or a name"


def register(commands: Commands) -> None:
    """Add the command."""
    leaf = client.method_command(commands, "decision.query", _query)
    leaf.add_argument("frontend", metavar="FRONTEND", help=_DOMAIN)
    leaf.add_argument("backend", metavar="BACKEND", help=_DOMAIN)
    leaf.add_argument("--class", metavar="CLASS", dest="device_class", help="vif, vbd, ... (vif)")
    leaf.add_argument("--resource", metavar="NAME", help="a resource of the policy")
    leaf.add_argument("--mode", choices=["r", "w"], help="reading, or also writing (w)")
    leaf.add_argument(
        "--frames", action="store_true", help="whether frames may pass between their vifs instead"
    )


def _query(broker: Client, options: argparse.Namespace) -> int:
    answer: DecisionAnswer = client.call(
        broker,
        "decision.query",
        frontend=options.frontend,
        backend=options.backend,
        device_class=options.device_class,
        resource=options.resource,
        mode=options.mode,
        frames=options.frames,
    )
    if options.json:
        show.json_line(answer)
    else:
        labels = f"{show.text(answer.frontend_label)},{show.text(answer.backend_label)}"
        show.line(f"{answer.verdict} {answer.frontend} -> {answer.backend} ({labels})")
        for reason in answer.reasons:
            place = f"{show.text(reason.where)}: " if reason.where else ""
            show.line(f"  {place}{show.text(reason.text)} [{show.text(reason.rule)}]")
    return client.SUCCESS if answer.verdict == "grant" else client.DENIED
