"""libvirt's nwfilters as profiles: what is written, what is refused and where."""

from __future__ import annotations

import pytest
from filter_frames_by_hand import MAC, OTHER, arp, ether, ipv4, tcp

from broker.filters.bind import bind
from broker.filters.evaluate import Asking, evaluate
from broker.filters.frame import Frame
from broker.filters.library import load_library
from broker.filters.nwfilter import convert
from broker.text.problems import ProblemsError

NO_MAC_SPOOFING = b"""\
<filter name='no-mac-spoofing' chain='mac' priority='-800'>
  <uuid>4ac6dc1b-3b3a-4fc4-b0a6-4bf2b3f5d0a9</uuid>
  <rule action='return' direction='out' priority='350'>
    <mac srcmacaddr='$MAC'/>
  </rule>
  <rule action='drop' direction='out' priority='500'>
    <mac/>
  </rule>
</filter>
"""
NO_ARP_IP_SPOOFING = b"""\
<filter name='no-arp-ip-spoofing' chain='arp-ip'>
  <rule action='return' direction='out' priority='400'>
    <arp arpsrcipaddr='$IP'/>
  </rule>
  <rule action='drop' direction='out' priority='1000'/>
</filter>
"""


def lines(body, attributes="name='f'"):
    text = f"<filter {attributes}>{body}</filter>"
    converted = convert(text.encode(), "f.xml")
    assert converted.left_out == ()
    return converted.text.splitlines()


def left_out(body, attributes="name='f'"):
    converted = convert(f"<filter {attributes}>\n{body}</filter>".encode(), "f.xml")
    return [str(it) for it in converted.left_out]


def verdict(text, frame, given, direction="from-guest"):
    found = load_library({"f.yaml": text.encode()})
    (name,) = found.profiles
    environment, _ = bind(found, [name], given)
    return evaluate(Asking(found, environment, direction, Frame(frame)), [name]).verdict


def test_libvirts_own_filters_do_here_what_they_do_there():
    text = convert(NO_MAC_SPOOFING, "f.xml").text
    assert verdict(text, ether(), {"MAC": [MAC]}) == "accept"
    assert verdict(text, ether(src=OTHER), {"MAC": [MAC]}) == "drop"
    assert verdict(text, ether(src=OTHER), {"MAC": [MAC]}, "to-guest") == "accept"
    text = convert(NO_ARP_IP_SPOOFING, "f.xml").text
    assert "IP: {type: ipv4, learn: dhcp}" in text
    given = {"IP": ["10.0.0.5"]}
    assert verdict(text, ether(arp(), 0x0806), given) == "accept"
    assert verdict(text, ether(arp(spa="10.0.0.6"), 0x0806), given) == "drop"
    assert verdict(text, ether(ipv4(tcp(), 6)), given) == "accept", "its chain is of ARP alone"


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("<ip srcipaddr='10.0.0.1' srcipmask='24'/>", 'ether.type: ipv4, ip.saddr: "10.0.0.0/24"'),
        ("<ip dstipaddr='224.0.0.0' dstipmask='240.0.0.0'/>", 'ip.daddr: "224.0.0.0/4"'),
        ("<tcp dstportstart='1' dstportend='9'/>", 'ip.protocol: 6, tcp.dport: "1-9"'),
        ("<udp-ipv6 srcipfrom='::1' srcipto='::9'/>", 'ip6.protocol: 17, ip6.saddr: "::1-::9"'),
        ("<icmpv6 type='134'/>", 'ip6.protocol: 58, icmpv6.type: "134"'),
        ("<igmp/>", "ip.protocol: 2"),
        ("<all-ipv6/>", "ether.type: ipv6"),
        ("<mac protocolid='0x806'/>", 'ether.type: "arp"'),
        ("<mac protocolid='arp' srcmacaddr='aa:00:00:00:00:00' srcmacmask='ff:00:00:00:00:00'/>",
         'ether.src: "aa:00:00:00:00:00/ff:00:00:00:00:00"'),
        ("<vlan vlanid='5' encap-protocol='0x0800'/>", 'vlan.id: "5", vlan.type: "ipv4"'),
        ("<arp hwtype='1' protocoltype='0x800' opcode='Request'/>", 'arp.op: "request"'),
        ("<rarp/>", "ether.type: rarp"),
        ("<tcp srcipaddr='$IP' srcmacaddr='$MAC'/>", "ip.saddr: $IP@0, ether.src: $MAC@0"),
        ("<tcp srcipaddr='$IP[@1]' dstportstart='$P[@2]'/>", "ip.saddr: $IP@1, tcp.dport: $P@2"),
        ("<tcp srcipaddr='$IP'/>", "ip.saddr: $IP}"),
    ],
)  # fmt: skip
def test_what_can_be_said_is_said(rule, wanted):
    text = "\n".join(lines(f"<rule action='drop' direction='inout'>{rule}</rule>"))
    assert wanted in text
    assert "drop: both" in text
    assert "priority: 500" in text


@pytest.mark.parametrize(
    ("rule", "asks", "answers"),
    [
        ("<tcp srcipaddr='10.0.0.1' dstportstart='22'/>",
         'ip.protocol: 6, ip.saddr: "10.0.0.1", tcp.dport: "22"',
         'ip.protocol: 6, ip.daddr: "10.0.0.1", tcp.sport: "22"'),
        ("<udp-ipv6 srcmacaddr='$MAC' dstipaddr='::1' srcportstart='53'/>",
         'ip6.protocol: 17, ether.src: $MAC, ip6.daddr: "::1", udp.sport: "53"',
         'ip6.protocol: 17, ether.dst: $MAC, ip6.saddr: "::1", udp.dport: "53"'),
        ("<icmp type='8' dstipaddr='10.0.0.1'/>",
         'ip.protocol: 1, icmp.type: "8", ip.daddr: "10.0.0.1"',
         'ip.protocol: 1, ip.saddr: "10.0.0.1"'),
    ],
)  # fmt: skip
def test_a_rule_whose_answers_pass_by_connection_state_becomes_two(rule, asks, answers):
    out = lines(f"<rule action='accept' direction='in' priority='9'>{rule}</rule>")
    assert out[-2:] == [
        f"  - {{accept: to-guest, match: {{{asks}, ct.state: [new, established]}}, priority: 9}}",
        f"  - {{accept: from-guest, match: {{{answers}, ct.state: established}}, priority: 9}}",
    ]


@pytest.mark.parametrize("rule", ["<sctp/>", "<all/>", "<igmp/>", "<esp-ipv6/>"])
def test_answers_of_protocols_without_connections_are_refused(rule):
    (refused,) = left_out(f"<rule action='accept' direction='in' priority='9'>{rule}</rule>")
    assert refused.startswith("f.xml:2:")
    assert "say statematch='false'" in refused
    (refused,) = left_out(f"<rule action='drop' direction='in'>{rule[:-2]} state='NEW'/></rule>")
    assert "only TCP, UDP and pings have any" in refused


def test_states_are_taken_as_they_are():
    rule = "<rule action='accept' direction='out'><tcp state='NEW,ESTABLISHED'/></rule>"
    match = "{ip.protocol: 6, ct.state: [new, established]}"
    assert lines(rule)[-1] == f"  - {{accept: from-guest, match: {match}, priority: 500}}"
    assert len(lines(rule)) == len(lines("")) + 2
    drop = lines("<rule action='drop' direction='inout'><icmp state='INVALID'/></rule>")[-1]
    assert "drop: both, match: {ip.protocol: 1, ct.state: invalid}" in drop


def test_a_rule_without_statematch_is_one():
    rule = "<tcp srcipaddr='10.0.0.1' dstportstart='22'/>"
    out = lines(f"<rule action='accept' direction='in' statematch='0'>{rule}</rule>")
    assert len(out) == len(lines("")) + 2  # `rules:`, and one
    assert "ct.state" not in out[-1]


def test_references_are_includes_before_the_rules():
    out = lines("<filterref filter='no-mac-spoofing'/><filterref filter='b' priority='3'/>")
    assert out[-2:] == [
        "  - {include: no-mac-spoofing, priority: -500}",
        "  - {include: b, priority: 3}",
    ]
    assert lines("<rule action='continue' direction='out'/>") == lines("")


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("<mac match='no' srcmacaddr='$MAC'/>", "match='no': accept what matches"),
        ("<stp/>", "protocol stp cannot be expressed"),
        ("<tcp flags='SYN/ALL'/>", "flags cannot be expressed"),
        ("<tcp state='OLD'/>", "state: 'OLD' is none of libvirt's"),
        ("<arp gratuitous='true'/>", "gratuitous cannot be expressed"),
        ("<arp hwtype='6'/>", "hwtype cannot be expressed"),
        ("<ip srcipmask='24'/>", "srcipmask without srcipaddr"),
        ("<ip srcipaddr='$IP' srcipmask='24'/>", "$IP cannot stand here"),
        ("<ip srcipaddr='$IP[0]'/>", "'$IP[0]' is no variable that can be used"),
        ("<icmp type='$T'/>", "$T cannot stand here"),
        ("<ip srcipaddr='a' srcipmask='b'/>", "'a/b' is no network"),
        ("<ip srcipaddr='10.0.0.1 or so'/>", "cannot be expressed"),
        ("<tcp/><udp/>", "a rule with two protocols"),
        (("<ip srcipaddr='$MAC'/></rule><rule action='drop' direction='in'>"
         "<mac srcmacaddr='$MAC'/>"), "variable MAC is ipv4 and mac"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused_at_its_place(rule, wanted):
    (said,) = left_out(f"<rule action='drop' direction='in'>{rule}</rule>")
    assert said.startswith("f.xml:2:")
    assert wanted in said


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("<rule action='queue' direction='in'/>", "an action and a direction of libvirt's"),
        ("<rule action='drop' direction='up'/>", "an action and a direction of libvirt's"),
        ("<rule action='drop' direction='in' priority='x'/>", "'x' is no priority"),
        ("<filterref filter='A b'/>", "'A b' cannot name a profile"),
        ("<filterref filter='a'><parameter name='X' value='y'/></filterref>", "give them where"),
        ("<other/>", "element other is not known"),
    ],
)
def test_other_parts_are_refused_at_their_place(body, wanted):
    (said,) = left_out(body)
    assert wanted in said


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"<network name='a'/>", "a libvirt filter's root is 'filter'"),
        (b"<filter/>", "'' cannot name a profile"),
        (b"<filter name='a' chain='stp-x'/>", "chain 'stp-x'"),
        (b"<!DOCTYPE filter [<!ENTITY a 'b'>]><filter name='a'/>", "document type declaration"),
        (b"<filter name='a' xmlns='http://x'/>", "libvirt's filters have none"),
        (b"<filter", "not XML"),
        (
            (
                b"<filter name='a'><rule action='drop' direction='in'><tcp dstportstart='99999'/>"
                b"</rule></filter>"
            ),
            "f.xml as a profile:5:",
        ),
    ],
)
def test_what_is_no_filter_is_refused(data, wanted):
    with pytest.raises(ProblemsError) as caught:
        convert(data, "f.xml")
    assert wanted in str(caught.value)
