"""A comparison of policies tells exactly what asking both about everything would."""

import itertools

from hypothesis import given, settings
from support.definitions import definitions, possible_requests

from broker.core.difference import difference
from broker.core.policy import Policy
from broker.core.reach import Reach
from broker.core.settings import setting_changes
from broker.policy.load import load_policy


@settings(max_examples=40, deadline=None)
@given(definitions())
def test_sets_are_what_decide_says(definition):
    policy = Policy(definition)
    reach = Reach(definition, policy.labels)
    for name, frontend, backend, resource, mode in possible_requests(definition):
        row = reach.row(name, frontend).open_for(resource)["rw".index(mode)]
        mask = row & reach.sharing(name, frontend, resource)
        assert (backend in reach.named(mask)) is policy.decide(
            name, frontend, backend, resource, mode
        )


def asked(policy, other, after):
    """All that `policy` grants, with labels as they are called in the newer one."""
    called = {before: after.get(before) for before in policy.labels}
    granted = set()
    for name, frontend, backend, resource, mode in possible_requests(policy.definition):
        if policy.decide(name, frontend, backend, resource, mode):
            granted.add((name, called[frontend], called[backend], resource, mode))
    return granted


def told(found, gained):
    modes = {"all": "rw", "reading": "r", "writing": "w"}
    for change in found.channels:
        if change.gained is gained:
            for frontend, backend in itertools.product(change.frontends, change.backends):
                for resource in change.resources or (None,):
                    for mode in modes[change.access]:
                        yield change.device_class, frontend, backend, resource, mode


def pairs_of(found, what, gained):
    return {
        frozenset((one, other))
        for change in found.pairs
        if (change.what, change.gained) == (what, gained)
        for one in change.labels
        for other in change.others
    }


@settings(max_examples=60, deadline=None)
@given(definitions(), definitions(renames=True))
def test_a_difference_is_exact(first, second):
    old, new = Policy(first), Policy(second)
    successors = new.successors(old)
    taken = {after for after in successors.values() if after is not None}
    names = {
        before: after or (f"{before} (former)" if new.has_label(before) else before)
        for before, after in successors.items()
    }
    found = difference(old, new)
    before = asked(old, new, names)
    now = asked(new, old, {name: name for name in new.labels})
    gained, lost = list(told(found, True)), list(told(found, False))
    assert len(gained) == len(set(gained))
    assert len(lost) == len(set(lost))
    assert set(gained) == now - before
    assert set(lost) == before - now
    frames_before = {
        frozenset((names[a], names[b]))
        for a, b in itertools.product(old.labels, repeat=2)
        if old.frames(a, b).granted
    }
    frames_now = {
        frozenset((a, b))
        for a, b in itertools.product(new.labels, repeat=2)
        if new.frames(a, b).granted
    }
    assert pairs_of(found, "frames", True) == frames_now - frames_before
    assert pairs_of(found, "frames", False) == frames_before - frames_now
    assert_walls(old, new, found, {names[it]: it for it in old.labels if names[it] in taken})


def assert_walls(old, new, found, former):
    def together(policy, a, b):
        # The wall between the two alone: neither domain 0 nor its types.
        return not policy._wall.conflicts([a], b)

    def may_run(policy, label):
        return policy.admit((), label).granted

    gained, lost = pairs_of(found, "together", True), pairs_of(found, "together", False)
    for a, b in itertools.product(former, repeat=2):
        was, now = together(old, former[a], former[b]), together(new, a, b)
        assert (frozenset((a, b)) in gained) is (now and not was)
        assert (frozenset((a, b)) in lost) is (was and not now)
    runs = {change.gained: set(change.labels) for change in found.runs}
    for name in former:
        was, now = may_run(old, former[name]), may_run(new, name)
        assert (name in runs.get(True, ())) is (now and not was)
        assert (name in runs.get(False, ())) is (was and not now)
    assert {name for pair in gained | lost for name in pair} <= set(former)


@settings(max_examples=30, deadline=None)
@given(definitions())
def test_a_policy_differs_from_itself_in_nothing(definition):
    policy = Policy(definition)
    assert difference(policy, policy).empty
    assert setting_changes(policy, policy) == []


BASE = """\
policy: p
version: "1.0"
ste_types: [t]
bootstrap: a
labels: {a: {ste: [t]}, b: {ste: [t]}, c: {ste: [t]}}
resources: {r: {ste: [t], match: {class: vbd, params: /dev/r}}, s: {ste: [t]}}
classes: {vif: {default: ste}, vbd: {default: deny}}
"""


def test_what_is_written_otherwise_is_told_by_name():
    text = (
        BASE.replace("b: {ste: [t]}, c", "n: {ste: [t]}, d: {was: c")
        .replace("{was: c: {", "{was: c, ")
        .replace("/dev/r", "/dev/*")
        .replace(", s: {ste: [t]}", "")
        .replace("vif: {default: ste}", "vif: {default: deny}, vkbd: {default: ste}")
    )
    text += (
        "on_violation: {vif: reset}\nhost_authorization: false\nprotected: [a]\nroles: {op: []}\n"
        "mode: {observe: {opens: [{class: vif}], until: 2027-01-31}}\n"
    )
    old, new = (load_policy(it.encode(), "P") for it in (BASE, text))
    told = [(it.what, it.name, it.before, it.now) for it in setting_changes(old, new)]
    assert told[:10] == [
        ("label", "b", "ssidref 131074", ""),
        ("label", "d", "c (ssidref 196611)", "d (ssidref 196611)"),
        ("label", "n", "", "ssidref 131074"),
        ("resource", "r", "match vbd, params /dev/r", "match vbd, params /dev/*"),
        ("resource", "s", "no match", ""),
        ("class", "vif", "protocol vif, default ste", "protocol vif, default deny"),
        ("class", "vkbd", "", "protocol vkbd, default ste"),
        ("setting", "host_authorization", "true", "false"),
        ("setting", "on_violation", "default close", "default close, vif reset"),
        ("setting", "mode", "enforce", "observe until 2027-01-31"),
    ]
    assert [it[1] for it in told[10:]] == ["protected", "roles", "observe opens"]
