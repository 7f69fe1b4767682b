"""`brokerctl net show|trace`: the bridge of this host, from its own kernel. Needs root here.

`brokerctl net drops`: what agents everywhere report, from the broker.
"""

from __future__ import annotations

import select
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from broker.cli import client, groups, show
from broker.net import report as reports
from broker.net.libnftables import TransactionError
from broker.net.links import LinkTable
from broker.net.messages import MAX_TRACE, Drops, Lease, RuleCount
from broker.net.model import NetError
from broker.net.nft_command import open_transactor
from broker.net.readback import Readback
from broker.net.show import Noted, connections, drops, leases, rule_counts
from broker.net.tables import BRIDGE
from broker.net.trace import Tracer

if TYPE_CHECKING:
    import argparse

    from broker.cli.groups import Commands
    from broker.net.report import Report
    from broker.rpc.client import Client
    from broker.rpc.methods import NetDrops

REPORT: Final = "/run/xen-policy-broker/net.json"
"""Where the agent writes which label each port carries."""


def register(commands: Commands) -> None:
    """Add the commands."""
    group = groups.group(commands, "net")
    leaf = groups.command(
        group, "show", _show, help="ports, labels and refused packets", example="brokerctl net show"
    )
    leaf.add_argument(
        "--report", metavar="FILE", default=REPORT, help="the agent's (default: %(default)s)"
    )
    leaf = groups.command(
        group,
        "trace",
        _trace,
        help="what becomes of the frames from one port to another, for a while",
        example="brokerctl net trace vif3.0 vif4.0 --seconds 10",
    )
    client.method_command(commands, "net.drops", _drops)
    leaf.add_argument("sender", metavar="FROM", help="the port that frames come in by")
    leaf.add_argument("receiver", metavar="TO", help="the port that they should leave by")
    leaf.add_argument("--seconds", type=_seconds, default=10.0, help=f"at most {MAX_TRACE}")


def _drops(broker: Client, options: argparse.Namespace) -> int:
    reports: tuple[NetDrops, ...] = client.call(broker, "net.drops")
    if options.json:
        for report in reports:
            show.json_line(report)
        return client.SUCCESS
    show.table(
        ["Backend", "Packets", "Bytes", "Refused from", "to"],
        [
            (it.backend_name or it.backend, drop.packets, drop.bytes, drop.sender, drop.receiver)
            for it in reports
            for drop in it.drops
        ],
    )
    for it in reports:
        if it.omitted:
            show.line(f"and {it.omitted} pairs more of domain {it.backend}")
    return client.SUCCESS


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= MAX_TRACE:
        raise ValueError
    return seconds


def _show(options: argparse.Namespace) -> int:
    try:
        report = reports.decode(Path(options.report).read_bytes(), options.report)
    except (OSError, NetError) as error:
        return _failed(f"{error}: is the agent running?", client.UNREACHABLE)
    try:
        readback = Readback()
        closed = _closed(report, readback)
        found = drops(readback)
        counts, learned = rule_counts(readback), leases(readback)
        noted = connections(readback)
    except (OSError, NetError) as error:
        return _failed(str(error), client.UNREACHABLE)
    if options.json:
        _print_json(report, closed, [*found, *learned, *noted, *counts])
    else:
        _print(report, closed, found)
        _print_filters(report, counts, learned, noted)
    return client.DENIED if closed else client.SUCCESS


def _print_json(
    report: Report, closed: set[int], found: list[Drops | Lease | Noted | RuleCount]
) -> None:
    for port in report.ports:
        show.json_line({**msgspec.to_builtins(port), "open": port.index not in closed})
    for it in found:
        if isinstance(it, Drops):
            ends = {"from": report.end(it.sender), "to": report.end(it.receiver)}
            show.json_line({**ends, "packets": it.packets, "bytes": it.bytes})
        elif isinstance(it, Lease):
            show.json_line({"learned": it.address, "index": it.index, "seconds": it.seconds})
        else:
            show.json_line(it)
    for text in report.alarms:
        show.json_line({"alarm": text})
    for text in report.samples:
        show.json_line({"refused": text})
    if report.problem:
        show.json_line({"problem": report.problem})


def _closed(report: Report, readback: Readback) -> set[int]:
    """Ports that the agent reports and the kernel does not have: closed."""
    marks = {key for table in (BRIDGE, "xpb_inet") for key in readback.elements(table, "sender")}
    return {p.index for p in report.ports if p.index.to_bytes(4, sys.byteorder) not in marks}


def _print(report: Report, closed: set[int], found: list[Drops]) -> None:
    state = {True: "closed: not in the kernel", False: "open"}
    show.table(
        ["Port", "Label", "Bridge", "State"],
        [
            (port.name, port.label, port.bridge or "(routed)", state[port.index in closed])
            for port in report.ports
        ],
    )
    show.table(
        ["Packets", "Bytes", "Refused from", "to"],
        [
            (
                drop.packets,
                drop.bytes,
                report.end(drop.sender) or "(no label)",
                report.end(drop.receiver) or "(no label)",
            )
            for drop in found
        ],
    )
    for title, lines in (("Alarms", report.alarms), ("Refused lately", report.samples)):
        if lines:
            show.table([title], [(text,) for text in lines])
    if report.problem:
        show.line(f"Nothing passes: {show.text(report.problem)}")


def _print_filters(
    report: Report, counts: list[RuleCount], learned: list[Lease], noted: list[Noted]
) -> None:
    """The ports' profiles and variables, what is known of them, and what each rule decided."""
    names = {port.index: port.name for port in report.ports}
    filtered = [port for port in report.ports if port.profiles]
    if filtered:
        rows = [
            (
                port.name,
                ", ".join(port.profiles),
                " ".join(f"{name}={','.join(it)}" for name, it in sorted(port.variables.items())),
            )
            for port in filtered
        ]
        show.table(["Port", "Profiles", "Variables"], rows)
    if learned:
        rows = [
            (names.get(it.index, str(it.index)), it.address, f"{it.seconds} s") for it in learned
        ]
        show.table(["Port", "Learned", "For"], rows)
    if noted:
        listed = [
            (names.get(it.index, str(it.index)), it.protocol, it.sent, it.heard, it.kept)
            for it in noted
        ]
        show.table(["Port", "Connections", "Sent", "Heard", "Kept"], listed)
    if counts:
        show.table(["Rule", "Packets", "Bytes"], [(it.rule, it.packets, it.bytes) for it in counts])


def _trace(options: argparse.Namespace) -> int:
    try:
        links = LinkTable()
        ends = [links.named(name) for name in (options.sender, options.receiver)]
        for name, link in zip((options.sender, options.receiver), ends, strict=True):
            if link is None:
                return _failed(f"there is no interface {name}", client.BAD_INPUT)
        sender, receiver = (link.index for link in ends if link is not None)
        tracer = Tracer(open_transactor(), sender, receiver, options.seconds)
    except ValueError as error:
        return _failed(str(error), client.BAD_INPUT)
    except (OSError, TransactionError, NetError) as error:
        return _failed(str(error), client.UNREACHABLE)
    end = time.monotonic() + options.seconds
    try:
        while (left := end - time.monotonic()) > 0:
            select.select([tracer], [], [], left)
            for step in tracer.steps():
                if options.json:
                    show.json_line(step)
                else:
                    show.line(f"{step.packet}  {step.chain}: {step.verdict}")
                sys.stdout.flush()
    finally:
        tracer.close()
    return client.SUCCESS


def _failed(text: str, code: int) -> int:
    print(f"brokerctl: {show.text(text)}", file=sys.stderr)
    return code
