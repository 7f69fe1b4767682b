"""`brokerctl label export|import`, `migrate-check`: labels that move with their domains."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from broker.cli import client, connection, groups, label_store, offline, show
from broker.rpc.catalogue import METHODS
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    import argparse

    from broker.cli.groups import Commands, Parser
    from broker.rpc.client import Client
    from broker.rpc.methods import LabelTicket, MigrationAnswer


def register(commands: Commands) -> None:
    """Add the commands."""
    leaf = client.method_command(commands, "label.export", _export)
    leaf.add_argument("domain", metavar="DOMAIN", help="a domain that runs: domid, uuid or name")
    leaf.add_argument("--hours", type=int, metavar="N", help="how long it is good; default: 24")
    leaf = client.method_command(commands, "label.import", _import)
    leaf.add_argument("ticket", metavar="FILE", help="what label export printed; - is the input")
    method = METHODS["label.check"]
    leaf = groups.command(
        commands, "migrate-check", client.asking(_check), help=method.help, example=method.example
    )
    connection.add_options(leaf, top=False)
    _checked(leaf)


def _checked(leaf: Parser) -> None:
    leaf.add_argument("ticket", metavar="FILE", nargs="?", help="a ticket; - is the input")
    leaf.add_argument("--uuid", metavar="UUID", help="instead: a uuid that has its label here")
    leaf.add_argument(
        "--use",
        metavar="CLASS/RESOURCE/MODE/BACKEND",
        action="append",
        default=[],
        help="a channel it will have, with the backend's label: vif/-/w/dom0, vbd/lun_red/r/dom0",
    )


def _export(broker: Client, options: argparse.Namespace) -> int:
    ticket: LabelTicket = client.call(
        broker, "label.export", domain=options.domain, hours=options.hours
    )
    if options.json:
        show.json_line(ticket)
    else:
        show.line(ticket.ticket)
    return client.SUCCESS


def _import(broker: Client, options: argparse.Namespace) -> int:
    change = client.call(broker, "label.import", ticket=_text(options.ticket))
    return label_store.changed(change, options)


def _check(broker: Client, options: argparse.Namespace) -> int:
    ticket = None if options.ticket is None else _text(options.ticket)
    answer: MigrationAnswer = client.call(
        broker, "label.check", ticket=ticket, uuid=options.uuid, uses=tuple(options.use)
    )
    granted = answer.verdict == "grant"
    if options.json:
        show.json_line(answer)
    else:
        word = "would be admitted" if granted else "would not be admitted"
        show.line(f"{show.text(answer.uuid)} ({show.text(answer.label)}) {word}")
        for reason in answer.reasons:
            place = f"{show.text(reason.where)}: " if reason.where else ""
            show.line(f"  {place}{show.text(reason.text, 1000)} [{show.text(reason.rule)}]")
    return client.SUCCESS if granted else client.DENIED


def _text(name: str) -> str:
    data = sys.stdin.buffer.read(1 << 16) if name == "-" else offline.read(Path(name))
    try:
        return data.decode("ascii").strip()
    except UnicodeDecodeError:
        raise ProblemsError([Problem(name, 1, 1, "no ticket: not ASCII")]) from None
