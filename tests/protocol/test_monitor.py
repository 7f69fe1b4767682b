"""The monitor: what counts as a new life, who is blamed, stalls, gates, bounded memory."""

# ruff: noqa: E501 - tables, a case a line

import itertools
import sys

import pytest
from support.specs import CLASSES, monitor, spec

from broker.protocol.conditions import SIDES
from broker.protocol.monitor import MOST_KEYS
from broker.protocol.replay import Change, replay
from broker.sim.protocol_pair import Pair

VIF = {"tx-ring-ref": "8", "rx-ring-ref": "9", "event-channel": "3", "request-rx-copy": "1"}
VBD = {"ring-ref": "8", "event-channel": "3"}
DISK = {"sectors": "8", "sector-size": "512", "info": "0"}


class Life:
    """One channel, step by step: states by number, keys by name."""

    def __init__(self, name):
        self.monitor = monitor(name)
        self.life = self.monitor.begin()
        self.shown = {"frontend": {}, "backend": {}}
        self.found = []

    def step(self, now, front=None, back=None, writers=None):
        """Show more (None removes); answers (party, rule) of what is found now."""
        for side, keys in (("frontend", front), ("backend", back)):
            self.shown[side] = {**self.shown[side], **(keys or {})}
            self.shown[side] = {key: it for key, it in self.shown[side].items() if it is not None}
        directories = [
            {key: value.encode("latin-1") for key, value in self.shown[side].items()}
            for side in SIDES
        ]
        self.life, found = self.monitor.step(self.life, now, *directories, writers)
        self.found += found
        return [(it.party, it.rule) for it in found]


def connected(name):
    life = Life(name)
    keys = VIF if name == "vif" else VBD
    life.step(0, {"state": "1"}, {"state": "1"})
    life.step(1, {}, {"state": "2"})
    life.step(2, {**keys, "state": "4" if name == "vif" else "3"})
    life.step(3, {}, {**(DISK if name == "vbd" else {}), "state": "4"})
    life.step(4, {"state": "4"})
    assert life.found == []
    return life


def test_skipped_states_are_fine():
    life = Life("vbd")
    assert life.step(0, {**VBD, "state": "4"}, {**DISK, "state": "4"}) == []
    assert life.step(1, {"state": "6"}, {"state": "6"}) == []


def test_a_first_look_at_what_cannot_have_come_about_is_a_violation():
    assert ("frontend", "frontend.state.early") in Life("vif").step(
        0, {"state": "4"}, {"state": "1"}
    )


def test_a_new_life_after_closed_was_seen_is_fine():
    life = connected("vif")
    assert life.step(5, {"state": "6"}, {"state": "6"}) == []
    assert life.step(6, {"state": "1"}) == []
    assert life.step(7, {}, {"state": "2"}) == []
    assert life.step(8, {**VIF, "tx-ring-ref": "18", "state": "4"}, {"state": "4"}) == []


def test_a_new_life_after_closing_was_seen_is_fine():
    life = connected("vif")
    assert life.step(5, {"state": "5"}) == []
    assert life.step(6, {"state": "1"}, {"state": "6"}) == []


def test_a_new_life_after_the_keys_were_removed_is_fine():
    life = connected("vif")
    gone = dict.fromkeys(VIF)
    assert life.step(5, {**gone, "state": "1"}, {"state": "6"}) == []


def test_a_new_life_without_evidence_is_the_movers_error():
    life = connected("vif")
    assert life.step(5, {"state": "1"}) == [("frontend", "frontend.state.move")]
    life = connected("vbd")
    assert life.step(5, {}, {"state": "2"}) == [("backend", "backend.state.move")]


def test_removing_one_key_is_no_evidence():
    life = connected("vif")
    found = life.step(5, {"request-rx-copy": None, "state": "1"})
    assert ("frontend", "frontend.state.move") in found


def test_who_acts_on_what_it_saw_a_moment_ago_is_fine():
    life = Life("vif")
    life.step(0, {"state": "1"}, {"state": "1"})
    life.step(1, {}, {"state": "2"})
    life.step(2, {}, {"state": "5"})
    assert life.step(3, {**VIF, "state": "4"}) == []


def test_what_was_seen_in_an_earlier_life_does_not_count():
    life = connected("vbd")
    life.step(5, {"state": "6"}, {"state": "6"})
    life.step(6, {}, {"state": "1", **dict.fromkeys(DISK)})
    life.step(7, {"state": "1"})
    life.step(8, {**VBD, "state": "3"})
    assert life.found == []
    assert life.step(9, {"state": "4"}) == [("frontend", "frontend.state.early")]


def test_both_in_error_at_once_are_both_named():
    life = connected("vbd")
    found = life.step(5, {"state": "1"}, {"state": "1"})
    assert found == [("backend", "backend.state.move"), ("frontend", "frontend.state.move")]


def test_both_are_found_though_neither_complains():
    life = Life("vbd")
    life.step(0, {"state": "1"}, {"state": "1"})
    life.step(1, {}, {"state": "2"})
    found = life.step(2, {"ring-ref": "8", "state": "4"}, {"state": "4"})
    assert ("frontend", "frontend.event-channel.required") in found
    assert {"backend.info.required", "backend.sectors.required"} <= {rule for _, rule in found}


def test_an_offer_lowered_later_is_the_backends_error():
    life = Life("vif")
    life.step(0, {"state": "1"}, {"multi-queue-max-queues": "4", "state": "1"})
    life.step(1, {}, {"state": "2"})
    queues = {
        f"queue-{n}/{key}": f"{n}{at}7" for n in (0, 1) for at, key in enumerate(list(VIF)[:3], 1)
    }
    keys = {**queues, "request-rx-copy": "1", "multi-queue-num-queues": "2"}
    assert life.step(2, {**keys, "state": "4"}) == []
    found = life.step(3, {}, {"multi-queue-max-queues": "1"})
    assert {party for party, _ in found} == {"backend"}
    assert ("backend", "invariant.queues-within-offer") in found


def test_more_than_was_offered_is_the_frontends_error_even_where_only_the_default_holds():
    life = Life("vbd")
    life.step(0, {"state": "1"}, {"state": "2"})
    found = life.step(1, {"multi-queue-num-queues": "2"}) + life.step(2, {**VBD, "state": "3"})
    assert {party for party, _ in found} == {"frontend"}
    assert ("frontend", "invariant.queues-within-offer") in found


STALLS = [
    ("vif", [({"state": "1"}, {"state": "1"})], 60, "backend", "deadline.backend-offers"),
    ("vif", [({"state": "1"}, {"state": "2"})], 300, "frontend", "deadline.frontend-connects"),
    ("vif", [({"state": "1"}, {"state": "2"}), ({**VIF, "state": "4"}, {})], 30, "backend", "deadline.backend-connects"),
    ("vbd", [({"state": "1"}, {"state": "2"}), ({**VBD, "state": "3"}, {})], 30, "backend", "deadline.backend-connects"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "steps", "within", "party", "rule"), STALLS)
def test_a_stall_is_blamed_on_who_had_to_move_once_its_time_is_over(
    name, steps, within, party, rule
):
    life = Life(name)
    for front, back in steps:
        assert life.step(10, front, back) == []
    assert life.monitor.due(life.life) == 10 + within
    assert life.step(10 + within) == []
    assert life.step(10 + within + 0.5) == [(party, rule)]
    assert life.found[-1].time == 10 + within
    assert life.step(10_000) == []


def test_no_stall_behind_a_closed_gate():
    life = Life("vif")
    life.step(0, {"state": "1"}, {"hotplug-status": "", "state": "2"})
    life.step(1, {**VIF, "state": "4"})
    assert life.step(1000) == []
    life.step(2000, {}, {"hotplug-status": "connected"})
    assert life.monitor.due(life.life) == 2030
    assert life.step(3000) == [("backend", "deadline.backend-connects")]


def test_no_stall_while_the_peer_is_in_the_wrong():
    life = Life("vif")
    life.step(0, {"state": "1"}, {"state": "2"})
    found = life.step(1, {**VIF, "tx-ring-ref": "x", "state": "4"})
    assert {party for party, _ in found} == {"frontend"}
    assert life.step(1000) == []


def test_a_closed_gate_that_is_passed_is_the_backends_error():
    for keys in ({"hotplug-status": ""}, {"hotplug-status": "error"}):
        life = Life("vif")
        life.step(0, {"state": "1"}, {**keys, "state": "2"})
        life.step(1, {**VIF, "state": "4"})
        assert life.step(2, {}, {"state": "4"}) == [("backend", "gate")]
    life = Life("vbd")
    life.step(0, {"state": "1"}, {"type": "phy", "state": "2"})
    life.step(1, {**VBD, "state": "3"})
    assert life.step(2, {}, {**DISK, "state": "4"}) == [("backend", "gate")]


def test_opening_a_gate_and_passing_it_may_be_seen_at_once():
    life = Life("vbd")
    life.step(0, {"state": "1"}, {"type": "phy", "state": "2"})
    life.step(1, {**VBD, "state": "3"})
    assert life.step(2, {}, {**DISK, "physical-device": "7:0", "state": "4"}) == []
    assert life.step(3, {"state": "4"}, {"physical-device": None}) == []


def test_a_key_of_another_queue_than_there_are_is_found():
    life = connected("vif")
    assert life.step(5, {"queue-0/tx-ring-ref": "70"}) == [("frontend", "frontend.queues.exact")]


def test_what_is_known_of_the_writer_counts():
    life = connected("vif")
    foreign = {("frontend", "tx-ring-ref"): "toolstack"}
    found = life.step(5, {"tx-ring-ref": "99"}, writers=foreign)
    assert found == [("undetermined", "frontend.tx-ring-ref.fixed")]
    found = life.step(6, {"rx-ring-ref": "98"}, writers={("frontend", "rx-ring-ref"): "backend"})
    assert {party for party, _ in found} == {"backend"}
    assert ("backend", "writer") in found


def test_the_toolstack_takes_a_device_away_at_any_time():
    for name in CLASSES:
        example = next(iter(spec(name).form.examples.values()))
        whole = Pair(spec(name), example)
        whole.create()
        whole.connect()
        for cut in range(1, len(whole.changes)):
            if whole.changes[cut - 1].t == whole.changes[cut].t:
                continue  # one transaction
            pair = Pair(spec(name), example)
            pair.changes = whole.changes[:cut]
            pair.now = whole.changes[cut - 1].t
            for change in pair.changes:
                pair.directories[change.side][change.key] = change.value
            pair.remove()
            assert replay(monitor(name), pair.changes) == []


def test_the_order_of_keys_and_of_lines_in_a_moment_means_nothing():
    life = connected("vif")
    keys = {"tx-ring-ref": b"1", "rx-ring-ref": b"1", "state": b"1", "xdp-headroom": b"x"}
    back = {key: value.encode() for key, value in life.shown["backend"].items()}
    said = set()
    for order in itertools.permutations(keys.items()):
        after, found = life.monitor.step(life.life, 9, dict(order), back)
        said.add((found, after.standing, after.f, after.due))
    assert len(said) == 1


def test_a_snapshot_given_again_says_nothing_new():
    life = connected("vif")
    assert life.step(5, {"tx-ring-ref": "99"}) != []
    assert life.step(6) == []
    assert life.step(7, {"mtu": "1500"}) == []


def test_what_was_mended_and_is_broken_again_is_found_again():
    life = Life("vbd")
    life.step(0, {"state": "1"}, {"state": "2", "mode": "q"})
    assert [it.rule for it in life.found] == ["backend.mode.type"]
    life.step(1, {}, {"mode": "w"})
    assert life.step(2, {}, {"mode": "z"})


def test_a_clock_that_runs_backwards_does_not_matter():
    life = Life("vif")
    life.step(100, {"state": "1"}, {"state": "1"})
    assert life.step(50, {}, {"state": "2"}) == []
    assert life.monitor.due(life.life) == 400


def test_memory_is_bounded_however_much_a_guest_writes():
    life = connected("vif")
    flood = {f"junk-{n}": "x" * 4000 for n in range(5000)}
    flood.update({f"queue-{n}/tx-ring-ref": "y" * 4000 for n in range(500)})
    life.step(5, flood)
    kept = life.life.front
    assert len(kept) < len(monitor("vif")._tables.fields[0])
    assert sum(map(sys.getsizeof, kept.values())) < 100_000
    assert life.step(6) == []
    life.step(7, dict.fromkeys(flood))
    assert len(life.life.front) < MOST_KEYS


def test_one_huge_value_is_not_kept_whole():
    life = connected("vif")
    assert life.step(5, {"xdp-headroom": "9" * 4000}) != []
    assert len(life.life.front["xdp-headroom"]) < 600
    assert life.step(6) == []


def test_secrets_are_not_evidence():
    life = Life("vfb")
    life.step(0, {"state": "1"}, {"vncpasswd": "hush" * 200, "state": "1"})
    (found,) = life.found
    assert (found.rule, "hush" in found.evidence) == ("backend.vncpasswd.type", False)


def test_evidence_is_printable_whatever_a_guest_wrote():
    life = connected("vif")
    life.step(5, {"xdp-headroom": "\x1b[31m\n"})
    assert life.found[-1].evidence.isprintable()
    assert life.found[-1].evidence.isascii()


def test_an_empty_channel_is_fine():
    for name in CLASSES:
        assert replay(monitor(name), []) == []
        assert Life(name).step(0) == []


def test_a_trace_may_remove_a_whole_directory():
    changes = [
        Change(0, "frontend", "state", "1"),
        Change(0, "backend", "state", "1"),
        Change(1, "frontend", "queue-0/tx-ring-ref", "8"),
        Change(2, "frontend", "queue-0", None),
        Change(3, "frontend", "", None),
    ]
    assert replay(monitor("vif"), changes) == []


def test_a_backend_that_rewrites_the_toolstacks_keys_does_not_have_the_frontend_blamed():
    pair = Pair(spec("vif"))
    pair.create()
    pair.write("backend", "mac", "00:16:3e:00:00:ff")
    pair.connect()
    assert {it.party for it in replay(monitor("vif"), pair.changes)} == {"undetermined"}
