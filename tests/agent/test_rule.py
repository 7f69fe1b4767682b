"""The agent's rule: opening needs everything, closing needs a newer signed denial."""

from __future__ import annotations

import msgspec
import pytest
from records import INPUTS, KEY, NONCE, OTHER_INPUTS, OTHER_KEY, OTHER_NONCE, record

from broker.core.consumer import NOTHING, STALE_AFTER, Heartbeat, Life, is_final, judge
from broker.core.record import sign_heartbeat

PUBLIC = KEY.public_key()
VIF = Life(backend=0, device_class="vif", frontend=3, device="0", nonce=NONCE, inputs=INPUTS)


def rule(text, life=VIF, memory=NOTHING, *, fresh=True, gate_open=False):
    return judge(text, PUBLIC, life, memory, fresh=fresh, gate_open=gate_open)


def with_life(**changes):
    return msgspec.structs.replace(VIF, **changes)


def after(*texts, life=VIF):
    memory = NOTHING
    for text in texts:
        memory = rule(text, life, memory).memory
    return memory


def test_a_good_grant_opens():
    judgement = rule(record())
    assert (judgement.action, judgement.seq, judgement.memory.granted) == ("open", 7, NONCE)


def test_a_good_grant_leaves_open_what_it_opened():
    assert rule(record(), memory=after(record()), gate_open=True).action == "hold"
    again = record(seq=8)
    assert rule(again, memory=after(record()), gate_open=True).action == "hold"


def test_what_it_opened_without_telling_is_opened_again_while_the_broker_lives():
    untold, memory = with_life(told=False), after(record())
    assert rule(record(), untold, memory, gate_open=True).action == "open"
    assert rule(record(), untold, memory, gate_open=True, fresh=False).action == "hold"
    assert rule(None, untold, memory, gate_open=True).action == "hold"
    found = with_life(told=False, found_open=True)
    assert rule(record(), found, gate_open=True).action == "hold"


def test_what_another_opened_is_closed_though_it_is_granted_and_then_opened_by_the_rule():
    judgement = rule(record(), gate_open=True)
    assert (judgement.action, judgement.memory.granted) == ("suspend", None)
    assert rule(record(), memory=judgement.memory, gate_open=True).action == "suspend"
    assert rule(record(), memory=judgement.memory).action == "open"


def test_what_another_opened_while_the_heartbeat_was_stopped_is_closed():
    memory = rule(record(), fresh=False).memory
    assert memory.granted is None
    assert rule(record(), memory=memory, gate_open=True).action == "suspend"
    assert rule(None, memory=memory, gate_open=True).action == "suspend"


def test_what_was_found_open_is_kept_by_a_grant_but_not_after_a_denial_that_failed_to_close_it():
    found = with_life(found_open=True)
    judgement = rule(record(), found, gate_open=True)
    assert (judgement.action, judgement.memory.granted) == ("hold", NONCE)
    denied = after(record("deny"), life=found)
    assert rule(record(seq=8), found, denied, gate_open=True).action == "suspend"


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "no decision yet"),
        (b"", "no decision yet"),
        (b"grant", "fields must be exactly"),
        (b"\xff\xfe", "ASCII"),
        (record()[:-40], "signature"),
        (record()[:60], "fields must be exactly"),
        (record() + b" ", "fields must be exactly"),
        (record().replace(b"grant", b"allow", 1), "does not begin"),
        (record().replace(b"seq=7", b"seq=8"), "signature is not good"),
        (record(key=OTHER_KEY), "signature is not good"),
        (record(frontend=4), "another channel"),
        (record(backend=1), "another channel"),
        (record(device_class="vbd"), "another channel"),
        (record(device="1"), "another channel"),
        (record(nonce=OTHER_NONCE), "another life"),
        (record(nonce=None), "another life"),
        (record(inputs=OTHER_INPUTS), "other inputs"),
        (record(inputs=None), "other inputs"),
        (record("pending", reason="no nonce"), "pending: no nonce"),
        (record("deny", reason="ste"), "ste"),
    ],
)
def test_nothing_else_opens(text, why, fresh):
    judgement = rule(text, fresh=fresh)
    assert judgement.action == "hold"
    assert why in judgement.reason


def test_no_grant_opens_a_life_without_a_nonce_of_its_own():
    assert rule(record(nonce=None), with_life(nonce=None)).action == "hold"
    assert rule(record(), with_life(nonce=None)).action == "hold"


def test_no_grant_opens_what_cannot_be_told():
    judgement = rule(record(inputs=None), with_life(inputs=None))
    assert judgement.action == "hold"
    assert "cannot be told" in judgement.reason


def test_a_stopped_heartbeat_withholds_a_good_grant_and_says_so():
    judgement = rule(record(), fresh=False)
    assert (judgement.action, judgement.withheld) == ("hold", True)
    assert not rule(None, fresh=False).withheld


@pytest.mark.parametrize(
    "text",
    [None, b"", b"garbage", record(key=OTHER_KEY), record("pending", seq=9), record(frontend=9)],
)
@pytest.mark.parametrize("fresh", [True, False])
def test_what_was_granted_stays_open_without_a_good_record(text, fresh):
    judgement = rule(text, memory=after(record()), fresh=fresh, gate_open=True)
    assert judgement.action == "hold"
    assert judgement.memory.granted == NONCE


def test_what_was_granted_stays_open_when_its_inputs_can_no_longer_be_told():
    life = with_life(inputs=None)
    assert rule(record(), life, after(record()), gate_open=True).action == "hold"


def test_a_newer_denial_suspends_a_live_vif_also_when_the_broker_is_gone():
    memory = after(record())
    assert (
        rule(record("deny", seq=8), memory=memory, fresh=False, gate_open=True).action == "suspend"
    )


def test_a_newer_denial_revokes_a_live_vbd():
    life = with_life(device_class="vbd", device="51712")
    grant = record(device_class="vbd", device="51712")
    deny = record("deny", device_class="vbd", device="51712", seq=8)
    assert rule(deny, life, after(grant, life=life), gate_open=True).action == "close"


@pytest.mark.parametrize("changes", [{"nonce": None}, {"nonce": OTHER_NONCE}, {"inputs": None}])
def test_a_newer_denial_closes_whatever_life_it_speaks_of(changes):
    deny = record("deny", seq=8, **changes)
    assert rule(deny, memory=after(record()), gate_open=True).action == "suspend"


@pytest.mark.parametrize("seq", [0, 6, 7])
def test_a_denial_that_is_not_newer_closes_nothing(seq):
    judgement = rule(record("deny", seq=seq), memory=after(record()), gate_open=True)
    assert judgement.action == "hold"
    assert judgement.memory == after(record())


@pytest.mark.parametrize(
    "deny",
    [
        record("deny", seq=8, key=OTHER_KEY),
        record("deny", seq=8)[:-3],
        record("deny", seq=8, frontend=4),
    ],
)
def test_a_denial_that_is_not_authentic_closes_nothing(deny):
    assert rule(deny, memory=after(record()), gate_open=True).action == "hold"


def test_a_grant_replayed_after_a_denial_does_not_open():
    memory = after(record(), record("deny", seq=8))
    judgement = rule(record(), memory=memory)
    assert judgement.action == "hold"
    assert "older than 8" in judgement.reason


def test_a_grant_replayed_after_a_pending_does_not_open():
    assert rule(record(), memory=after(record("pending", seq=8))).action == "hold"


def test_two_records_of_one_seq_are_refused():
    judgement = rule(record(), memory=after(record("deny")))
    assert judgement.action == "hold"
    assert "second record with seq 7" in judgement.reason


def test_the_record_already_accepted_is_still_in_force():
    assert rule(record(), memory=after(record())).action == "open"
    assert rule(record("deny"), memory=after(record("deny")), gate_open=True).action == "suspend"


def test_a_denial_once_accepted_holds_when_its_record_is_gone():
    memory = after(record(), record("deny", seq=8))
    for text in (None, record(), record("pending", seq=9), record(seq=9, nonce=OTHER_NONCE)):
        assert rule(text, memory=memory, gate_open=True).action == "suspend"


def test_a_newer_grant_ends_a_denial():
    memory = after(record("deny"), record(seq=8))
    assert rule(None, memory=memory, gate_open=True).action == "hold"


def test_what_turned_up_open_without_a_grant_is_closed():
    for text in (None, record("pending"), record(nonce=OTHER_NONCE), record(inputs=OTHER_INPUTS)):
        assert rule(text, gate_open=True).action == "suspend"
        assert rule(text, gate_open=True, fresh=False).action == "suspend"
    life = with_life(device_class="vbd")
    assert rule(None, life, gate_open=True).action == "close"


def test_a_grant_of_the_last_life_does_not_keep_the_next_one_open():
    life = with_life(nonce=OTHER_NONCE)
    assert rule(record(), life, after(record()), gate_open=True).action == "suspend"
    assert rule(None, life, after(record()), gate_open=True).action == "suspend"


def test_what_was_found_open_stays_until_the_first_answer_about_it():
    life = with_life(found_open=True)
    for text in (None, b"garbage", record("pending"), record(nonce=OTHER_NONCE)):
        assert rule(text, life, gate_open=True).action == "hold"
    assert rule(record(), life, gate_open=True).action == "hold"
    assert rule(record("deny"), life, gate_open=True).action == "suspend"


def test_having_been_found_open_protects_no_more_once_denied():
    life = with_life(found_open=True)
    memory = after(record("deny"), life=life)
    for text in (None, record("pending", seq=8), record(seq=8, inputs=OTHER_INPUTS)):
        assert rule(text, life, memory, gate_open=True).action == "suspend"


def test_a_final_denial_takes_the_device_away_though_it_is_closed():
    judgement = rule(record("deny", reason="quarantine: ring abused"))
    assert (judgement.action, judgement.final) == ("close", True)


def test_a_final_denial_of_another_life_takes_nothing_away():
    for nonce in (OTHER_NONCE, None):
        judgement = rule(record("deny", reason="quarantine: ring abused", nonce=nonce))
        assert (judgement.action, judgement.final) == ("hold", False)


def test_final_is_the_first_word_of_a_reason():
    assert is_final("reset: protocol broken")
    assert is_final("final")
    assert not is_final("no shared type; final")
    assert not is_final("resettable")
    assert not is_final("")


def beat(counter, key=KEY):
    return sign_heartbeat(counter, key)


def test_a_heartbeat_is_fresh_only_after_it_grew_before_our_eyes():
    heart = Heartbeat(PUBLIC)
    assert not heart.fresh(0.0)
    heart.observe(beat(5), 0.0)
    assert not heart.fresh(0.0)
    heart.observe(beat(6), 2.0)
    assert heart.fresh(2.0)


def test_a_heartbeat_that_appears_is_one_that_grew():
    heart = Heartbeat(PUBLIC)
    heart.observe(None, 0.0)
    heart.observe(beat(0), 1.0)
    assert heart.fresh(1.0)


def test_a_heartbeat_goes_stale_ten_seconds_after_its_last_growth():
    heart = Heartbeat(PUBLIC)
    heart.observe(b"", 0.0)
    heart.observe(beat(1), 1.0)
    heart.observe(beat(1), 9.0)
    assert heart.fresh(1.0 + STALE_AFTER - 0.01)
    assert not heart.fresh(1.0 + STALE_AFTER)
    heart.observe(None, 12.0)
    assert not heart.fresh(12.0)


@pytest.mark.parametrize("text", [beat(9, OTHER_KEY), b"9", b"9 sig=", b"x", b"-1 sig=aa", b"\xff"])
def test_a_heartbeat_not_signed_by_the_broker_counts_for_nothing(text):
    heart = Heartbeat(PUBLIC)
    heart.observe(None, 0.0)
    assert heart.observe(text, 1.0) is not None
    assert not heart.fresh(1.0)


def test_a_heartbeat_that_grew_out_of_sight_may_be_a_dead_brokers_last():
    heart = Heartbeat(PUBLIC)
    heart.observe(beat(1), 0.0)
    heart.unwatched()
    heart.observe(beat(500), 100.0)
    assert not heart.fresh(100.0)
    heart.observe(beat(501), 102.0)
    assert heart.fresh(102.0)


def test_a_heartbeat_out_of_sight_for_a_moment_stays_fresh_and_never_falls_back():
    heart = Heartbeat(PUBLIC)
    heart.observe(beat(5), 0.0)
    heart.observe(beat(6), 1.0)
    heart.unwatched()
    heart.observe(beat(3), 2.0)
    heart.observe(beat(6), 2.0)
    assert heart.fresh(10.9)
    assert not heart.fresh(11.0)


def test_an_older_heartbeat_replayed_counts_for_nothing():
    heart = Heartbeat(PUBLIC, floor=100)
    heart.observe(None, 0.0)
    for counter in (1, 2, 99, 100):
        heart.observe(beat(counter), 1.0)
    assert not heart.fresh(1.0)
    heart.observe(beat(101), 1.0)
    assert heart.fresh(1.0)
    assert heart.floor == 101


def test_a_replay_that_grows_below_the_floor_is_no_life():
    heart = Heartbeat(PUBLIC, floor=100)
    heart.observe(beat(1), 0.0)
    heart.observe(beat(2), 1.0)
    assert not heart.fresh(1.0)


def test_a_denial_refuses_only_the_life_it_names():
    assert rule(record("deny")).refused
    assert not rule(record("deny", nonce=OTHER_NONCE)).refused
    assert not rule(record("deny", nonce=None)).refused
    assert not rule(None, memory=after(record("deny"))).refused


def test_a_life_without_a_nonce_is_nobodys():
    unnamed = with_life(nonce=None)
    assert rule(None, unnamed, gate_open=True).action == "suspend"
    judgement = rule(record("deny", nonce=None, reason="final"), unnamed)
    assert (judgement.refused, judgement.action) == (False, "hold")


OBSERVED = "observed: would be denied: they share no STE type"


def observing(text, *, allowed, memory=NOTHING, gate_open=False):
    return judge(
        text,
        PUBLIC,
        VIF,
        memory,
        fresh=True,
        gate_open=gate_open,
        allow_observe=allowed,
    )


def test_an_observed_grant_opens_only_where_that_is_allowed():
    grant = record(reason=OBSERVED)
    assert observing(grant, allowed=True).action == "open"
    refused = observing(grant, allowed=False)
    assert (refused.action, refused.refused, refused.final) == ("hold", True, False)
    assert refused.memory.denied
    assert rule(grant).action == "hold"


def test_where_it_is_not_allowed_an_observed_grant_closes_as_the_denial_that_it_stands_for():
    live = after(record())
    again = observing(record(seq=8, reason=OBSERVED), allowed=False, memory=live, gate_open=True)
    assert (again.action, again.memory.granted) == ("suspend", None)
    assert "allow_observe is not set here; observed: would be denied" in again.reason
    assert observing(record(seq=9), allowed=False, memory=again.memory).action == "open"


def test_only_a_reason_that_begins_so_is_observed():
    assert rule(record(reason=f"allowed; {OBSERVED}")).action == "open"
