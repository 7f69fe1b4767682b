"""`brokerctl channel connect|disconnect|reset`: what dom0's agent does on the broker's order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.cli import channel, client, show

if TYPE_CHECKING:
    import argparse

    from broker.cli.groups import Commands
    from broker.rpc.client import Client
    from broker.rpc.methods import ChannelOrdered


def register(commands: Commands) -> None:
    """Add the commands."""
    leaf = client.method_command(commands, "channel.connect", _connect)
    leaf.add_argument(
        "--domain", metavar="DOMAIN", required=True, help="the guest: a domid, a uuid or a name"
    )
    leaf.add_argument("--resource", metavar="NAME", help="a resource of the policy")
    leaf.add_argument(
        "--class", metavar="CLASS", dest="device_class", help="vif or vbd (the resource's)"
    )
    leaf.add_argument("--backend", metavar="DOMAIN", help="who serves it (domain 0)")
    leaf.add_argument("--devid", metavar="NUMBER", type=int, help="51728 is xvdb (the next free)")
    leaf.add_argument("--params", metavar="PATH", help="of a vbd: the disk, such as /dev/vg/red-2")
    leaf.add_argument("--mode", choices=["r", "w"], help="of a vbd: to read, or also to write (w)")
    leaf.add_argument("--bridge", metavar="NAME", help="of a vif")
    leaf.add_argument("--mac", metavar="MAC", help="of a vif (drawn as xl does)")
    leaf.add_argument("--ip", metavar="ADDRESSES", help="of a routed vif")
    leaf = client.method_command(commands, "channel.disconnect", _disconnect)
    channel.selector(leaf)
    leaf.add_argument(
        "--force", action="store_true", help="do not ask the guest to let go of it first"
    )
    channel.selector(client.method_command(commands, "channel.reset", _reset))


def _connect(broker: Client, options: argparse.Namespace) -> int:
    names = ("domain", "resource", "device_class", "backend", "devid", "params", "mode")
    given = {name: getattr(options, name) for name in (*names, "bridge", "mac", "ip")}
    done: ChannelOrdered = client.call(broker, "channel.connect", **given)
    return _show(done, options)


def _disconnect(broker: Client, options: argparse.Namespace) -> int:
    done: ChannelOrdered = client.call(
        broker, "channel.disconnect", **channel.selected(options), force=options.force
    )
    return _show(done, options)


def _reset(broker: Client, options: argparse.Namespace) -> int:
    done: ChannelOrdered = client.call(broker, "channel.reset", **channel.selected(options))
    return _show(done, options)


def _show(done: ChannelOrdered, options: argparse.Namespace) -> int:
    if options.json:
        show.json_line(done)
    else:
        name = f"{done.device_class}/{done.frontend}/{done.device} -> {done.backend}"
        show.line(f"{show.text(name)} {show.text(done.how)}")
    return client.SUCCESS
