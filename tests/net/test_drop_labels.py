"""Whom refused packets are counted by: both ends' labels, dom0 and the unlabelled told apart."""

from __future__ import annotations

import contextlib
import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from net_rig import delivered, ethernet, frame_for, ipv4, run, teach

from broker.net.label_ids import DOM0, NOBODY, class_of, label_id
from broker.net.report import Report
from broker.net.show import drops

RED, PINK, BLUE = label_id("red"), label_id("pink"), label_id("blue")


def counted(rig):
    return {(d.sender, d.receiver): d.packets for d in drops(rig.enforcer._readback) if d.packets}


@given(st.text(max_size=20))
def test_a_labels_number_is_never_a_classs_nor_nobodys(name):
    number = label_id(name)
    assert 0 < number < 1 << 32
    assert class_of(number) is None
    assert number == label_id(name)


def test_a_number_that_would_be_a_classs_is_passed_over(monkeypatch):
    class Digest:
        def __init__(self, *_):
            pass

        def digest(self):
            return bytes.fromhex("58420007" + "00000000" + "58430007") + bytes(20)

    monkeypatch.setattr("broker.net.label_ids.hashlib.sha256", Digest)
    assert label_id("x") == 0x58430007


def test_a_report_names_both_ends():
    report = Report(classes={3: ("pink", "red")}, labels={RED: "red"}, bootstrap="system")
    assert report.end(NOBODY) is None
    assert report.end(DOM0) == "system"
    assert report.end(DOM0 + 3) == "pink,red"
    assert report.end(DOM0 + 4) == "class 4"
    assert report.end(RED) == "red"
    assert report.end(BLUE) == f"label {BLUE:08x}"
    assert Report().end(DOM0) == "dom0"


@pytest.mark.root
def test_two_labels_of_one_class_are_counted_apart(labelled):
    rig = labelled()
    red, pink, blue, bare = rig.net.add("vif1.0", "vif2.0", "vif3.0", "vif4.0")
    (observer,) = rig.net.add("observer")
    ports = [
        rig.port(red, 1, label=RED),
        rig.port(pink, 1, label=PINK),
        rig.port(blue, 2, label=BLUE),
        rig.port(observer, 9),
    ]
    rig.enforcer.start(rig.target(ports, {(9, 9), (1, 9), (9, 1), (2, 9), (9, 2), (1, 1)}))
    teach([red, pink, blue, observer])
    marks = [(g, frame_for("ipv4", g, observer)) for g in (red, pink, blue)]
    delivered([red], observer, marks)
    before = counted(rig)
    for guest, times in ((red, 3), (pink, 5)):
        for _ in range(times):
            guest.send(frame_for("ipv4", guest, blue))
    blue.send(frame_for("ipv4", blue, pink))
    bare.send(frame_for("ipv4", bare, red))
    delivered([red], observer, marks)
    after = counted(rig)

    def more(*ends):
        return after.get(ends, 0) - before.get(ends, 0)

    assert more(RED, BLUE) == 3
    assert more(PINK, BLUE) == 5
    assert more(BLUE, PINK) == 1
    assert more(NOBODY, NOBODY) == 1  # refused before it is known whom it is for


@pytest.mark.root
def test_dom0_is_told_from_what_has_no_label(labelled):
    rig = labelled()
    (red,) = rig.net.add("vif1.0")
    (observer,) = rig.net.add("observer")
    rig.net.host.ip(
        "addr add 10.0.0.100/24 dev br0", f"neigh add 10.0.0.1 lladdr {red.mac} dev br0"
    )
    ports = [rig.port(red, 1, label=RED), rig.port(observer, 9)]
    rig.enforcer.start(rig.target(ports, {(9, 9), (1, 9), (9, 1)}))
    teach([red])
    with rig.net.host.entered():
        dom0 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with dom0, contextlib.suppress(OSError):
        dom0.sendto(b"x", ("10.0.0.1", 9))
    shown = run(["ip", "-n", rig.net.host.name, "-j", "link", "show", "br0"])
    own = json.loads(shown)[0]["address"]
    data = ipv4(1, 100, b"x")
    red.send(ethernet(own, red.mac, 0x0800, data))
    delivered([red], observer, [(red, frame_for("ipv4", red, observer))])
    found = counted(rig)
    assert found[DOM0, RED] >= 1
    assert found[RED, DOM0] >= 1
