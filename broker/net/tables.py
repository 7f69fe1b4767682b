"""The tables in the kernel: `xpb_bridge`, `xpb_inet` and `xpb_arp`, as nft text.

Created once; chains are never replaced while in use. Rules are constant: whatever changes is an
element of a set. One packet costs the same number of look-ups with ten ports as with a thousand.

The form, and why each part of it is as it is:
- Ports are matched by interface *index*. A name outlives its interface in a set, and another
  interface may take it; an index is given once.
- The sender's class goes into the mark, the receiver's into the priority, and the pair is looked
  up, in one rule: a look-up that misses ends it, so that no old value is ever compared. The mark
  carries `MARK_BASE` above the class: so somebody else's mark is never taken for a class.
- Bridge hooks sit at priority -200 and -300: at 0 they are bypassed for IP by br_netfilter.
- `forward` alone leaves dom0 itself open: `input` and `output` hold dom0's own traffic to the
  ports in `host`.
- The mark stays on a packet that came in from a port and dom0 routes: where it leaves by another
  governed port, `output` checks the pair it really is, and not dom0 with the receiver.
- Every base chain's policy is drop: a half-made or flushed chain is closed.
- What a guest's port sends, and what may reach it, goes through its filter (`from_guest`,
  `to_guest`: a verdict for each port, `accept` or a chain of broker/net/filters) in the look-up
  that finds the port governed: a port without a verdict passes nothing.
- A drop is counted by pair of labels (bounded), sampled at a bounded rate to nflog, dropped. The
  labels' own numbers (`label_ids`) are looked up for that alone: no packet that passes pays for it.

Scope: see docs/bridge.md. `bridges` names the governed bridges. Where the kernel cannot tell a
frame's bridge (no `meta ibrname`), every bridge of the network namespace is governed.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from broker.net.model import MAX_PORTS

BRIDGE: Final = "xpb_bridge"
INET: Final = "xpb_inet"
ARP: Final = "xpb_arp"
FAMILIES: Final = {BRIDGE: "bridge", INET: "inet", ARP: "arp"}
"""Every table of ours. No other table is ever named in a command."""

MARK_BASE: Final = 0x58420000
"""`XB`: the high half of a mark that carries a class."""
PRIORITY_MAJOR: Final = 0x5842
SAMPLE_GROUP: Final = 22594
"""The nflog group that samples of dropped packets go to."""
SAMPLE_BYTES: Final = 160
SAMPLES_PER_SECOND: Final = 20
MAX_DROP_PAIRS: Final = 4096
"""Pairs of labels whose drops are counted apart; those beyond share the total."""

Key = Literal["index", "pair", "index_mac", "name", "group"]


class SetSpec(msgspec.Struct, frozen=True):
    """One set or map of ours: its name, its nft type, what its keys are, what a map maps to."""

    name: str
    typed: str
    key: Key
    data: Literal["mark", "priority", "verdict", ""] = ""

    @property
    def ranges(self) -> bool:
        """Whether its values are ranges: the kernel keeps and finds these otherwise."""
        return self.name.startswith("r/")


_PORTS: Final = SetSpec("ports", "type iface_index", "index")
_COMMON: Final = (
    SetSpec("bridges", "type ifname", "name"),
    _PORTS,
    SetSpec("host", "type iface_index", "index"),
    SetSpec("sender", "type iface_index : mark", "index", "mark"),
    SetSpec("receiver", "type iface_index : classid", "index", "priority"),
    SetSpec("sender_label", "type iface_index : mark", "index", "mark"),
    SetSpec("receiver_label", "type iface_index : classid", "index", "priority"),
    SetSpec("pairs", "typeof meta mark . meta priority", "pair"),
)
SETS: Final[dict[str, tuple[SetSpec, ...]]] = {
    BRIDGE: (
        *_COMMON,
        SetSpec("uplinks", "type iface_index", "index"),
        SetSpec("local_macs", "typeof iif . ether saddr", "index_mac"),
        SetSpec("from_guest", "type iface_index : verdict", "index", "verdict"),
        SetSpec("to_guest", "type iface_index : verdict", "index", "verdict"),
    ),
    INET: _COMMON,
    ARP: (_PORTS,),
}

_TAGGED: Final = f"meta mark & 0xffff0000 == {MARK_BASE:#x}"
_RESET: Final = "meta mark set 0 meta priority set none"
_MARK_SENDER: Final = "meta mark set iif map @sender"
_TO_RECEIVER: Final = "meta priority set oif map @receiver"
_PAIRED: Final = "meta mark . meta priority @pairs meta priority set none"
"""The priority goes back to none, lest a class choose a queue; the mark stays (see above)."""
_IS_PAIR: Final = f"{_PAIRED} accept"
_FILTERED: Final = "oif vmap @to_guest"
_PASS_PAIR: Final = f"{_MARK_SENDER} {_TO_RECEIVER} {_PAIRED} {_FILTERED}"
"""One rule: a look-up that misses ends it, so what is compared was always just set."""
_SENDER_LABEL: Final = "meta mark set iif map @sender_label"
_RECEIVER_LABEL: Final = "meta priority set oif map @receiver_label"
_WHO: Final = (_RESET, _SENDER_LABEL, _RECEIVER_LABEL, "goto refuse")
"""For counting a refusal: a look-up that misses must not leave an old value."""
_NO_LINK_LOCAL: Final = (
    "ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 iif @ports goto refuse_sender"
)
"""What a bridge never forwards (LACP, 802.1X) comes here without prerouting, and so past a guest's
filter; guests have no part in it. See `link_local`."""
_TO_DOM0: Final = (
    "meta mark set 0",
    f"meta priority set {PRIORITY_MAJOR:x}:0",
    _SENDER_LABEL,
    "goto refuse",
)
_FROM_DOM0: Final = (
    f"meta mark set {MARK_BASE:#x}",
    "meta priority set none",
    _RECEIVER_LABEL,
    "goto refuse",
)
_RELAYED: Final = ("meta priority set none", _SENDER_LABEL, _RECEIVER_LABEL, "goto refuse")
"""The mark keeps the sender's class where the port it came by is not seen any more."""
_SAMPLE: Final = (
    f"limit rate {SAMPLES_PER_SECOND}/second burst {SAMPLES_PER_SECOND} packets "
    f'log prefix "xpb" group {SAMPLE_GROUP} snaplen {SAMPLE_BYTES}'
)
_REFUSE: Final = ("add @drops { meta mark . meta priority }", _SAMPLE, "counter drop")


def _governed(meta: str, port: str, chain: str, *, knows_bridge: bool) -> tuple[str, ...]:
    """Frames of a governed bridge, and of our ports wherever they are, go to `chain`."""
    if not knows_bridge:
        return (f"goto {chain}",)
    return (f"meta {meta} @bridges goto {chain}", f"{port} @ports goto {chain}")


def _bridge_chains(*, knows_bridge: bool) -> dict[str, tuple[str, ...]]:
    governed = _governed("ibrname", "iif", "refuse_sender", knows_bridge=knows_bridge)
    other = ("accept",) if knows_bridge else ()
    either = (*governed, "oif @ports goto refuse_sender") if knows_bridge else governed
    closed = ("meta ibrname @bridges goto refuse_sender", "accept")
    return {
        "prerouting": (
            # Guests first: they are many. An uplink may be one only after its sources.
            "iif vmap @from_guest",
            "iif @ports goto refuse_sender",
            "iif . ether saddr @local_macs goto refuse_sender",
            "iif @uplinks accept",
            # A port without a class may not even teach the bridge where a MAC is.
            *(closed if knows_bridge else ("goto refuse_sender",)),
        ),
        # What passes first: that is most, and nothing else must be asked for it.
        "forward": (_PASS_PAIR, *either, *other),
        "input": (*_governed("ibrname", "iif", "to_host", knows_bridge=knows_bridge), *other),
        "output": (*_governed("obrname", "oif", "from_host", knows_bridge=knows_bridge), *other),
        "to_host": (_NO_LINK_LOCAL, _MARK_SENDER, "iif @host accept", *_TO_DOM0),
        "from_host": (f"{_TAGGED} goto relayed", f"oif @host {_FILTERED}", *_FROM_DOM0),
        "relayed": (f"{_TO_RECEIVER} {_PAIRED} {_FILTERED}", *_RELAYED),
        "refuse_sender": _WHO,
        "refuse": _REFUSE,
        # What a port's filter refuses: counted by the rule that did.
        "filtered": (_SAMPLE, "drop"),
    }


_ND: Final = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255"
_INET_CHAINS: Final[dict[str, tuple[str, ...]]] = {
    "forward": (
        "iif @ports goto from_port",
        "oif @ports goto to_port",
        'iifname "vif*" goto refuse_sender',
        'oifname "vif*" goto refuse_sender',
        f"{_TAGGED} goto to_port",
        # Nobody knows who sends this: it may not reach a governed bridge as if it were dom0.
        "oifname @bridges goto refuse_sender",
        "accept",
    ),
    "input": ("iif @ports goto to_host", 'iifname "vif*" goto refuse_sender', "accept"),
    "output": ("oif @ports goto from_host", 'oifname "vif*" goto refuse_sender', "accept"),
    "from_port": ("meta mark set 0", _MARK_SENDER, "goto to_port"),
    "to_port": (
        # On a governed bridge the receiving port is only known in that bridge's output.
        f"{_TAGGED} oifname @bridges accept",
        f"{_TO_RECEIVER} {_IS_PAIR}",
        *_RELAYED,
    ),
    # A routed port finds its gateway, dom0, whether or not it may talk with dom0.
    "to_host": (f"{_ND} accept", "iif @host accept", *_TO_DOM0),
    "from_host": (f"{_ND} accept", "oif @host accept", *_FROM_DOM0),
    "refuse_sender": _WHO,
    "refuse": _REFUSE,
}
_ARP_CHAINS: Final[dict[str, tuple[str, ...]]] = {
    "input": ("iif @ports accept", 'iifname "vif*" drop', "accept"),
    "output": ("oif @ports accept", 'oifname "vif*" drop', "accept"),
}
_PRIORITY: Final = {"prerouting": -300}
_HOOKS: Final = ("prerouting", "forward", "input", "output")


def chains(table: str, *, knows_bridge: bool) -> dict[str, tuple[str, ...]]:
    """The rules of each chain of `table`, in order."""
    if table == BRIDGE:
        return _bridge_chains(knows_bridge=knows_bridge)
    return _INET_CHAINS if table == INET else _ARP_CHAINS


def skeleton(*, knows_bridge: bool) -> list[str]:
    """Commands that create tables, sets and chains, or renew the rules of those there are.

    Harmless to repeat: `add` leaves what exists, chains are flushed and refilled within the same
    transaction, base chains are never deleted, sets keep their elements.
    """
    commands = []
    for table, family in FAMILIES.items():
        where = f"{family} {table}"
        commands.append(f"add table {where}")
        for spec in SETS[table]:
            kind = "map" if spec.data else "set"
            # With a size the kernel takes its quickest hash; there are never more ports.
            size = f" size {MAX_PORTS};" if spec.key == "index" else ""
            commands.append(f"add {kind} {where} {spec.name} {{ {spec.typed};{size} }}")
        if table != ARP:
            commands.append(
                f"add set {where} drops {{ typeof meta mark . meta priority; "
                f"size {MAX_DROP_PAIRS}; flags dynamic; counter; }}"
            )
        content = chains(table, knows_bridge=knows_bridge)
        for chain in content:
            hook = _base(chain) if chain in _HOOKS else ""
            commands += [f"add chain {where} {chain}{hook}", f"flush chain {where} {chain}"]
        commands += [
            f"add rule {where} {chain} {rule}" for chain, rules in content.items() for rule in rules
        ]
    return commands


def _base(hook: str) -> str:
    """What makes a chain of this name a base chain."""
    priority = _PRIORITY.get(hook, -200)
    return f" {{ type filter hook {hook} priority {priority}; policy drop; }}"
