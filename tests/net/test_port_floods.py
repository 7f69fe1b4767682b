"""Ports that come again and names that change hands while guests send as fast as they can."""

from __future__ import annotations

import pytest
from net_rig import Flood, markers

pytestmark = pytest.mark.root


def reborn(rig, guest):
    """The port is deleted, and another comes under its name at once, bridged and up."""
    rig.net.host.ip(f"link del {guest.port}")
    guest.socket.close()
    return rig.net.add(guest.port)[0]


def test_under_a_flood_a_port_that_comes_again_under_its_name_hears_and_tells_nothing(bed):
    rig, one, two, observer = bed
    with Flood(one) as flood:
        for round_ in range(20):
            rig.enforcer.put(rig.port(two, 1))
            flood.more(50)
            assert markers(two), "while it has a class it hears"
            two = reborn(rig, two)
            list(observer.received())
            with Flood(two) as forbidden:
                forbidden.more(50)
                flood.more(50)
            assert markers(two) == []
            heard = {sender for sender, _, _ in markers(observer)}
            assert heard <= {one.number}, f"round {round_}"


def test_under_a_flood_names_that_change_hands_give_nothing(bed):
    rig, one, two, observer = bed
    (thief,) = rig.net.add("thief")
    swap = "link set {0} down", "link set {0} name {1}", "link set {1} up"
    with Flood(one, thief) as flood:
        for there, back in (("gone", "vif2.0"), ("vif2.0", "gone")) * 5:
            names = [("vif2.0", "gone"), ("thief", "vif2.0")]
            if there == "vif2.0":
                names = [("vif2.0", "thief"), ("gone", "vif2.0")]
            lines = [line.format(*pair) for pair in names for line in swap]
            rig.net.host.ip(*lines)
            rig.net.forwarding(*(name for _, name in names))
            list(observer.received())
            flood.more(100)
            assert markers(thief) == [], back
            assert {sender for sender, _, _ in markers(observer)} == {one.number}
            assert {sender for sender, _, _ in markers(two)} <= {one.number}
