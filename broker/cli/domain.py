"""`brokerctl domain list`: like xl list, with labels.

Without Time(s), and with `running` or `dying` for a state: the rest only the hypervisor knows, and
the broker asks xenstore alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.cli import client, show

if TYPE_CHECKING:
    import argparse

    from broker.cli.groups import Commands
    from broker.rpc.client import Client
    from broker.rpc.methods import Domain


def register(commands: Commands) -> None:
    """Add the command."""
    leaf = client.method_command(commands, "domain.list", _list)
    leaf.add_argument("--long", action="store_true", help="with uuid and security details")


def _list(broker: Client, options: argparse.Namespace) -> int:
    domains: tuple[Domain, ...] = client.call(broker, "domain.list")
    if options.json:
        for domain in domains:
            show.json_line(domain)
    elif options.long:
        for index, domain in enumerate(domains):
            if index:
                show.line("")
            _long(domain)
    else:
        show.table(
            ["Name", "ID", "Mem", "VCPUs", "State", "ACM-Label"],
            [
                (it.name, it.domid, _mebibytes(it), it.vcpus, _state(it), _label(it))
                for it in domains
            ],
        )
    return client.SUCCESS


def _long(domain: Domain) -> None:
    show.facts(
        [
            ("name", show.text(domain.name)),
            ("id", show.text(domain.domid)),
            ("uuid", show.text(domain.uuid)),
            ("state", _state(domain)),
            ("memory", "-" if domain.memory is None else f"{_mebibytes(domain)} MiB"),
            ("vcpus", show.text(domain.vcpus)),
            ("status", domain.status),
            ("reason", show.text(domain.reason)),
            ("label", show.text(domain.label)),
            ("label for", _bound(domain)),
            ("set by", show.text(domain.set_by)),
            ("policy", show.text(domain.policy)),
            ("ssidref", _ssidref(domain.ssidref)),
            ("channels", f"{domain.granted} granted, {domain.denied} not"),
        ]
    )


def _mebibytes(domain: Domain) -> int | None:
    return None if domain.memory is None else domain.memory // 1024


def _label(domain: Domain) -> str | None:
    """The label, and what became of it where the domain does not stand with it."""
    if domain.status == "labelled":
        return domain.label
    return f"{domain.label or '-'} ({domain.status})"


def _bound(domain: Domain) -> str:
    """What the label is stored for."""
    return {"uuid": "its uuid", "name": "its name", None: "-"}[domain.bound_by]


def _ssidref(ssidref: int | None) -> str:
    """As people and as ACM's tools wrote it."""
    return "-" if ssidref is None else f"{ssidref} (0x{ssidref:08x})"


def _state(domain: Domain) -> str:
    return "running" if domain.running else "dying"
