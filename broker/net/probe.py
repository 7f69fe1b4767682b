"""What this kernel can enforce, found out by asking it, once at start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.net.libnftables import TransactionError
from broker.net.model import NetError

if TYPE_CHECKING:
    from broker.net.libnftables import Transactor

_TABLE: Final = "xpb_probe"
"""Made and deleted within one transaction: it never exists."""


class Abilities(msgspec.Struct, frozen=True):
    """What differs between kernels that can enforce labels at all.

    `knows_bridge`: a frame's bridge can be matched by name (`meta ibrname`: Linux 5.3 with
    CONFIG_NFT_BRIDGE_META). Without it every bridge of the network namespace is governed.
    """

    knows_bridge: bool


def probe(transactor: Transactor) -> Abilities:
    """What can be enforced here.

    Raises:
        NetError: labels cannot be enforced on this kernel, or not with these rights; says why.
    """
    for family, chain, rule, need in (
        ("bridge", "forward", "", "nf_tables for bridges (CONFIG_NF_TABLES_BRIDGE)"),
        ("inet", "forward", "", "nf_tables for IPv4 and IPv6 (CONFIG_NF_TABLES_INET)"),
        ("arp", "input", "", "nf_tables for ARP (CONFIG_NF_TABLES_ARP)"),
        ("bridge", "forward", "meta mark set iif map @m", "nf_tables maps"),
        ("bridge", "forward", "meta mark . meta priority @s accept", "concatenated sets"),
        ("bridge", "forward", "add @d { meta mark . meta priority }", "sets filled by rules"),
        ("bridge", "forward", "limit rate 1/second log group 1", "limits and nflog"),
    ):
        refusal = _try(transactor, family, chain, rule)
        if refusal is not None:
            raise NetError(
                f"labels cannot be enforced on bridges here: the kernel refuses {need}: {refusal}. "
                "Load nf_tables and its modules, or run with CAP_NET_ADMIN in the host's "
                "network namespace"
            )
    return Abilities(_try(transactor, "bridge", "forward", 'meta ibrname "x" accept') is None)


def _try(transactor: Transactor, family: str, chain: str, rule: str) -> str | None:
    """The kernel's refusal of such a table, or None if it would take it."""
    where = f"{family} {_TABLE}"
    commands = [
        f"add table {where}",
        f"add chain {where} {chain} {{ type filter hook {chain} priority -200; policy accept; }}",
    ]
    counting = "size 8; flags dynamic; counter;"
    if rule:
        commands += [
            f"add map {where} m {{ type iface_index : mark; }}",
            f"add set {where} s {{ typeof meta mark . meta priority; }}",
            f"add set {where} d {{ typeof meta mark . meta priority; {counting} }}",
            f"add rule {where} {chain} {rule}",
        ]
    try:
        transactor.run([*commands, f"delete table {where}"])
    except TransactionError as error:
        return str(error)
    return None
