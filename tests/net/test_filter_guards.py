"""Every step by which frames are told apart is needed: without it the kernel decides otherwise."""

from __future__ import annotations

import random
import struct

import pytest
from filter_frames import GUEST, Maker, ip6
from filter_rig import FilterRig
from followed import Followed
from labelled_rig import Labelled
from net_rig import raw
from test_filters_in_kernel import differences

from broker.net.filters import programs
from broker.net.filters.kinds import KINDS, ROOT, TREE

pytestmark = pytest.mark.root

ASKED = (
    "vlan.id: 5", "arp.op: request", "ip.protocol: 47", "tcp.dport: 80", "udp.dport: 80",
    "icmp.type: echo-request", "icmpv6.type: 128", 'nd.target: "fd00::1"', "nd.lladdr: none",
    'nd.lladdr: "02:00:00:00:00:01"', "dhcp.op: reply", "dhcpv6.type: 2", "ip6.protocol: udp",
    "ip6.fragment: first", "ip6.nexthdr: tcp", "icmp.code: 0", "icmpv6.code: 0",
    "tcp.sport: 80", "udp.sport: 80", 'dhcp.chaddr: "02:00:00:00:00:01"',
)  # fmt: skip
"""What a profile asks of each header: a rule that accepts, in one, and that drops, in another."""


def profiles():
    made = {}
    for number, match in enumerate(ASKED):
        for verdict, default in (("accept", "drop"), ("drop", "accept")):
            name = f"p{number}-{verdict}"
            text = f"profile: {name}\ndescription: x\ndefault: {default}\nrules:\n"
            made[name] = f"{text}  - {{{verdict}: both, match: {{{match}}}}}\n".encode()
    return made


def later_fragments():
    """Of IPv6, long enough for any header, that begin as one would."""
    for protocol in (6, 17, 58):
        for kind in (0x80, 0x50, 0):
            head = struct.pack(">BBHI", protocol, 0, 0x18, 7)
            rest = head + bytes([kind, 80, 0, 80]) + bytes(60)
            packet = struct.pack(">IHBB", 0x60000000, len(rest), 44, 64)
            packet += ip6("fd00::1") + ip6("fd00::2") + rest
            yield raw("02:99:00:00:00:07") + raw(GUEST) + b"\x86\xdd" + packet


FRAMES = [*Maker(random.Random(5)).frames(1500), *later_fragments()]
TALK = Maker(random.Random(6)).conversations(600)
RELATED = (
    b"profile: related\ndescription: x\ndefault: drop\nrules:\n"
    b"  - {accept: to-guest, match: {ct.state: new}}\n"
    b"  - {accept: from-guest, match: {ct.state: related}}\n"
)


@pytest.fixture(scope="module")
def rig():
    made = FilterRig(Labelled())
    yield made
    made.rig.close()


def wrong(rig):
    """A profile of which the kernel thinks otherwise than the evaluator; None: there is none."""
    rig.hold()
    texts = profiles()
    for name in texts:
        rig.hold(name, texts=texts)
        if differences(rig, [name], {}, FRAMES, "from-guest"):
            return name
        rig.hold()
    rig.hold("related", texts={"related": RELATED})
    followed = Followed()
    for direction in ("to-guest", "from-guest"):
        if differences(rig, ["related"], {}, TALK, direction, followed=followed):
            return "related"
    return None


def test_with_all_steps_kernel_and_evaluator_agree(rig):
    assert wrong(rig) is None


@pytest.mark.parametrize(
    ("node", "place"),
    [(node, place) for node, steps in TREE.items() for place in range(len(steps) - 1)],
)
def test_without_a_step_they_do_not(rig, monkeypatch, node, place):
    steps = TREE[node]
    without = {**TREE, node: steps[:place] + steps[place + 1 :]}
    monkeypatch.setattr(programs, "TREE", without)
    assert wrong(rig) is not None, steps[place]


def test_every_kind_is_told_and_every_node_leads_on():
    reached = {ROOT}
    for steps in TREE.values():
        for step in steps:
            reached |= {it for it in (step.to, *(to for _, to in step.ways)) if it}
        assert not steps[-1].condition
    assert reached == {*TREE, *KINDS}
