"""The parts that need no kernel: frames in words, contents and commands, a policy's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from net_rig import UNICAST, arp, ethernet, frame_for, ipv4, ipv6, mac, marker, vlan

from broker.net import libnftables, netlink, nft_command, readback
from broker.net.frame import describe
from broker.net.libnftables import Libnftables, TransactionError, UnavailableError
from broker.net.model import InvalidError, NetError, Port, Target
from broker.net.nft_command import NftCommand, open_transactor
from broker.net.policy_rules import PolicyRules, Uplink
from broker.net.probe import probe
from broker.net.ruleset import content_of, difference, whole
from broker.net.tables import ARP, BRIDGE, FAMILIES, INET, chains
from broker.policy.load import load_policy

A, B = mac(1), mac(2)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (ethernet(B, A, 0x0806, arp(1, 2, b"")), "ARP request from 10.0.0.1 for 10.0.0.2"),
        (
            ethernet(B, A, 0x0800, ipv4(1, 2, b"")),
            "IPv4 10.0.0.1 port 1000 > 10.0.0.2 port 2000 UDP",
        ),
        (ethernet(B, A, 0x86DD, ipv6(1, 2, b"")), "IPv6 fd00::1 port 1000 > fd00::2 port 2000 UDP"),
        (
            ethernet(B, A, 0x8100, vlan(vlan(arp(1, 2, b""), 0x0806), 0x8100)),
            "vlan 5 vlan 5 ARP request from 10.0.0.1 for 10.0.0.2",
        ),
        (ethernet(B, A, 0x88B5, b"x"), "ethertype 0x88b5"),
        (ethernet(B, A, 46, b"x"), "LLC length 46"),
        (ethernet(B, A, 0x0800, b"")[:20], "IPv4, cut short"),
    ],
)
def test_a_frame_is_told_in_one_line(frame, words):
    assert describe(frame) == f"{A} > {B} {words}"


def test_a_later_fragment_shows_no_ports():
    packet = bytearray(ipv4(1, 2, b"\x01\x02\x03\x04"))
    packet[6:8] = b"\x00\x10"
    said = describe(ethernet(B, A, 0x0800, bytes(packet)))
    assert said.endswith("IPv4 10.0.0.1 > 10.0.0.2 UDP fragment at 128")


@given(st.binary(max_size=80))
def test_any_bytes_are_told_in_printable_ascii(data):
    said = describe(data)
    assert said.isascii()
    assert said.isprintable()


def test_every_kind_of_frame_carries_its_marker():
    class One:
        number, mac = 1, A

    for kind in UNICAST:
        assert marker(1, 1, list(UNICAST).index(kind)) in frame_for(kind, One, One)


GUEST = Port("vif1.0", 7, 1, label=0xCAFE, bridge="br0", host=True, macs=(A,))
TARGET = Target(frozenset({"br0"}), {7: GUEST}, frozenset({(1, 1)}))


def test_a_plain_port_is_its_elements_and_no_more():
    content = content_of(TARGET)
    assert content[BRIDGE, "sender"] == content[BRIDGE, "receiver"] == {7: 0x58420001}
    assert content[BRIDGE, "sender_label"] == content[BRIDGE, "receiver_label"] == {7: 0xCAFE}
    assert content[BRIDGE, "ports"] == content[BRIDGE, "host"] == {7: None}
    assert (BRIDGE, "local_macs") not in content
    assert (INET, "pairs") not in content
    assert (ARP, "ports") not in content


def test_an_uplink_may_not_send_as_any_port_of_its_own_bridge():
    uplink = Port("eth0", 9, 2, bridge="br0", uplink=True)
    elsewhere = Port("vif3.0", 8, 1, bridge="br1", macs=(B,))
    ports = {port.index: port for port in (GUEST, uplink, elsewhere)}
    content = content_of(Target(frozenset({"br0", "br1"}), ports, frozenset()))
    assert content[BRIDGE, "local_macs"] == {(9, A): None}
    assert content[BRIDGE, "uplinks"] == {9: None}


def test_revocations_stand_before_grants():
    other = Target(frozenset({"br1"}), {8: Port("vif2.0", 8, 2, bridge="br1")}, frozenset({(2, 2)}))
    verbs = [command.split()[0] for command in difference(content_of(TARGET), content_of(other))]
    assert verbs == sorted(verbs, reverse=True)
    assert set(verbs) == {"add", "delete"}
    assert difference(content_of(TARGET), content_of(TARGET)) == []


def test_of_pairs_of_which_few_stay_those_are_written_anew_and_else_only_what_changes():
    def pairs(*numbers):
        return {(BRIDGE, "pairs"): dict.fromkeys((one, 1) for one in numbers)}

    few, many = pairs(1), pairs(*range(1, 9))
    assert difference(many, few) == [
        "flush set bridge xpb_bridge pairs",
        "add element bridge xpb_bridge pairs { 0x58420001 . 5842:1 }",
    ]
    assert difference(many, pairs()) == ["flush set bridge xpb_bridge pairs"]
    assert [it.split()[0] for it in difference(many, pairs(*range(1, 8)))] == ["delete"]
    assert [it.split()[0] for it in difference(few, many)] == ["add"]


def test_commands_name_our_tables_alone():
    for knows_bridge in (False, True):
        for command in whole(content_of(TARGET), knows_bridge=knows_bridge):
            family, table = command.split()[2:4]
            assert FAMILIES[table] == family


def test_base_chains_are_never_deleted_and_drop_by_policy():
    commands = whole(content_of(TARGET), knows_bridge=True)
    assert not [c for c in commands if c.startswith("delete")]
    hooks = [c for c in commands if " hook " in c]
    assert len(hooks) == 4 + 3 + 2
    assert all("policy drop" in c for c in hooks)
    # At 0 br_netfilter bypasses them for IP, on kernels that have it.
    assert all(f"priority {-300 if 'prerouting' in c else -200};" in c for c in hooks)


RESET = "meta mark set 0 meta priority set none"
SENDER, RECEIVER = (
    "meta mark set iif map @sender_label",
    "meta priority set oif map @receiver_label",
)


@pytest.mark.parametrize("knows_bridge", [True, False])
@pytest.mark.parametrize("table", [BRIDGE, INET])
def test_a_refusal_is_counted_by_what_was_just_looked_up_and_then_dropped(table, knows_bridge):
    """Also where whoever comes here always has a label: no old value is ever counted."""
    made = chains(table, knows_bridge=knows_bridge)
    who = (RESET, SENDER, RECEIVER, "goto refuse")
    assert made["refuse_sender"] == who
    assert made["to_host"][-4:] == (
        "meta mark set 0", "meta priority set 5842:0", SENDER, "goto refuse"
    )  # fmt: skip
    assert made["from_host"][-4:] == (
        "meta mark set 0x58420000", "meta priority set none", RECEIVER, "goto refuse"
    )  # fmt: skip
    # The mark is what the sender's port put there.
    relayed = made["relayed" if table == BRIDGE else "to_port"]
    assert relayed[-4:] == ("meta priority set none", SENDER, RECEIVER, "goto refuse")
    assert made["refuse"][0] == "add @drops { meta mark . meta priority }"
    assert made["refuse"][-1] == "counter drop"
    if table == BRIDGE:
        assert made["forward"][-1] == ("accept" if knows_bridge else "goto refuse_sender")
    else:
        assert made["from_port"][0] == "meta mark set 0"
        # Not even what has somehow no class is taken for a port's on its way to a bridge.
        assert made["to_port"][0] == "meta mark & 0xffff0000 == 0x58420000 oifname @bridges accept"


@pytest.mark.parametrize("knows_bridge", [True, False])
def test_a_port_without_a_verdict_of_its_own_is_refused_whatever_its_bridge(knows_bridge):
    made = chains(BRIDGE, knows_bridge=knows_bridge)["prerouting"]
    assert made[:2] == ("iif vmap @from_guest", "iif @ports goto refuse_sender")


def test_where_the_kernel_knows_bridges_others_are_left_alone():
    with_names = chains(BRIDGE, knows_bridge=True)
    passing = with_names["forward"][0]
    assert passing.endswith("@pairs meta priority set none oif vmap @to_guest")
    assert with_names["forward"][1:] == (
        "meta ibrname @bridges goto refuse_sender",
        "iif @ports goto refuse_sender",
        "oif @ports goto refuse_sender",
        "accept",
    )
    assert with_names["prerouting"][-2:] == ("meta ibrname @bridges goto refuse_sender", "accept")
    assert with_names["output"][0] == "meta obrname @bridges goto from_host"
    without = chains(BRIDGE, knows_bridge=False)
    assert without["forward"] == (passing, "goto refuse_sender")
    assert all("accept" not in without[chain] for chain in ("input", "output"))


@pytest.mark.parametrize("name", ["", "a b", 'a"', "0123456789abcdef", "*", "7", "-x", "a\nb", "é"])
def test_a_bridges_name_that_could_mean_more_is_refused(name):
    with pytest.raises(InvalidError):
        content_of(Target(frozenset({name})))


@pytest.mark.parametrize("pair", [(0, 1), (1, 0), (1, 65536), (-1, 2)])
def test_a_pair_that_is_none_is_refused(pair):
    with pytest.raises(InvalidError):
        content_of(Target(pairs=frozenset({pair})))


class OldKernel:
    """Refuses what contains a word, as a kernel does that lacks it."""

    def __init__(self, *lacking):
        self.lacking = lacking

    def run(self, commands):
        if any(word in command for word in self.lacking for command in commands):
            raise TransactionError("Operation not supported")

    def close(self):
        pass


@pytest.mark.parametrize(
    ("lacking", "named"),
    [
        ("bridge", "CONFIG_NF_TABLES_BRIDGE"),
        ("inet", "CONFIG_NF_TABLES_INET"),
        ("arp", "CONFIG_NF_TABLES_ARP"),
        ("map @m", "maps"),
        ("@s accept", "concatenated sets"),
        ("add @d", "sets filled by rules"),
        ("log group", "nflog"),
    ],
)
def test_a_kernel_that_cannot_enforce_is_refused_and_told_why(lacking, named):
    with pytest.raises(NetError, match=named):
        probe(OldKernel(lacking))


def test_a_kernel_without_bridge_names_governs_every_bridge():
    assert probe(OldKernel()).knows_bridge
    assert not probe(OldKernel("ibrname")).knows_bridge


def test_without_the_library_the_program_does_it_and_without_either_it_is_refused(monkeypatch):
    monkeypatch.setattr(libnftables, "_LIBRARY", "libnftables-is-not-here.so")
    with pytest.raises(UnavailableError, match="libnftables1"):
        Libnftables()
    assert isinstance(open_transactor(), NftCommand)
    monkeypatch.setattr(nft_command, "_PATHS", "/nowhere")
    with pytest.raises(UnavailableError, match="install nftables"):
        open_transactor()


POLICY = """
policy: test
version: "1.0"
ste_types: [system, red, blue]
bootstrap: dom0
labels:
  dom0: {ste: [system, red, blue]}
  red: {ste: [red], colours: [gold]}
  plain: {ste: [red]}
  blue: {ste: [blue]}
resources:
  office: {ste: [red], colour: gold, match: {class: uplink, bridge: xenbr0, port: eth0}}
  lab: {ste: [blue], match: {class: uplink, port: eth1}}
  disk: {ste: [blue], match: {class: vbd, params: "/dev/x"}}
classes:
  vif: {protocol: vif, default: ste}
channels:
  - {deny: {class: vif, between: [plain, plain]}}
"""


def rules(text=POLICY):
    return PolicyRules(load_policy(text.encode(), "test.yaml"))


def test_a_policys_uplinks_are_ports_with_a_label_of_their_own():
    made = rules()
    assert made.names == ("dom0", "red", "plain", "blue", "uplink:office", "uplink:lab")
    assert made.uplinks == (
        Uplink("uplink:office", "eth0", "xenbr0"),
        Uplink("uplink:lab", "eth1", None),
    )


def test_a_resource_without_a_port_is_no_uplink():
    made = rules(POLICY.replace("{class: uplink, port: eth1}", "{class: uplink, bridge: br7}"))
    assert made.uplinks == (Uplink("uplink:office", "eth0", "xenbr0"),)
    assert "uplink:lab" not in made.names


def test_an_uplink_is_for_labels_with_its_type_and_all_its_colours():
    made = rules()
    assert made.frames("red", "uplink:office")
    assert made.frames("uplink:office", "red")
    assert not made.frames("plain", "uplink:office")
    assert not made.frames("blue", "uplink:office")
    assert made.frames("dom0", "uplink:lab")
    assert not made.frames("uplink:office", "uplink:office")
    assert not made.frames("uplink:office", "uplink:lab")
    assert not made.frames("stranger", "uplink:lab")
    assert not made.frames("red", "uplink:lab")
    assert not made.frames("plain", "uplink:lab")
    assert not made.frames("red", "uplink:nowhere")


def test_labels_follow_the_policys_frames():
    made = rules()
    assert made.frames("red", "plain")
    assert made.frames("red", "red")
    assert not made.frames("plain", "plain")
    assert not made.frames("red", "blue")


def test_labels_are_alike_only_where_nothing_tells_them_apart():
    text = POLICY.replace(
        "  blue: {ste: [blue]}",
        "  blue: {ste: [blue]}\n  gilt: {ste: [red], colours: [gold]}\n  navy: {ste: [blue]}\n"
        "  bare: {ste: [red]}",
    )
    made = rules(text)
    assert made.alike("blue") == made.alike("navy")
    assert made.alike("red") == made.alike("gilt")
    assert made.alike("red") != made.alike("bare")  # by the colour of an uplink alone
    assert made.alike("bare") != made.alike("plain")  # a rule names plain
    assert made.alike("red") != made.alike("blue")
    assert made.alike("uplink:lab") != made.alike("uplink:office")
    for a in made.names:
        for b in made.names:
            if made.alike(a) == made.alike(b):
                reached = [[made.frames(it, c) for c in made.names] for it in (a, b)]
                assert reached[0] == reached[1]


def test_rules_of_the_class_uplink_govern_uplinks():
    more = POLICY.replace(
        "channels:", "  uplink: {protocol: none, default: ste}\nchannels:"
    ).replace(
        "between: [plain, plain]}}",
        "between: [plain, plain]}}\n  - {deny: {class: uplink, frontend: blue}}",
    )
    made = rules(more)
    assert not made.frames("blue", "uplink:lab")
    assert made.frames("dom0", "uplink:lab")


def element(key, *more):
    return netlink.attribute(1, netlink.attribute(1, netlink.attribute(1, key)) + b"".join(more))


def message(*elements):
    return b"\7\0\0\0" + netlink.attribute(3, b"".join(elements))


KEYS = st.sampled_from((4, 8, 16)).flatmap(lambda n: st.binary(min_size=n, max_size=n))
MORE = st.sampled_from(((), (netlink.attribute(2, netlink.attribute(1, b"data")),)))


@given(st.lists(st.tuples(KEYS, MORE), max_size=20))
def test_read_in_bulk_or_one_by_one_a_set_is_the_same(elements):
    payload = message(*(element(key, *more) for key, more in elements))
    decoded = [(key, data) for key, data, _ in readback._decode(payload)]
    assert [key for key, _ in decoded] == [key for key, _ in elements]
    quick = readback._plain_keys(payload)
    if quick is not None:
        assert [(key, b"") for key in quick] == decoded
    same = len({len(key) for key, _ in elements}) == 1
    plain = not any(more for _, more in elements)
    assert (quick is not None) == (same and plain)


@given(st.binary(max_size=64))
def test_what_is_no_plain_element_is_not_read_in_bulk(tail):
    good = element(bytes(8))
    payload = b"\7\0\0\0" + netlink.attribute(3, good + tail)
    quick = readback._plain_keys(payload)
    assert quick is None or len(quick) * len(good) == len(good + tail)
    if quick is not None:
        assert quick == [key for key, _, _ in readback._decode(payload)]
