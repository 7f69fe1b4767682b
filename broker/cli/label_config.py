"""`brokerctl label from-config`: label a domain as its xl configuration says, before it is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from broker.cli import client, connection, groups, label_store, offline
from broker.policy.acm.numbering import SCHEMES, in_order
from broker.text.escape import escape
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    import argparse

    from broker.core.policy import Policy
    from broker.policy.xl_config import ConfiguredLabel
    from broker.rpc.client import Client
    from broker.rpc.methods import PolicyText


def register(commands: groups.Commands) -> None:
    """Add the command."""
    leaf = groups.command(
        groups.group(commands, "label"),
        "from-config",
        client.asking(_from_config),
        help="give a domain the label in its xl configuration, which is never executed",
        example="brokerctl label from-config /etc/xen/web1.cfg && xl create /etc/xen/web1.cfg",
    )
    leaf.add_argument("file", metavar="FILE", type=Path, help="the domain's configuration")
    leaf.add_argument(
        "--digest",
        metavar="DIGEST",
        help="only if this policy (sha256:...) is in force; an ssidref needs it",
    )
    numbers = leaf.add_mutually_exclusive_group()
    numbers.add_argument("--map", metavar="FILE", type=Path, help="ssidrefs are those of this .map")
    numbers.add_argument(
        "--numbering",
        metavar="ORDER",
        choices=SCHEMES,
        help=f"ssidrefs number the labels of the policy in force so: {' or '.join(SCHEMES)}",
    )
    connection.add_options(leaf, top=False)


def _from_config(broker: Client, options: argparse.Namespace) -> int:
    from broker.policy.load import load_policy  # noqa: PLC0415 - as in offline.policy
    from broker.policy.xl_config import read_xl_config  # noqa: PLC0415

    config = read_xl_config(offline.read(options.file), str(options.file))
    text: PolicyText = client.call(broker, "policy.show")
    if options.digest not in (None, text.digest):
        raise _wrong(options, config.label, f"{text.digest} is in force, not {options.digest}")
    policy = load_policy(text.text.encode("utf-8"), f"{text.name}-{text.version}.yaml")
    label = _label(policy, config.label, options)
    if not policy.has_label(label):
        said = f"policy {policy.name} has no label '{escape(label, 60)}'"
        raise _wrong(options, config.label, said)
    domain = f"name:{config.name}" if config.uuid is None else f"uuid:{config.uuid}"
    change = client.call(broker, "label.set", domain=domain, label=label, policy=text.digest)
    return label_store.changed(change, options)


def _label(policy: Policy, found: ConfiguredLabel, options: argparse.Namespace) -> str:
    """The label that is meant; where a number stands beside it, of the same."""
    numbered = options.map is not None or options.numbering is not None
    if found.label is None and not (numbered and options.digest):
        said = (
            f"ssidref {found.ssidref} is a number in some policy: say which with --digest, "
            "and its numbering with --map or --numbering"
        )
        raise _wrong(options, found, said)
    if found.policy not in (None, policy.name):
        said = f"the label is of policy '{escape(found.policy, 60)}', but {policy.name} is in force"
        raise _wrong(options, found, said)
    by_number = None
    if numbered and found.ssidref is not None:
        by_number = _of_number(policy, found.ssidref, options)
        if by_number is None or found.label not in (None, by_number):
            said = f"ssidref {found.ssidref} is {by_number or 'no label'} there"
            raise _wrong(options, found, said)
    label = by_number or found.label
    if label is None:
        raise _wrong(options, found, "no label")
    return label


def _of_number(policy: Policy, ssidref: int, options: argparse.Namespace) -> str | None:
    from broker.policy.acm.map_file import read_map  # noqa: PLC0415 - as in offline.policy

    if options.map is not None:
        return read_map(offline.read(options.map), str(options.map)).label_of(ssidref)
    labels = in_order(policy.definition.labels, options.numbering, policy.bootstrap)
    numbers = {number << 16 | number: label.name for number, label in enumerate(labels, 1)}
    return numbers.get(ssidref)


def _wrong(options: argparse.Namespace, label: ConfiguredLabel, message: str) -> ProblemsError:
    return ProblemsError([Problem(str(options.file), *label.where, message)])
