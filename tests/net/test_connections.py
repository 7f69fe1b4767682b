"""Connections of filtered ports (`ct.state`): what answers passes, and nothing else does."""

from __future__ import annotations

import struct

import pytest
from connection_bed import BOTH, OUTWARD, SIX, back, handshake, noted, out
from conversation import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    Ends,
    echo_header,
    framed,
    packet,
    tcp_header,
    udp_header,
)
from filter_rig import FilterRig

pytestmark = pytest.mark.root


@pytest.fixture
def bed(labelled):
    made = FilterRig(labelled())
    made.hold("p", texts=OUTWARD)
    return made


# what answers, and what does not


@BOTH
def test_a_connection_that_the_guest_opens_goes_both_ways_and_others_do_not_come_in(bed, ends):
    there = ends.turned()
    assert back(bed, there.tcp(SYN), there.tcp(SYN | ACK), there.tcp(ACK)) == [False] * 3
    assert handshake(bed, ends) == [True] * 5
    # Not even from the same end: a SYN alone is never an answer.
    assert back(bed, there.tcp(SYN), there.tcp(FIN | ACK)) == [False, True]


@BOTH
def test_datagrams_and_pings_are_answered_and_others_do_not_come_in(bed, ends):
    there = ends.turned()
    assert back(bed, there.udp(), there.pong(), there.ping()) == [False] * 3
    assert out(bed, ends.udp(), ends.ping()) == [True, True]
    assert back(bed, there.udp(), there.pong()) == [True, True]
    assert back(bed, there.ping(), there.pong(number=8)) == [False, False]


@BOTH
def test_an_answer_has_all_of_its_ends(bed, ends):
    """Another address, port or protocol is not that connection."""
    out(bed, ends.tcp(SYN), ends.udp(), ends.ping())
    other = "fd00::9" if ends.six else "10.0.0.9"
    strangers = [
        Ends(other, ends.here, (80, 1000)),
        Ends(ends.there, other, (80, 1000)),
        Ends(ends.there, ends.here, (81, 1000)),
        Ends(ends.there, ends.here, (80, 1001)),
        Ends(ends.there, ends.here, (1000, 80)),
        Ends(ends.here, ends.there, (1000, 80)),
    ]
    for it in strangers:
        assert back(bed, it.tcp(SYN | ACK), it.udp()) == [False, False], vars(it)
    for it in (strangers[0], strangers[1], strangers[5]):
        assert back(bed, it.pong()) == [False], vars(it)


@BOTH
def test_a_guest_that_is_only_asked_may_only_answer(bed, ends):
    rules = "  - {accept: to-guest, match: {ct.state: [new, established]}}\n"
    rules += "  - {accept: from-guest, match: {ct.state: [established, related]}}\n"
    text = f"profile: q\ndescription: x\ndefault: drop\nrules:\n{rules}"
    bed.hold("q", texts={"q": text.encode()})
    there = ends.turned()
    frames = [ends.tcp(SYN), ends.tcp(SYN | ACK), ends.tcp(ACK), ends.udp(), ends.ping()]
    assert out(bed, *frames, ends.pong()) == [False] * 6
    asked = [there.tcp(SYN), there.udp(), there.ping()]
    assert back(bed, *asked) == [True] * 3
    assert out(bed, ends.tcp(SYN | ACK), ends.udp(), ends.pong()) == [True] * 3
    assert out(bed, *(there.error(it) for it in asked)) == [True] * 3
    assert out(bed, ends.tcp(SYN), ends.ping(), ends.pong(number=9)) == [False] * 3


def test_what_is_known_of_tcp_opens_nothing_for_udp(bed):
    ends = Ends()
    out(bed, ends.tcp(SYN))
    assert back(bed, ends.turned().udp()) == [False]


@BOTH
def test_a_half_open_connection_may_be_refused_by_the_other_end(bed, ends):
    out(bed, ends.tcp(SYN))
    there = ends.turned()
    assert back(bed, there.tcp(RST | ACK)) == [True]
    assert back(bed, there.tcp(SYN)) == [False]


def unusual(ends):
    """IPv4 with options, IPv6 with an extension header."""
    if not ends.six:
        how = {"options": b"\1" * 4}
        return [ends.udp(**how), ends.tcp(SYN, **how), ends.ping(**how), ends.pong(**how)]
    here, there, hop = ends.here, ends.there, b"\0\0\0\0\0\0\0"
    uppers = {17: udp_header(*ends.ports), 6: tcp_header(*ends.ports, SYN), 58: echo_header(128, 7)}
    return [
        framed(*packet(here, there, 0, upper, extension=bytes([protocol]) + hop))
        for protocol, upper in uppers.items()
    ]


STATES = {
    "new": lambda it: [it.tcp(SYN), it.tcp(ACK), it.tcp(ACK | PSH), it.udp(), it.ping()],
    "invalid": lambda it: [
        it.tcp(SYN | ACK), it.tcp(RST), it.tcp(FIN | ACK), it.tcp(0), it.tcp(SYN | FIN), it.pong(),
        it.error(it.udp()), it.error(b""),
    ],
    "untracked": lambda it: [
        framed(b"\x08\x06", bytes(46)), framed(b"\x88\xb5", b"x" * 46),
        framed(*it.packet(47, bytes(40))), framed(*it.packet(132, bytes(40))), *unusual(it),
    ],
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("direction", ["from-guest", "to-guest"])
def test_each_state_is_told_without_a_connection(bed, ends, state, direction):
    frames = {it: STATES[it](ends) for it in STATES}
    for verdict, other in (("accept", "drop"), ("drop", "accept")):
        rule = f"  - {{{verdict}: both, match: {{ct.state: {state}}}}}\n"
        text = f"profile: q\ndescription: x\ndefault: {other}\nrules:\n{rule}"
        for it, listed in frames.items():
            bed.rig.enforcer.remove(bed.guest.index)
            bed.hold("q", texts={"q": text.encode()})
            wanted = [(it == state) == (verdict == "accept")] * len(listed)
            assert bed.passes(direction, listed) == wanted, (verdict, it)


# errors


@BOTH
def test_an_error_about_the_guests_own_packet_is_related_from_whomever(bed, ends):
    sent = [ends.tcp(SYN), ends.udp(), ends.ping()]
    router = "fd00::fe" if ends.six else "10.0.0.254"
    for it in sent:
        assert back(bed, ends.error(it, source=router)) == [False]
    out(bed, *sent)
    for it in sent:
        assert back(bed, ends.error(it, source=router), ends.error(it)) == [True, True]


@BOTH
def test_an_error_about_anything_else_is_not(bed, ends):
    sent, there = [ends.tcp(SYN), ends.udp(), ends.ping()], ends.turned()
    out(bed, *sent)
    other = Ends(ends.here, ends.there, (1001, 80))
    strange = [
        other.tcp(SYN), other.udp(), ends.ping(number=8), ends.pong(), there.udp(), there.ping(),
        ends.udp(extension=b"\x11\0\0\0\0\0\0\0") if ends.six else ends.udp(options=b"\1" * 4),
    ]  # fmt: skip
    for it in strange:
        assert back(bed, ends.error(it)) == [False], it.hex()
    short = 40 if ends.six else 20
    for it in sent:
        assert back(bed, ends.error(it, cut=short)) == [False]


def test_a_quoted_fragment_is_of_no_connection(bed):
    ends = Ends()
    out(bed, ends.udp())
    assert back(bed, ends.error(ends.udp(fragment=0x2000))) == [False]
    assert back(bed, ends.error(ends.udp(fragment=5))) == [False]
    assert back(bed, ends.error(ends.udp(fragment=0x4000))) == [True]


# what has no state


FRAGMENTS = [0x2000, 0x2005, 5]


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_fragments_are_untracked_and_open_nothing(bed, fragment):
    """First and later ones: neither passes as an answer, nor is answered."""
    ends = Ends()
    assert out(bed, ends.udp(fragment=fragment), ends.tcp(SYN, fragment=fragment)) == [True, True]
    assert noted(bed) == []
    assert back(bed, ends.turned().udp()) == [False]
    out(bed, ends.udp())
    assert back(bed, ends.turned().udp(fragment=fragment)) == [False]
    assert back(bed, ends.turned().udp()) == [True]


@pytest.mark.parametrize("place", [0, 1, 0x18, 0x19])
def test_fragments_of_ipv6_are_untracked_too(bed, place):
    ends = Ends(*SIX)
    header = struct.pack(">BBHI", 17, 0, place, 7)

    def fragment(it):
        return framed(*packet(it.here, it.there, 44, udp_header(*it.ports), extension=header))

    assert out(bed, fragment(ends)) == [True]
    assert noted(bed) == []
    out(bed, ends.udp())
    assert back(bed, fragment(ends.turned())) == [False]


def test_options_extension_headers_and_tags_have_no_state(bed):
    four, six = Ends(), Ends(*SIX)
    hop = b"\x11\0\0\0\0\0\0\0"

    def listed(it, other):
        return [
            it.udp(options=b"\1" * 4),
            framed(*packet(other.here, other.there, 0, udp_header(*other.ports), extension=hop)),
            *(
                framed(*it.packet(17, udp_header(*it.ports)), tag=tag)
                for tag in (b"\x81\0\0\5", b"\x88\xa8\0\5", b"\x88\xa8\0\5\x81\0\0\6")
            ),
        ]

    assert out(bed, *listed(four, six), *unusual(four), *unusual(six)) == [True] * 12
    assert noted(bed) == []
    out(bed, four.udp(), six.udp())
    assert back(bed, *listed(four.turned(), six.turned())) == [False] * 5


def test_what_a_profile_drops_is_not_noted(bed):
    """Of two profiles, each: an answer to what did not pass does not pass."""
    no = "profile: q\ndescription: x\ndefault: accept\nrules:\n"
    no += "  - {drop: from-guest, match: {udp.dport: 80}}\n"
    for names in (["p", "q"], ["q", "p"]):
        bed.hold(*names, texts={**OUTWARD, "q": no.encode()})
        ends = Ends()
        assert out(bed, ends.udp()) == [False]
        assert noted(bed) == []
        assert back(bed, ends.turned().udp()) == [False]
