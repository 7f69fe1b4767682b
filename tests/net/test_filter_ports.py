"""Filters come and go with their ports, all of them; updates lose and leak nothing."""

from __future__ import annotations

import threading
import time

import msgspec
import pytest
from filter_rig import FilterRig
from net_rig import frame_for

from broker.net.enforcer import PortEnforcer
from broker.net.libnftables import Libnftables
from broker.net.model import InvalidError, NetError, Port, PortFilter
from broker.net.readback import Readback
from broker.net.ruleset import is_chain, is_filters
from broker.net.show import leases, rule_counts
from broker.net.tables import BRIDGE

pytestmark = pytest.mark.root

MAC = "02:00:00:00:00:01"
OWN = {"MAC": [MAC], "IP": ["10.0.0.1"]}
HEAD = b"profile: p\ndescription: x\ndefault: drop\n"
ALL = b"profile: p\ndescription: x\ndefault: accept\nrules: []\n"


@pytest.fixture
def bed(labelled):
    return FilterRig(labelled())


def names(bed, *, chains):
    """The filters' chains, or sets, that there are in the kernel."""
    with bed.rig.net.host.entered():
        readback = Readback()
    found = [name for name in readback.names(BRIDGE) if is_filters(name)]
    return {name for name in found if is_chain(name) is chains}


def elements(bed):
    """How many elements the filters' sets hold."""
    with bed.rig.net.host.entered():
        readback = Readback()
    sets = names(bed, chains=False)
    return sum(len(readback.elements(BRIDGE, name)) for name in sets if not name.startswith("m/"))


def odd(guest):
    return frame_for("odd broadcast", guest)


def passes(bed, direction="from-guest"):
    frame = odd(bed.guest if direction == "from-guest" else bed.peer)
    return bed.passes(direction, [frame]) == [True]


def again(bed):
    """Another enforcer takes over, as after a helper's end."""
    with bed.rig.net.host.entered():
        rig = bed.rig
        rig.enforcer = PortEnforcer(Libnftables(), Readback(), rig.abilities, rig.alarms.append)
    return rig.enforcer


def test_everything_of_a_port_goes_with_it(bed):
    bed.hold("clean-traffic", **OWN)
    assert elements(bed) >= 3
    chains = names(bed, chains=True)
    bed.rig.enforcer.remove(bed.guest.index)
    assert elements(bed) == 0
    assert not passes(bed)
    bed.rig.enforcer.put(bed.port(bed.guest, ["clean-traffic"], **OWN))
    assert names(bed, chains=True) == chains
    assert bed.rig.enforcer.check()


def test_no_port_has_a_chain_of_its_own(bed):
    bed.hold("clean-traffic", **OWN)
    chains = names(bed, chains=True)
    (more,) = bed.rig.net.add("vif9.0")
    other = {"MAC": ["02:00:00:00:00:09"], "IP": ["10.0.0.9"]}
    bed.rig.enforcer.put(bed.port(more, ["clean-traffic"], **other))
    assert names(bed, chains=True) == chains


def test_what_no_port_uses_any_more_is_taken_away(bed):
    bed.hold("clean-traffic", **OWN)
    bed.hold("no-broadcast")
    assert all("clean" not in name for name in names(bed, chains=True))
    bed.hold()
    assert names(bed, chains=True) == names(bed, chains=False) == set()


def test_a_port_without_a_verdict_is_closed_in_both_directions(bed):
    bed.hold("no-mac-spoofing", **OWN)
    assert passes(bed)
    index = bed.guest.index
    bed.rig.net.host.nft(f"delete element bridge {BRIDGE} from_guest {{ {index} }}\n")
    assert not passes(bed)
    assert not bed.rig.enforcer.check()
    assert passes(bed)
    bed.rig.net.host.nft(f"delete element bridge {BRIDGE} to_guest {{ {index} }}\n")
    assert not passes(bed, "to-guest")


@pytest.mark.parametrize(
    "change",
    [
        "flush chain bridge xpb_bridge f/no-mac-spoofing/from/other",
        "add rule bridge xpb_bridge f/no-mac-spoofing/from/other return",
        "insert rule bridge xpb_bridge filtered accept",
        "add element bridge xpb_bridge v/MAC.i48 {{ {index} . 0x020000009901 }}",
        "delete element bridge xpb_bridge v/MAC.i48 {{ {index} . 0x020000000001 }}",
    ],
)
def test_a_change_by_somebody_else_is_found_and_undone(bed, change):
    bed.hold("no-mac-spoofing", **OWN)
    content = bed.rig.content()
    bed.rig.net.host.nft(change.format(index=bed.guest.index) + "\n")
    assert not bed.rig.enforcer.check()
    assert any("by somebody else" in alarm for alarm in bed.rig.alarms)
    assert bed.rig.content() == content
    assert bed.rig.enforcer.check()


def test_after_flush_ruleset_all_of_it_is_there_again(bed):
    bed.hold("clean-traffic", "no-broadcast", **OWN)
    before = names(bed, chains=True), names(bed, chains=False), elements(bed)
    bed.rig.net.host.nft("flush ruleset\n")
    assert not bed.rig.enforcer.check()
    assert (names(bed, chains=True), names(bed, chains=False), elements(bed)) == before
    assert bed.rig.enforcer.check()


class Stream:
    """Frames from the guest, some of them forged, while something changes; who heard what."""

    def __init__(self, bed):
        self.bed, self.sent, self.good, self.forged = bed, 0, 0, 0
        self._frame = odd(bed.guest)
        self._other = forged(bed.guest)

    def some(self):
        """Fifty good frames and a forged one, and what was heard so far."""
        for _ in range(50):
            self.bed.guest.send(self._frame)
        self.sent += 50
        self.bed.guest.send(self._other)
        self._hear()

    def _hear(self):
        for frame in self.bed.peer.received():
            self.good += frame == self._frame
            self.forged += frame == self._other

    def during(self, change):
        """Send all the while that `change` runs."""
        over = threading.Event()

        def send():
            while not over.is_set():
                self.some()
                time.sleep(0.002)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            change()
        finally:
            over.set()
            thread.join()

    def heard(self):
        """How many were lost, and how many forged ones passed, once all have come."""
        end = time.monotonic() + 20
        while self.good < self.sent and time.monotonic() < end:
            self._hear()
        return self.sent - self.good, self.forged


def forged(guest):
    return odd(guest).replace(bytes.fromhex("020000000001"), bytes.fromhex("020000009901"))


def test_a_new_enforcer_takes_over_without_a_packet_lost_or_leaked(bed):
    bed.hold("no-mac-spoofing", **OWN)
    target, stream = bed.rig.enforcer.target, Stream(bed)

    def change():
        for _ in range(3):
            again(bed).start(target)

    stream.during(change)
    assert stream.heard() == (0, 0)


def test_updates_of_a_profile_lose_and_leak_nothing(bed):
    """One text lets pass what the other does too; what both refuse never passes."""
    one = b"profile: p\ndescription: x\ndefault: drop\nvariables: {MAC: {type: mac}}\nrules:\n"
    mine = b"  - {accept: both, match: {ether.src: $MAC}}\n"
    texts = [one + mine, one + b"  - {accept: both, match: {ether.type: arp}}\n" + mine]
    bed.hold("p", texts={"p": texts[0]}, **OWN)
    stream = Stream(bed)

    def change():
        for n in range(1, 21):
            bed.hold("p", texts={"p": texts[n % 2]}, **OWN)

    stream.during(change)
    assert stream.heard() == (0, 0)
    assert bed.rig.alarms == []


def test_a_profile_that_does_not_fit_all_its_users_changes_nothing(bed):
    bed.hold("p", texts={"p": ALL})
    needs = (
        HEAD
        + b"variables: {X: {type: port}}\nrules:\n"
        + b"  - {accept: both, match: {udp.dport: $X}}\n"
    )
    with pytest.raises(NetError, match=r"X .*has no value"):
        bed.hold("p", texts={"p": needs})
    assert passes(bed)
    with pytest.raises(NetError, match="filter profiles: p:"):
        bed.hold("p", texts={"p": b"profile: p\n"})
    assert passes(bed)
    assert bed.rig.enforcer.check()


def test_a_profile_that_is_not_there_leaves_the_port_closed(bed):
    bed.hold()
    bed.rig.enforcer.remove(bed.guest.index)
    with pytest.raises(NetError, match="nothing-like-it"):
        bed.rig.enforcer.put(bed.port(bed.guest, ["nothing-like-it"]))
    assert not passes(bed)
    assert bed.rig.enforcer.check()


@pytest.mark.parametrize("more", [{"uplink": True}, {"bridge": None}])
def test_only_bridged_guests_have_filters(more):
    with pytest.raises(InvalidError, match="filter profiles hold frames of bridged guests"):
        Port("vif1.0", 7, 1, filter=PortFilter(("p",)), **{"bridge": "br0"} | more)


def test_what_cannot_be_held_is_refused_at_its_line(bed):
    masks = ", ".join(f'"00:00:00:00:{it:02x}:00/00:00:00:00:ff:00"' for it in range(17))
    match = f"{{ether.src: [{masks}], ether.dst: [{masks}]}}"
    text = HEAD + f"rules:\n  - {{accept: both, match: {match}}}\n".encode()
    with pytest.raises(NetError, match=r"p:5:5: this becomes more than 256 rules"):
        bed.hold("p", texts={"p": text})


# addresses


def test_an_address_has_one_port_at_a_time(bed):
    bed.hold("clean-traffic", **OWN)
    other = {"MAC": ["02:00:00:00:00:02"], "IP": ["10.0.0.1"]}
    wanted = bed.port(bed.peer, ["clean-traffic"], **other)
    with pytest.raises(NetError, match=r"vif2\.0: 10\.0\.0\.1 is bound to vif1\.0"):
        bed.rig.enforcer.put(wanted)
    wide = bed.port(bed.peer, ["clean-traffic"], **{**other, "IP": ["10.0.0.0/24"]})
    with pytest.raises(NetError, match=r"is bound to vif1\.0"):
        bed.rig.enforcer.put(wide)
    bed.rig.enforcer.remove(bed.guest.index)
    bed.rig.enforcer.put(wide)
    with pytest.raises(NetError, match=r"is bound to vif2\.0"):
        bed.rig.enforcer.put(bed.port(bed.guest, ["clean-traffic"], **OWN))


def test_an_update_of_several_ports_binds_no_address_twice(bed):
    bed.hold("clean-traffic", **OWN)
    enforcer, peer = bed.rig.enforcer, {"MAC": ["02:00:00:00:00:02"], "IP": ["10.0.0.2"]}
    enforcer.put(bed.port(bed.peer, ["clean-traffic"], **peer))
    before = enforcer.target

    def given(first, second):
        ports = [bed.port(bed.guest, ["clean-traffic"], **first)]
        ports.append(bed.port(bed.peer, ["clean-traffic"], **second))
        changed = {**before.ports, **{port.index: port for port in ports}}
        return msgspec.structs.replace(before, ports=changed)

    for first, second in ((OWN, {**peer, "IP": OWN["IP"]}), ({**OWN, "IP": peer["IP"]}, peer)):
        with pytest.raises(NetError, match="one address has one port at a time"):
            enforcer.update(given(first, second))
        assert enforcer.target == before
    enforcer.update(given({**OWN, "IP": peer["IP"]}, {**peer, "IP": OWN["IP"]}))
    assert enforcer.check()


def test_an_open_port_that_is_given_anothers_address_is_closed_at_once(bed):
    bed.hold("clean-traffic", **OWN)
    enforcer = bed.rig.enforcer
    enforcer.put(bed.port(bed.peer, []))
    taken = bed.port(bed.peer, ["clean-traffic"], **OWN)
    with pytest.raises(NetError, match="is bound to vif1"):
        enforcer.put(taken)
    assert taken.index not in enforcer.target.ports
    assert enforcer.check()


def test_an_address_is_bound_on_its_bridge_alone(labelled):
    bed = FilterRig(labelled("br0", "br1"))
    (far,) = bed.rig.net.add("vif7.0", bridge="br1")
    bed.hold("clean-traffic", **OWN)
    port = msgspec.structs.replace(bed.port(far, ["clean-traffic"], **OWN), bridge="br1")
    bed.rig.enforcer.put(port)


@pytest.fixture
def learning(bed):
    bed.hold("no-ip-spoofing", MAC=[MAC])
    return bed


TEN = int.from_bytes(bytes((10, 0, 0, 5)))


def speaks(bed, source):
    frame = frame_for("ipv4", bed.guest, bed.observer)
    frame = frame.replace(bytes((10, 0, 0, bed.guest.number)), bytes(source), 1)
    return bed.passes("from-guest", [frame]) == [True]


def test_what_is_learned_may_be_used_until_the_lease_ends(learning):
    index = learning.guest.index
    assert not speaks(learning, (10, 0, 0, 5))
    learning.rig.enforcer.learn(index, TEN, 3.0)
    assert speaks(learning, (10, 0, 0, 5))
    assert not speaks(learning, (10, 0, 0, 6))
    with learning.rig.net.host.entered():
        (lease,) = leases(Readback())
    assert (lease.index, lease.address) == (index, "10.0.0.5")
    assert learning.rig.enforcer.check()
    end = time.monotonic() + 20
    while speaks(learning, (10, 0, 0, 5)):
        assert time.monotonic() < end
    while learning.rig.enforcer.learned().get(index):
        assert time.monotonic() < end
    assert learning.rig.enforcer.check()
    assert learning.rig.alarms == []


def test_a_lease_can_be_renewed_and_given_back(learning):
    index, enforcer = learning.guest.index, learning.rig.enforcer
    enforcer.learn(index, TEN, 100.0)
    enforcer.learn(index, TEN, 600.0)
    assert enforcer.learned()[index][TEN] > time.monotonic() + 500
    assert speaks(learning, (10, 0, 0, 5))
    enforcer.unlearn(index, TEN)
    assert not speaks(learning, (10, 0, 0, 5))
    assert enforcer.check()


def test_leases_outlive_the_enforcer_and_a_flush_but_not_the_port(learning):
    index, target = learning.guest.index, learning.rig.enforcer.target
    learning.rig.enforcer.learn(index, TEN, 600.0)
    again(learning).start(target)
    assert list(learning.rig.enforcer.learned()[index]) == [TEN]
    assert speaks(learning, (10, 0, 0, 5))
    learning.rig.net.host.nft("flush ruleset\n")
    assert not learning.rig.enforcer.check()
    assert speaks(learning, (10, 0, 0, 5))
    port = target.ports[index]
    learning.rig.enforcer.remove(index)
    learning.rig.enforcer.put(port)
    assert not speaks(learning, (10, 0, 0, 5))


def test_who_is_given_anothers_lease_takes_it_over_but_never_a_bound_address(learning):
    enforcer = learning.rig.enforcer
    enforcer.put(learning.port(learning.peer, ["no-ip-spoofing"], MAC=["02:00:00:00:00:02"]))
    enforcer.learn(learning.peer.index, TEN, 600.0)
    enforcer.learn(learning.guest.index, TEN, 600.0)
    assert not enforcer.learned()[learning.peer.index]
    bound = {"MAC": ["02:00:00:00:00:02"], "IP": ["10.0.0.8"]}
    enforcer.put(learning.port(learning.peer, ["no-ip-spoofing"], **bound))
    with pytest.raises(NetError, match=r"10\.0\.0\.8 was leased to vif1\.0, but is bound to vif2"):
        enforcer.learn(learning.guest.index, TEN + 3, 600.0)
    with pytest.raises(NetError, match="learns no addresses"):
        enforcer.learn(learning.peer.index, TEN + 9, 600.0)


@pytest.mark.parametrize("how", ["put", "update"])
@pytest.mark.parametrize("address", ["10.0.0.5", "10.0.0.0/24"])
def test_an_address_that_is_bound_now_is_no_longer_anothers_lease(learning, how, address):
    enforcer = learning.rig.enforcer
    enforcer.learn(learning.guest.index, TEN, 600.0)
    assert speaks(learning, (10, 0, 0, 5))
    bound = {"MAC": ["02:00:00:00:00:02"], "IP": [address]}
    port = learning.port(learning.peer, ["no-ip-spoofing"], **bound)
    if how == "put":
        enforcer.put(port)
    else:
        ports = {**enforcer.target.ports, port.index: port}
        enforcer.update(msgspec.structs.replace(enforcer.target, ports=ports))
    assert not enforcer.learned()[learning.guest.index]
    with learning.rig.net.host.entered():
        assert not leases(Readback())
    assert enforcer.check()


# limits and counts


def test_a_port_may_send_so_much_and_another_as_much_again(bed):
    given = {"FROM_GUEST": ["30/minute"], "TO_GUEST": ["20000/second"]}
    bed.hold("rate-limited", **given)
    (more,) = bed.rig.net.add("vif8.0")
    bed.rig.enforcer.put(bed.port(more, ["rate-limited"], **given))
    for guest in (bed.guest, more):
        for _ in range(50):
            guest.send(odd(guest))
    heard = [it[1] for it in bed.heard()]
    for guest in (bed.guest, more):
        # A burst of five, and one every two seconds.
        assert 5 <= heard.count(guest.number) <= 30, heard


def test_each_rule_counts_what_it_decided(bed):
    bed.hold("no-mac-spoofing", **OWN)
    for _ in range(3):
        passes(bed)
    bed.passes("from-guest", [forged(bed.guest)])
    with bed.rig.net.host.entered():
        counts = {it.rule: it.packets for it in rule_counts(Readback())}
    assert counts["no-mac-spoofing/1"] >= 3
    assert counts["no-mac-spoofing/default"] >= 1
