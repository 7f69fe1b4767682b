"""The short ways of usual frames: no frame is decided otherwise for them than without them."""

from __future__ import annotations

import random
import struct

import pytest
from filter_frames import GUEST, VARIABLES, Maker
from filter_rig import FilterRig, shipped
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from labelled_rig import Labelled
from net_rig import raw
from test_filter_guards import FRAMES as GUARDED
from test_filter_guards import TALK
from test_filters_in_kernel import DIRECTIONS, SHIPPED, differences

from broker.net.filters import programs
from broker.net.filters.kinds import KINDS, SHORT_CUTS
from broker.net.tables import BRIDGE

pytestmark = pytest.mark.root

ALL = {name: values for name, (_, values) in VARIABLES.items()}
OWN = ("no-mac-spoofing", "no-ip-spoofing")
"""What these look up is what the short way knows."""
PLAIN = b"profile: plain\ndescription: x\ndefault: accept\nrules: []\n"


def cut_udp(size):
    """IPv4 whose UDP header has so many bytes."""
    packet = struct.pack(">BBHHHBBH", 0x45, 0, 20 + size, 7, 0, 64, 17, 0)
    packet += bytes([10, 0, 0, 1, 10, 0, 0, 2]) + bytes([4, 0, 5, 0, 0, 8, 0, 0])[:size]
    return raw("02:99:00:00:00:07") + raw(GUEST) + b"\x08\x00" + packet


RARE = {"tag-bad", "ip6-nd-short", "ip6-redirect-short"}
"""A tag that is cut short does not get as far as the bridge; others are not among the frames."""
FRAMES = [*GUARDED, *TALK[:200], *map(cut_udp, range(8))]


@pytest.fixture(scope="module")
def rig():
    made = FilterRig(Labelled())
    yield made
    made.rig.close()


def dropping(monkeypatch, kind):
    """Have all frames of this kind dropped, and no others, whatever profiles say."""
    targets = {**dict.fromkeys(KINDS, "accept"), kind: "drop"}
    monkeypatch.setattr(programs.Programs, "_targets", lambda *_, **__: dict(targets))


def passed(rig, profiles):
    """Which of the frames pass, with chains that are made anew."""
    rig.hold()
    variables = {it: SHIPPED[it] for it in ("MAC", "IP", "IPV6", "LINK_LOCAL")}
    rig.hold(*profiles, texts=shipped() | {"plain.yaml": PLAIN}, **variables)
    return rig.passes("from-guest", FRAMES)


@pytest.mark.parametrize("profiles", [("plain",), OWN], ids=["plain", "own"])
def test_no_kind_of_frames_is_led_elsewhere_by_a_short_cut(rig, monkeypatch, profiles):
    for kind in KINDS:
        dropping(monkeypatch, kind)
        with_them = passed(rig, profiles)
        monkeypatch.setattr(programs, "SHORT_CUTS", ())
        monkeypatch.setattr(programs, "quick_way", lambda *_: None)
        without = passed(rig, profiles)
        assert with_them == without, kind
        assert not all(without) or kind in RARE, f"no frame is of kind {kind}"
        monkeypatch.undo()


@pytest.mark.parametrize("profiles", [("plain",), OWN], ids=["plain", "own"])
@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ("meta l4proto 17 ", "ip4-tcp"),
        ("@nh,51,13 0 ", "ip4-udp-bad"),
        ("@th,0,16 & 0xfff8 != 0x40 ", "ip4-dhcp"),
        ("@th,16,16 & 0xfff8 != 0x40 ", "ip4-dhcp"),
        (" @th,56,8 & 0x0 == 0x0", "ip4-udp-bad"),
    ],
)
def test_every_part_of_the_udp_short_cut_is_needed(rig, monkeypatch, part, kind, profiles):
    dropping(monkeypatch, kind)
    rightly = passed(rig, profiles)
    (condition, kinds), *others = SHORT_CUTS
    assert part in condition
    mutant = ((condition.replace(part, ""), kinds), *others)
    monkeypatch.setattr(programs, "SHORT_CUTS", mutant)
    assert passed(rig, profiles) != rightly


@pytest.mark.parametrize("kind", ["tag", "ip4-udp", "ip6-bad", "ip6-tcp", "ip6-icmp"])
def test_a_kind_that_a_short_cut_forgets_is_led_wrongly(rig, monkeypatch, kind):
    dropping(monkeypatch, kind)
    rightly = passed(rig, ("plain",))
    forgetful = tuple((condition, kinds - {kind}) for condition, kinds in SHORT_CUTS)
    monkeypatch.setattr(programs, "SHORT_CUTS", forgetful)
    assert passed(rig, ("plain",)) != rightly


def test_usual_ipv4_is_asked_for_by_one_look_up(rig):
    passed(rig, OWN)
    chains = rig.rig.enforcer._filters.chains
    (root,) = (lines for name, lines in chains.items() if name.endswith("from/type"))
    assert root[0].text.startswith("iif . @ll,48,64 . @nh,96,32 @q/MAC.i64/IP.i32 ")
    (held,) = rig.rig.enforcer._readback.elements(BRIDGE, "q/MAC.i64/IP.i32")
    assert held[4:] == bytes.fromhex("02000000000108000a000001")
    short = [line.text for name, lines in chains.items() if "from.MAC.IP" in name for line in lines]
    assert short
    assert not any("@v/MAC.i48" in text or "@v/IP.i32" in text for text in short)


@pytest.mark.parametrize("gone", ["MAC", "IP"])
def test_with_other_addresses_the_short_way_is_closed_at_once(rig, gone):
    variables = {it: SHIPPED[it] for it in ("MAC", "IP", "IPV6", "LINK_LOCAL")}
    other = {"MAC": ["02:00:00:00:00:44"], "IP": ["10.0.0.44"]}[gone]
    rig.hold(*OWN, **variables)
    frames = Maker(random.Random(4)).frames(1500)
    for given_now in (variables, {**variables, gone: other}, variables):
        rig.rig.enforcer.put(rig.port(rig.guest, OWN, **given_now))
        assert differences(rig, OWN, given_now, frames, "from-guest") == []


def test_a_port_with_very_many_addresses_goes_the_long_way(rig):
    addresses = [f"10.0.0.{it}" for it in range(1, 64)]
    stations = SHIPPED["MAC"] + ["02:00:00:00:00:02"]
    many = {"MAC": stations, "IP": addresses, "IPV6": ["fd00::1"], "LINK_LOCAL": ["fe80::1"]}
    rig.hold(*OWN, **many)
    assert rig.rig.enforcer._readback.elements(BRIDGE, "q/MAC.i64/IP.i32") == {}
    assert differences(rig, OWN, many, FRAMES, "from-guest") == []


@given(st.integers(0, 2**32 - 1))
@settings(
    max_examples=15, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
def test_beside_random_profiles_the_short_way_decides_as_the_evaluator_does(rig, seed):
    make = Maker(random.Random(seed))
    texts = shipped() | {"inner": make.profile("inner").encode()}
    texts["one"] = make.profile("one", ["inner"]).encode()
    variables = {"LINK_LOCAL": ["fe80::1"]} | ALL
    names = make.pick([[*OWN, "one"], ["one", *OWN], ["clean-traffic", "one"]])
    rig.hold(*names, texts=texts, **variables)
    frames = make.frames(120)
    for direction in DIRECTIONS:
        assert differences(rig, names, variables, frames, direction) == [], texts["one"]
    assert rig.rig.alarms == []
