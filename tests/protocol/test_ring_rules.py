"""Every rule of every ring has a message that breaks it: it is caught, and its party blamed."""

import random
import subprocess

import pytest
from ring_mutations import MUTATIONS, SLOTS
from support.ring_c import answer, build_harness, connect, record
from support.ring_messages import GIVEN, RINGS, TRAFFIC, rings_of
from test_mutations import HEAD

from broker.protocol.ring import RingValidator

RULES = {name: rings_of(name) for name in MUTATIONS}
CASES = [
    pytest.param((name, *one, abi), id=f"{one[1]}-{number}-{abi}")
    for name, every in MUTATIONS.items()
    for number, one in enumerate(every)
    for abi in RULES[name].abis
]
"""(class, ring, rule, given, messages, layout)"""


def play(ring, steps):
    """What each step is answered."""
    does = {"Q": ring.request, "S": ring.response, "L": ring.request_list}
    return [does[operation](message) for operation, message in steps]


def validator(name, ring, given, abi):
    return RingValidator(RULES[name], ring, given={**GIVEN[name], **given}, slots=SLOTS, abi=abi)


@pytest.mark.parametrize("case", CASES)
def test_the_broken_rule_is_named_and_its_party_blamed(case):
    name, ring, rule, given, messages, abi = case
    ours = validator(name, ring, given, abi)
    steps = messages(abi)
    *before, last = play(ours, steps)
    assert before == [None] * len(before)
    assert last is not None
    # Requests are the frontend's, responses the backend's: told from the bed, not the table.
    party = "backend" if steps[-1][0] == "S" else "frontend"
    assert (last.rule, last.party) == (rule, party)
    assert ours.request(bytes(112)) is ours.response(bytes(112)) is last


def test_every_rule_has_a_mutation(record_property):
    lines = [HEAD]
    for name, ring in RINGS:
        rules = {one.name for one in RULES[name].rules if one.name.startswith(f"{ring}.")}
        mutations = [one[1:] for one in MUTATIONS[name] if one[0] == ring]
        assert rules == {rule for rule, _, _ in mutations}
        abi = RULES[name].abis[0]
        caught = right = 0
        for rule, given, messages in mutations:
            steps = messages(abi)
            said = play(validator(name, ring, given, abi), steps)[-1]
            caught += said is not None and said.rule == rule
            sender = "backend" if steps[-1][0] == "S" else "frontend"
            right += said is not None and said.party == sender
        made = len(mutations)
        shares = [f"{count / made:.0%}" for count in (caught, right)]
        lines.append(f"{f'{name} {ring}':16}{len(rules):>7}{made:>11}{shares[0]:>8}{shares[1]:>13}")
        assert caught == right == made
    record_property("table", "\n".join(lines))


@pytest.mark.parametrize(("name", "ring"), RINGS)
def test_good_traffic_breaks_nothing(name, ring):
    for seed in range(40):
        draw = random.Random(seed)
        abi = draw.choice(RULES[name].abis)
        given = {
            one: draw.choice((0, value)) if value == 1 else value
            for one, value in GIVEN[name].items()
        }
        ours = validator(name, ring, given, abi)
        traffic = TRAFFIC[ring](draw, {**GIVEN[name], **given}, SLOTS, abi)
        for _ in range(300):
            assert play(ours, [traffic.step()]) == [None]
            assert ours.in_flight <= SLOTS


def test_the_header_says_the_same_of_all_mutations(tmp_path):
    harness = build_harness(tmp_path, "-O2")
    records, wanted = [], []
    for name, ring, _, given, messages, abi in (one.values[0] for one in CASES):
        ours = validator(name, ring, given, abi)
        number = [title for _, title in RINGS].index(ring)
        records.append(connect(number, RULES[name], {**GIVEN[name], **given}, SLOTS, abi))
        wanted.append(answer(None, 0))
        for step in messages(abi):
            [said] = play(ours, [step])
            records.append(record(number, *step))
            wanted.append(answer(said, ours.in_flight))
    done = subprocess.run([harness], input=b"".join(records), capture_output=True, check=True)
    assert done.stdout == b"".join(wanted)
