"""Connections of filtered ports (`ct.state`): what answers passes, and nothing else does."""

from __future__ import annotations

import struct
import sys
import time

import msgspec
import pytest
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
from filter_rig import FilterRig, shipped

from broker.net.elements import ElementWriter
from broker.net.enforcer import PortEnforcer
from broker.net.filters import states
from broker.net.filters.states import is_state
from broker.net.libnftables import Libnftables, TransactionError
from broker.net.model import NetError
from broker.net.readback import Readback
from broker.net.tables import BRIDGE

pytestmark = pytest.mark.root

HEAD = "profile: {name}\ndescription: x\ndefault: {{from-guest: {out}, to-guest: drop}}\nrules:\n"
ANSWERS = "  - {accept: to-guest, match: {ct.state: [established, related]}}\n"
OUTWARD = {"p": (HEAD.format(name="p", out="accept") + ANSWERS).encode()}
"""The guest may send anything, and gets answers alone."""
SIX = ("fd00::1", "fd00::2")
BOTH = pytest.mark.parametrize("ends", [Ends(), Ends(*SIX)], ids=["ipv4", "ipv6"])


@pytest.fixture
def bed(labelled):
    made = FilterRig(labelled())
    made.hold("p", texts=OUTWARD)
    return made


def out(bed, *frames):
    return bed.passes("from-guest", list(frames))


def back(bed, *frames):
    return bed.passes("to-guest", list(frames))


def noted(bed, name="", index=None):
    """Keys that the kernel's sets of this name, or all, hold for the guest; and their seconds."""
    wanted = (bed.guest.index if index is None else index).to_bytes(4, sys.byteorder)
    with bed.rig.net.host.entered():
        readback = Readback()
    return [
        (it, key, seconds)
        for it in readback.names(BRIDGE)
        if is_state(it) and name in it
        for key, seconds in readback.ends(BRIDGE, it).items()
        if key[:4] == wanted
    ]


def again(bed):
    """Another enforcer, as after a helper's end."""
    with bed.rig.net.host.entered():
        rig = bed.rig
        rig.enforcer = PortEnforcer(Libnftables(), Readback(), rig.abilities, rig.alarms.append)
    return rig.enforcer


def handshake(bed, ends):
    """Opened from the guest: whether each of its frames passed."""
    there = ends.turned()
    return [
        *out(bed, ends.tcp(SYN)),
        *back(bed, there.tcp(SYN | ACK)),
        *out(bed, ends.tcp(ACK), ends.tcp(ACK | PSH)),
        *back(bed, there.tcp(ACK | PSH)),
    ]


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


# whose connections they are


def test_nobody_else_makes_a_connection_of_the_guests(bed):
    """Another guest sends what the guest would, with all its addresses: its own table gets it."""
    ends = Ends()
    bed.rig.enforcer.put(bed.port(bed.peer, ["p"]))
    forged = [ends.tcp(SYN), ends.udp(), ends.ping()]
    for it in forged:
        bed.peer.send(it)
    bed.heard()
    assert len(noted(bed, index=bed.peer.index)) == 6, "each, and that it is fresh"
    assert noted(bed) == []
    bed.rig.enforcer.put(bed.port(bed.peer))
    there = ends.turned()
    assert back(bed, there.tcp(SYN | ACK), there.udp(), there.pong()) == [False] * 3


def test_the_same_addresses_on_two_bridges_are_not_one_connection(labelled):
    bed = FilterRig(labelled("br0", "br1"))
    bed.hold("p", texts=OUTWARD)
    far, asking = bed.rig.net.add("vif7.0", "vif8.0", bridge="br1")
    for guest, profiles in ((far, ["p"]), (asking, None)):
        port = msgspec.structs.replace(bed.port(guest, profiles), bridge="br1")
        bed.rig.enforcer.put(port)
    ends = Ends()
    assert out(bed, ends.udp(), ends.tcp(SYN)) == [True, True]
    there = ends.turned()
    answers = [there.udp(), there.tcp(SYN | ACK)]
    list(far.received())
    for it in answers:
        asking.send(it)
    far.send(ends.udp())  # and then something that does pass is sent the other way
    asking_hears = time.monotonic() + 20
    while not any(it for it in asking.received()):
        assert time.monotonic() < asking_hears
    for it in answers:
        asking.send(it)
    first, end = [], time.monotonic() + 20
    while not first:
        first += [it for it in far.received() if it in answers]
        assert time.monotonic() < end
    # The datagram came once it was asked for on this bridge, and TCP's answer never did.
    assert answers[1] not in first
    assert back(bed, *answers) == [True, True]


def test_a_connection_passes_no_label(bed):
    """What the guest's filter lets answer, another label's port still may not send."""
    ends = Ends()
    assert out(bed, ends.udp()) == [True]
    assert back(bed, ends.turned().udp()) == [True]
    enforcer = bed.rig.enforcer
    target = enforcer.target
    enforcer.put(msgspec.structs.replace(target.ports[bed.peer.index], number=2))
    pairs = frozenset({(1, 1), (2, 2)})
    enforcer.update(msgspec.structs.replace(enforcer.target, pairs=pairs))
    bed.peer.send(ends.turned().udp())
    answer = ends.turned().udp()
    bed.peer.send(answer)
    bed.observer.send(last := ends.turned().udp())
    end, heard = time.monotonic() + 20, []
    while last not in heard:
        heard += bed.guest.received()
        assert time.monotonic() < end
    assert answer not in heard


# how long


def seconds(bed, name):
    return [round(it[2]) for it in noted(bed, name)]


@BOTH
def test_an_open_connection_is_remembered_long_and_a_closed_one_is_not(bed, ends):
    there = ends.turned()
    out(bed, ends.tcp(SYN))
    assert all(it <= states.SHORT for it in seconds(bed, "tcp"))
    assert handshake(bed, ends)[1:] == [True] * 4
    listed = seconds(bed, "/from.tcp") + seconds(bed, "/to.tcp") + seconds(bed, "kept.tcp")
    assert len(listed) == 3
    assert all(it > states.FRESH_LONG for it in listed)
    out(bed, ends.tcp(FIN | ACK))
    back(bed, there.tcp(FIN | ACK))
    out(bed, ends.tcp(ACK))
    assert seconds(bed, "kept.tcp") == []
    assert all(it <= states.SHORT for it in seconds(bed, "tcp"))


def test_a_reset_ends_it_for_both_directions(bed):
    ends = Ends()
    handshake(bed, ends)
    back(bed, ends.turned().tcp(RST))
    assert all(it <= states.SHORT for it in seconds(bed, "tcp"))


def test_frames_that_come_are_not_what_keeps_a_way_in_open(bed):
    """Only what the guest sends does."""
    ends = Ends()
    out(bed, ends.udp())
    (before,) = noted(bed, "s/from.udp4")
    end = time.monotonic() + 20
    while not noted(bed, "s/from.udp4")[0][2] < before[2] - 0.2:
        assert time.monotonic() < end
        assert back(bed, ends.turned().udp()) == [True]


def test_what_is_not_answered_in_time_is_forgotten(labelled, monkeypatch):
    monkeypatch.setattr(states, "SHORT", 1)
    bed = FilterRig(labelled())
    bed.hold("p", texts=OUTWARD)
    ends = Ends()
    out(bed, ends.udp())
    end = time.monotonic() + 20
    while back(bed, ends.turned().udp()) == [True]:
        assert time.monotonic() < end
    assert noted(bed, "s/from") == []


# floods: closed, never open


def test_more_new_connections_than_allowed_are_not_noted_and_not_answered(labelled, monkeypatch):
    monkeypatch.setitem(states.RATES, "new", "1/hour burst 10 packets")
    bed = FilterRig(labelled())
    bed.hold("p", texts=OUTWARD)
    listed = [Ends(ports=(2000 + n, 80)) for n in range(40)]
    assert out(bed, *(it.udp() for it in listed)) == [True] * 40
    heard = back(bed, *(it.turned().udp() for it in listed))
    assert heard == [True] * 10 + [False] * 30
    # Those that are known are so still.
    assert out(bed, listed[0].udp()) == [True]
    assert back(bed, listed[0].turned().udp()) == [True]


def test_nothing_is_prolonged_without_being_counted(labelled, monkeypatch):
    """Or a guest could keep any number of entries alive."""
    monkeypatch.setattr(states, "FRESH", 1)
    monkeypatch.setitem(states.RATES, "new", "1/hour burst 8 packets")
    monkeypatch.setitem(states.RATES, "known", "1/hour burst 3 packets")
    bed = FilterRig(labelled())
    bed.hold("p", texts=OUTWARD)
    listed = [Ends(ports=(2000 + n, 80)) for n in range(8)]
    out(bed, *(it.udp() for it in listed))
    assert len(noted(bed, "s/from.udp4")) == 8
    end = time.monotonic() + 20
    while noted(bed, "fresh-from"):
        assert time.monotonic() < end
    out(bed, *(it.udp() for it in listed))
    assert len(noted(bed, "fresh-from")) <= 3, "what was prolonged is fresh"


def test_another_port_may_open_connections_while_one_floods(labelled, monkeypatch):
    monkeypatch.setitem(states.RATES, "new", "1/hour burst 10 packets")
    bed = FilterRig(labelled())
    bed.hold("p", texts=OUTWARD)
    out(bed, *(Ends(ports=(2000 + n, 80)).udp() for n in range(40)))
    bed.rig.enforcer.put(bed.port(bed.peer, ["p"]))
    bed.peer.send(Ends().udp())
    bed.heard()
    assert len(noted(bed, "s/from.udp4", bed.peer.index)) == 1


def test_what_a_full_table_does_not_hold_is_not_answered(labelled, monkeypatch):
    monkeypatch.setattr(states, "MOST", dict.fromkeys(states.MOST, 8))
    bed = FilterRig(labelled())
    bed.hold("p", texts=OUTWARD)
    listed = [Ends(ports=(2000 + n, 80)) for n in range(30)]
    out(bed, *(it.udp() for it in listed))
    heard = back(bed, *(it.turned().udp() for it in listed))
    assert heard == [True] * 8 + [False] * 22
    assert bed.rig.enforcer.check()
    assert back(bed, *(it.turned().udp() for it in listed[:8])) == [True] * 8


def test_connections_beyond_those_kept_long_still_work(labelled, monkeypatch):
    monkeypatch.setitem(states.RATES, "kept", "1/hour burst 2 packets")
    bed = FilterRig(labelled())
    bed.hold("p", texts=OUTWARD)
    for n in range(4):
        assert handshake(bed, Ends(ports=(2000 + n, 80))) == [True] * 5
    assert len(seconds(bed, "kept.tcp")) == 2


# life cycle


def test_a_profiles_update_keeps_connections(bed):
    ends = Ends()
    handshake(bed, ends)
    more = OUTWARD["p"] + b"  - {drop: from-guest, match: {tcp.dport: 25}}\n"
    bed.hold("p", texts={"p": more})
    assert back(bed, ends.turned().tcp(ACK)) == [True]
    bed.hold("q", texts={"q": more.replace(b"profile: p", b"profile: q")})
    assert back(bed, ends.turned().tcp(ACK)) == [True]
    assert bed.rig.enforcer.check()


def test_another_enforcer_takes_connections_over(bed):
    ends = Ends()
    handshake(bed, ends)
    target = bed.rig.enforcer.target
    again(bed).start(target)
    assert back(bed, ends.turned().tcp(ACK)) == [True]
    assert bed.rig.enforcer.check()
    assert bed.rig.alarms == []


def test_after_flush_ruleset_connections_are_gone_and_nothing_is_open(bed):
    ends = Ends()
    handshake(bed, ends)
    bed.rig.net.host.nft("flush ruleset\n")
    assert not bed.rig.enforcer.check()
    assert back(bed, ends.turned().tcp(SYN | ACK)) == [False]
    # The guest's next frame has it known again.
    assert out(bed, ends.tcp(ACK)) == [True]
    assert back(bed, ends.turned().tcp(ACK)) == [True]


def test_a_ports_connections_go_with_it(bed):
    """Also if the very same port comes back."""
    ends = Ends()
    handshake(bed, ends)
    out(bed, ends.udp(), ends.ping())
    enforcer, port = bed.rig.enforcer, bed.port(bed.guest, ["p"])
    enforcer.remove(port.index)
    assert noted(bed) == []
    enforcer.put(port)
    there = ends.turned()
    assert back(bed, there.tcp(ACK), there.udp(), there.pong()) == [False] * 3


def test_a_target_without_a_port_has_its_connections_gone_and_keeps_others(bed):
    bed.rig.enforcer.put(bed.port(bed.peer, ["p"]))
    bed.peer.send(Ends().udp())
    out(bed, Ends().udp())
    target = bed.rig.enforcer.target
    left = {it: port for it, port in target.ports.items() if it != bed.guest.index}
    bed.rig.enforcer.update(msgspec.structs.replace(target, ports=left))
    assert noted(bed) == []
    assert len(noted(bed, "s/from.udp4", bed.peer.index)) == 1


def test_what_went_while_nobody_looked_is_forgotten_at_the_next_start(bed):
    out(bed, Ends().udp())
    target = bed.rig.enforcer.target
    left = {it: port for it, port in target.ports.items() if it != bed.guest.index}
    bed.rig.enforcer.put(bed.port(bed.peer, ["p"]))  # so that the sets are there still
    left[bed.peer.index] = bed.rig.enforcer.target.ports[bed.peer.index]
    again(bed).start(msgspec.structs.replace(target, ports=left))
    assert noted(bed) == []


def test_a_port_whose_connections_cannot_be_forgotten_is_closed_and_stays_so(bed, monkeypatch):
    ends = Ends()
    out(bed, ends.udp())
    enforcer, port = bed.rig.enforcer, bed.port(bed.guest, ["p"])

    def refused(*_):
        raise TransactionError("not now")

    with monkeypatch.context() as patched:
        patched.setattr(ElementWriter, "delete", refused)
        with pytest.raises(NetError, match="connections of closed ports are still known: not now"):
            enforcer.remove(port.index)
        assert out(bed, ends.udp()) == [False]
        with pytest.raises(NetError, match="are still known"):
            enforcer.put(port)
        assert out(bed, ends.udp()) == [False]
        assert back(bed, ends.turned().udp()) == [False]
    enforcer.put(port)
    assert back(bed, ends.turned().udp()) == [False]
    assert out(bed, ends.udp()) == [True]


def test_without_such_a_profile_there_is_nothing_of_it(bed):
    """Nor for ports beside one that has it: their verdict is what it was."""
    with bed.rig.net.host.entered():
        readback = Readback()

    def of_states():
        listed = readback.names(BRIDGE)
        return [it for it in listed if it.startswith(("s/", "k/", "m/new", "m/known", "m/kept"))]

    assert of_states()
    bed.hold("clean-traffic", "no-multicast", texts=shipped(), MAC=["02:00:00:00:00:01"])
    assert of_states() == []
    bed.hold()
    assert of_states() == []
