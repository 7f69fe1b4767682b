"""Every rule of every class, broken one at a time, is caught, and the right party is blamed."""

import collections

import pytest
from support.specs import CLASSES, monitor, spec

from broker.protocol.replay import replay
from broker.sim.protocol_mutations import Mutations

HEAD = f"{'class':16}{'rules':>7}{'mutations':>11}{'caught':>8}{'party right':>13}"


def judged(name):
    """(mutation, caught, party right) of every mutation of a class."""
    for mutation in Mutations(spec(name)).all():
        found = replay(monitor(name), mutation.changes)
        caught = any(it.rule == mutation.rule for it in found)
        right = {it.party for it in found} == {mutation.party}
        yield mutation, caught, right


@pytest.fixture(scope="module")
def table():
    return {}


@pytest.mark.parametrize("name", CLASSES)
def test_every_rule_broken_is_caught_and_the_right_party_blamed(name, table):
    count = collections.Counter()
    bad = []
    rules = set()
    for mutation, caught, right in judged(name):
        rules.add(mutation.rule)
        count["mutations"] += 1
        count["caught"] += caught
        count["right"] += caught and right
        if not (caught and right):
            bad.append((mutation.rule, mutation.party, mutation.what))
    table[name] = (len(monitor(name).rule_names()), count)
    assert bad == []
    assert set(monitor(name).rule_names()) - rules == set()


def test_the_table_of_mutations_is_printed(table, record_property):
    lines = [HEAD]
    for name, (rules, count) in table.items():
        made = count["mutations"]
        shares = [f"{count[it] / made:.0%}" for it in ("caught", "right")]
        lines.append(f"{name:16}{rules:>7}{made:>11}{shares[0]:>8}{shares[1]:>13}")
    record_property("table", "\n".join(lines))
    assert set(table) == set(CLASSES)
