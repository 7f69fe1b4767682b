"""What the agent puts in force on bridges, on real links, with a kernel that only notes it."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from bridge_bed import BOOT, UPLINK, Fixture, device
from bridged_host import OPEN, SHUT, digest
from netns import Lab
from records import KEY, NONCE, OTHER_NONCE, record

from broker.agent import bridges as module
from broker.agent import net_helper
from broker.agent.gates.base import GateError
from broker.agent.policies import MissingPolicyError, find_policy
from broker.core import filter_report
from broker.core.consumer import NOTHING, Life, Memory, judge
from broker.core.drops import Drop
from broker.net.label_ids import DOM0, NOBODY, label_id
from broker.net.messages import Alarm, Dropped, Drops, FiltersCounted, Lease, RuleCount
from broker.net.model import PortFilter

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def lab():
    made = Lab()
    yield made
    made.close()


@pytest.fixture
def it(lab, tmp_path, monkeypatch):
    made = Fixture(lab, tmp_path)
    boot = tmp_path / "boot_id"
    boot.write_text(f"{BOOT}\n")
    monkeypatch.setattr(module, "_BOOT_ID", boot)
    monkeypatch.setattr(net_helper, "spawn", made.spawn)
    yield made
    made.bridges.stop()
    made.helper.stop()


def test_what_is_open_by_memory_and_kernel_is_taken_over(it):
    known = it.know()
    it.start()
    assert it.kernel.names() == {"vif4.0"}
    assert known.port.index == it.index
    assert it.bridges.keep(device(), may_move=False) == ""
    assert it.kernel.calls == ["check", "numbers", "start"]


def _changed_port(known, **changes):
    known.port = msgspec.structs.replace(known.port, **changes)


def _changed_memory(known, **changes):
    known.memory = msgspec.structs.replace(known.memory, **changes)


@pytest.mark.parametrize(
    "change",
    [
        lambda it, known: _changed_port(known, boot="another"),
        lambda it, known: _changed_port(known, index=it.index + 1000),
        lambda it, known: _changed_port(
            known, port=msgspec.structs.replace(known.port.port, name="vif3.0")
        ),
        lambda it, known: _changed_memory(known, label="shop"),
        lambda it, known: _changed_memory(known, granted=None),
        lambda it, known: _changed_memory(known, granted=OTHER_NONCE),
        lambda it, known: it.lab.host.ip("link", "set", "vif4.0", "down"),
        lambda it, known: it.lab.host.ip("link", "set", "vif4.0", "nomaster"),
        lambda it, known: _changed_port(
            known, port=msgspec.structs.replace(known.port.port, bridge=None)
        ),
        lambda it, known: _changed_port(
            known, port=msgspec.structs.replace(known.port.port, bridge="xpbr9")
        ),
        lambda it, known: next(it.policies.iterdir()).unlink(),
    ],
    ids=[
        "boot",
        "index",
        "name",
        "relabelled",
        "denied",
        "life",
        "down",
        "unbridged",
        "routed",
        "other",
        "no policy",
    ],
)
def test_what_may_be_another_interface_or_is_not_granted_is_closed_at_the_start(it, change):
    known = it.know()
    change(it, known)
    it.start()
    assert it.kernel.ports == {}
    assert known.port is None
    assert it.bridges.keep(device(), may_move=True)
    assert it.kernel.ports == {}


def test_a_port_whose_interface_is_gone_is_not_kept_for_its_name(it):
    known = it.know()
    it.start()
    assert it.bridges.keep(device(), may_move=False) == ""
    _changed_port(known, index=it.index + 1000)
    assert "another one now" in it.bridges.keep(device(), may_move=True)


def test_no_label_of_another_life_is_used(it):
    known = it.know(held=False)
    it.start()
    for granted in (OTHER_NONCE, None):
        _changed_memory(known, granted=granted)
        with pytest.raises(GateError, match="no label is granted"):
            it.bridges.admit(device(), "vif4.0")
    _changed_memory(known, granted=NONCE)
    for other in (OTHER_NONCE, ""):
        with pytest.raises(GateError, match="no label is granted"):
            it.bridges.admit(device(nonce=other), "vif4.0")
    it.bridges.admit(device(), "vif4.0")
    assert it.kernel.names() == {"vif4.0"}
    assert it.bridges.keep(device(nonce=OTHER_NONCE), may_move=True) == "no label is granted"
    known.nonce = ""
    _changed_memory(known, granted="")
    with pytest.raises(GateError, match="no label is granted"):
        it.bridges.admit(device(nonce=""), "vif4.0")


def test_before_the_first_record_nothing_is_admitted(it):
    it.know(held=False, policy=OPEN)
    it.durable.saved.slots["vif/4/0"].memory = Memory(granted=NONCE, label="web")
    it.start()
    with pytest.raises(GateError, match="no record"):
        it.bridges.admit(device(), "vif4.0")
    it.bridges.follow([Memory(seq=1, policy=digest(OPEN))])
    it.bridges.admit(device(), "vif4.0")


def test_another_label_moves_the_port_only_when_it_may(it):
    known = it.know()
    it.start()
    before = it.kernel.ports[it.index].number
    _changed_memory(known, label="bank")
    assert "bank" in it.bridges.keep(device(), may_move=False)
    assert it.kernel.ports[it.index].number == before
    assert it.bridges.keep(device(), may_move=True) == ""
    assert it.kernel.ports[it.index].number != before
    _changed_memory(known, label="unheard of")
    assert "not in the policy" in it.bridges.keep(device(), may_move=True)
    assert known.port is None


def test_a_port_that_was_renamed_is_expelled_all_the_same(it):
    known = it.know()
    it.start()
    it.bridges.expel(device(), "something-else")
    assert (it.kernel.ports, known.port) == ({}, None)


def test_a_bridge_that_is_not_governed_admits_nobody(it):
    it.know(held=False)
    it.start()
    with pytest.raises(GateError, match="not governed"):
        it.bridges.admit(device(bridge=b"other0"), "vif4.0")


def test_the_newest_record_alone_says_which_policy(it):
    it.put(SHUT)
    it.know()
    it.start()
    pairs = it.kernel.pairs
    it.bridges.follow([Memory(seq=4, policy=digest(SHUT)), Memory(seq=9), NOTHING])
    assert it.kernel.pairs == pairs
    it.bridges.follow([Memory(seq=7, policy=digest(OPEN)), Memory(seq=8, policy=digest(SHUT))])
    assert it.kernel.pairs != pairs


def test_without_the_policys_file_no_port_keeps_its_class_and_the_reason_names_it(it):
    known = it.know()
    it.start()
    it.bridges.follow([Memory(seq=8, policy=digest(SHUT))])
    assert (it.kernel.ports, it.kernel.pairs, known.port) == ({}, frozenset(), None)
    assert digest(SHUT) in it.bridges.keep(device(), may_move=True)
    with pytest.raises(GateError, match=digest(SHUT)):
        it.bridges.admit(device(), "vif4.0")
    it.put(SHUT)
    it.clock.advance(1)
    it.bridges.admit(device(), "vif4.0")


def test_what_the_kernel_refuses_is_put_in_force_by_a_new_helper(it):
    it.put(SHUT)
    it.know()
    it.start()
    pairs, looked = it.kernel.pairs, []
    it.bridges.changed = lambda: looked.append(True)
    it.kernel.fails = "no\x1bmemory"
    it.bridges.follow([Memory(seq=8, policy=digest(SHUT))])
    it.broken = "no nft here"
    for _ in range(3):
        it.clock.advance(1)
        with pytest.raises(GateError, match="started again"):
            it.bridges.expel(device(3), "vif3.0")
    assert sum("no nft here" in text for text in it.report().alarms) == 1
    it.broken = ""
    it.clock.advance(1)
    assert len(it.kernels) == 2
    assert it.kernel.names() == {"vif4.0"}
    assert it.kernel.pairs != pairs
    assert looked
    assert any("memory" in text for text in it.report().alarms)


def test_one_refused_change_is_reason_enough_to_put_all_in_force_anew(it):
    it.put(SHUT)
    it.know()
    it.start()
    pairs = it.kernel.pairs
    it.kernel.refused = ("update",)
    it.bridges.follow([Memory(seq=8, policy=digest(SHUT))])
    with pytest.raises(GateError, match="started again"):
        it.bridges.expel(device(3), "vif3.0")
    it.clock.advance(0.1)
    assert len(it.kernels) == 2
    assert it.kernel.names() == {"vif4.0"}
    assert it.kernel.pairs != pairs


def test_an_uplink_that_comes_later_gets_its_class(it):
    it.put(UPLINK)
    it.know(policy=UPLINK)
    it.start()
    assert it.kernel.names() == {"vif4.0"}
    it.lab.plug(4, "eth9", inner="eth9")
    it.bridges.links_changed()
    assert it.kernel.names() == {"vif4.0", "eth9"}
    it.lab.host.ip("link", "del", "eth9")
    it.clock.advance(1)  # nobody told
    assert it.kernel.names() == {"vif4.0"}


def test_alarms_and_refused_packets_are_reported(it):
    it.know()
    it.start()
    it.kernel.said = [Alarm("tables gone"), Dropped(it.index, 0, 1, "ARP who has")]
    it.clock.advance(1)
    report = it.report()
    assert [text.partition(" ")[2] for text in report.alarms] == ["tables gone"]
    assert [text.partition(" ")[2] for text in report.samples] == [
        "vif4.0 (web) -> dom0: ARP who has"
    ]
    assert (report.policy, report.problem) == (digest(OPEN), "")


def test_what_was_refused_is_told_by_labels_and_nothing_where_it_is_not_known(it):
    it.know()
    it.start()
    web, bank = label_id("web"), label_id("bank")
    it.kernel.dropped = [
        Drops(web, bank, 3, 180),
        Drops(NOBODY, web, 1, 60),
        Drops(DOM0, web, 2, 84),
        Drops(bank, web, 0, 0),
    ]
    assert it.bridges.counts.refused() == [
        Drop("web", "bank", 3, 180),
        Drop(None, "web", 1, 60),
        Drop("dom0", "web", 2, 84),
    ]
    it.kernel.fails = "no memory"
    assert it.bridges.counts.refused() == []
    it.bridges._ports = None
    assert it.bridges.counts.refused() == []


def test_what_profiles_counted_and_learned_is_told_by_vifs_that_have_any(it):
    known = it.know()
    counted = FiltersCounted(
        [RuleCount("a/1", 3, 180), RuleCount("a/default", 0, 0)],
        [Lease(it.index, "10.0.0.5", 50), Lease(9_999, "10.0.0.6", 50)],
    )
    it.start()
    it.kernel.counted = counted
    assert it.bridges.counts.filters() == ([], []), "no vif has profiles: nobody is asked"
    assert "filters" not in it.kernel.calls
    filtered = msgspec.structs.replace(known.port.port, filter=PortFilter(("a",), {}))
    it.bridges._ports._ports["vif4.0"] = (filtered, it.index)
    rules, leases = it.bridges.counts.filters()
    assert rules == [filter_report.RuleCount("a/1", 3, 180)]
    assert leases == [filter_report.Lease(4, "0", "10.0.0.5", 60)]
    it.kernel.fails = "no memory"
    assert it.bridges.counts.filters() == ([], [])


def test_a_policy_is_found_by_its_bytes_alone(tmp_path):
    with pytest.raises(MissingPolicyError, match="copy the policy"):
        find_policy(tmp_path / "none", digest(OPEN))
    (tmp_path / "a.yaml").write_text(SHUT)
    (tmp_path / "b.yaml").mkdir()
    (tmp_path / "c.yaml").write_text(OPEN)
    assert find_policy(tmp_path, digest(OPEN)).name == "open"
    broken = b"policy: \x1b\n"
    (tmp_path / "d.yaml").write_bytes(broken)
    with pytest.raises(MissingPolicyError, match=r"d\.yaml"):
        find_policy(tmp_path, f"sha256:{hashlib.sha256(broken).hexdigest()}")


def test_label_and_policy_are_remembered_of_good_records_alone():
    life = Life(
        backend=0,
        device_class="vif",
        frontend=3,
        device="0",
        nonce=NONCE,
        inputs="ab" * 32,
    )

    def remembered(text, memory=NOTHING):
        judged = judge(text, KEY.public_key(), life, memory, fresh=True, gate_open=False)
        return judged.memory

    granted = remembered(record())
    assert (granted.label, granted.policy) == ("red", "sha256:" + "1" * 64)
    assert remembered(record(nonce=OTHER_NONCE)).label is None
    assert remembered(record(inputs="cd" * 32)).label is None
    assert remembered(record(seq=6, labels=("blue", "dom0")), granted).label == "red"
    pending = remembered(record("pending", seq=8, labels=("blue", "dom0")), granted)
    assert pending.label == "red"
    denied = remembered(record("deny", seq=9, policy="sha256:" + "3" * 64), granted)
    assert (denied.label, denied.policy) == (None, "sha256:" + "3" * 64)
