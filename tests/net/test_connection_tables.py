"""What is known of connections: whose it is, how long, how much, and that it goes with its port."""

from __future__ import annotations

import json
import time

import msgspec
import pytest
from connection_bed import BOTH, OUTWARD, SIX, again, back, handshake, noted, out
from conversation import ACK, FIN, RST, SYN, Ends
from filter_rig import FilterRig, shipped

from broker.cli.main import main
from broker.net import report
from broker.net.elements import ElementWriter
from broker.net.filters import states
from broker.net.libnftables import TransactionError
from broker.net.model import NetError
from broker.net.readback import Readback
from broker.net.report import Report, ReportedPort
from broker.net.tables import BRIDGE

pytestmark = pytest.mark.root


@pytest.fixture
def bed(labelled):
    made = FilterRig(labelled())
    made.hold("p", texts=OUTWARD)
    return made


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


@BOTH
def test_an_end_or_an_answer_that_is_said_again_has_nothing_noted_anew(labelled, monkeypatch, ends):
    """Or whoever the guest talks with could have it spend what it may have noted."""
    monkeypatch.setattr(states, "FRESH", 600)
    bed = FilterRig(labelled())
    bed.hold("p", texts=OUTWARD)
    there = ends.turned()
    handshake(bed, ends)
    assert back(bed, there.tcp(SYN | ACK)) == [True]
    assert len(noted(bed, "fresh-from")) == 1
    back(bed, there.tcp(RST))
    assert noted(bed, "fresh-from") == []
    out(bed, ends.tcp(ACK))
    assert back(bed, there.tcp(RST), there.tcp(FIN | ACK), there.tcp(SYN | ACK)) == [True] * 3
    assert len(noted(bed, "fresh-from")) == 1


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


def test_net_show_counts_the_connections_of_each_port(bed, tmp_path, capsys):
    handshake(bed, Ends())
    out(bed, Ends(*SIX).udp())
    path, index = tmp_path / "net.json", bed.guest.index
    path.write_bytes(report.encode(Report((ReportedPort(bed.guest.port, index, "red", "br0"),))))
    with bed.rig.net.host.entered():
        assert main(["net", "show", "--report", str(path), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [it for it in lines if "kept" in it] == [
        {"index": index, "protocol": "tcp4", "sent": 1, "heard": 1, "kept": 1},
        {"index": index, "protocol": "udp6", "sent": 1, "heard": 0, "kept": 0},
    ]
    with bed.rig.net.host.entered():
        assert main(["net", "show", "--report", str(path)]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert ["vif1.0", "udp6", "1", "0", "0"] in [line.split() for line in listed]


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
