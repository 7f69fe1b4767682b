"""`brokerctl label set|get|rm|list`: the labels the broker keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.cli import client, show

if TYPE_CHECKING:
    import argparse

    from broker.cli.groups import Commands
    from broker.rpc.client import Client
    from broker.rpc.methods import Label, LabelChange

_DOMAIN = "a domid, a uuid or a name, as in `xl list` (domid:, uuid: or name: says which)"


def register(commands: Commands) -> None:
    """Add the commands."""
    leaf = client.method_command(commands, "label.set", _set)
    leaf.add_argument("domain", metavar="DOMAIN", help=_DOMAIN)
    leaf.add_argument("label", metavar="LABEL", help="a label of the policy in force")
    leaf = client.method_command(commands, "label.get", _get)
    leaf.add_argument("domain", metavar="DOMAIN", help=_DOMAIN)
    leaf = client.method_command(commands, "label.rm", _rm)
    leaf.add_argument("domain", metavar="DOMAIN", help=_DOMAIN)
    client.method_command(commands, "label.list", _list)


def _set(broker: Client, options: argparse.Namespace) -> int:
    change = client.call(broker, "label.set", domain=options.domain, label=options.label)
    return changed(change, options)


def _rm(broker: Client, options: argparse.Namespace) -> int:
    return changed(client.call(broker, "label.rm", domain=options.domain), options)


def _get(broker: Client, options: argparse.Namespace) -> int:
    label: Label = client.call(broker, "label.get", domain=options.domain)
    if options.json:
        show.json_line(label)
    elif label.label is not None:
        show.line(show.text(label.label))
    else:
        client.complain(f"{options.domain} has no label: {label.reason}")
    return client.DENIED if label.label is None else client.SUCCESS


def _list(broker: Client, options: argparse.Namespace) -> int:
    labels: tuple[Label, ...] = client.call(broker, "label.list")
    if options.json:
        for label in labels:
            show.json_line(label)
    else:
        show.table(
            ["For", "Label", "ID", "Status"],
            [
                (
                    label.name if label.bound_by == "name" else label.uuid,
                    label.label,
                    ",".join(str(domid) for domid in label.domids),
                    _status(label),
                )
                for label in labels
            ],
        )
    return client.SUCCESS


def changed(change: LabelChange, options: argparse.Namespace) -> int:
    """Write what became of a label."""
    now = change.now
    if options.json:
        show.json_line(change)
    else:
        whose = show.text(now.name if now.bound_by == "name" or now.uuid is None else now.uuid)
        words = f"{whose}: {show.text(change.previous)} -> {show.text(now.label)}"
        show.line(words if change.changed else f"{whose}: {show.text(now.label)} already")
        if now.domids:
            running = ", ".join(str(domid) for domid in now.domids)
            show.line(f"domid {running}: {show.text(_status(now))}")
        elif now.label is not None:
            which = "name" if now.bound_by == "name" else "uuid"
            show.line(f"no domain of that {which} runs; the label is for any that will")
    return client.SUCCESS


def _status(label: Label) -> str:
    if label.status == "labelled":
        return label.status
    return f"{label.status}: {label.reason}" if label.reason else label.status
