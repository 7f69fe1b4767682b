"""`filters:` of labels and groups: what they attach to the vifs of a label's domains."""

from __future__ import annotations

import pytest

from broker.policy.acm.export import export_acm
from broker.policy.load import check_policy, load_policy
from broker.policy.write import policy_text
from broker.text.problems import ProblemsError

TEXT = """
policy: corp
version: "1.0"
ste_types: [red]
bootstrap: dom0
labels:
  dom0: {ste: [red]}
  web: {ste: [red], filters: [clean-traffic, {profile: isolated, with: {M: "1:2", IP: [a, b]}}]}
  db: {ste: [red]}
groups:
  guests: {labels: [web, db], filters: [no-multicast]}
  plain: [db]
classes:
  vif: {protocol: vif, default: ste}
channels:
  - {allow: {class: vif, frontend: group:plain, backend: dom0}}
"""


def load(text):
    return load_policy(text.encode(), "p.yaml")


def seen(attached):
    return [(it.profile, it.given) for it in attached]


def test_a_label_brings_its_own_profiles_then_those_of_its_groups():
    policy = load(TEXT)
    given = {"M": ("1:2",), "IP": ("a", "b")}
    assert seen(policy.filters_of("web")) == [
        ("clean-traffic", {}),
        ("isolated", given),
        ("no-multicast", {}),
    ]
    assert seen(policy.filters_of("db")) == [("no-multicast", {})]
    assert policy.filters_of("dom0") == ()
    assert policy.filters_of("nobody") == ()


def test_each_says_where_it_is_attached():
    assert [it.where for it in load(TEXT).filters_of("web")] == [
        "p.yaml:8:31",
        "p.yaml:8:56",
        "p.yaml:11:41",
    ]


def test_a_group_that_attaches_is_not_unused():
    _, found = check_policy(TEXT.encode(), "p.yaml")
    assert not [it for it in found if "group" in it.message]


def test_what_is_attached_is_written_as_it_was_read():
    policy = load(TEXT)
    again = load(policy_text(policy.definition))
    assert {name: seen(it) for name, it in again.definition.filters.items()} == {
        name: seen(it) for name, it in policy.definition.filters.items()
    }
    assert again.definition.groups == policy.definition.groups


def test_acm_has_no_profiles():
    said = [it.message for it in export_acm(load(TEXT).definition, "p.yaml").decided_otherwise]
    assert said.count("ACM has no filter profiles") == 2


@pytest.mark.parametrize(
    ("bad", "wanted"),
    [
        ("[Clean]", "p.yaml:8:31: 'Clean' is not a filter profile's name"),
        ("[{profile: a, with: {gw: b}}]", "p.yaml:8:51: 'gw' is not a variable's name"),
        ('[{profile: a, with: {GW: "a b"}}]', "p.yaml:8:55: 'a b' is no value of a filter's"),
        ("[{with: {}}]", "p.yaml:8:31: 'profile' is missing"),
        (f"[{', '.join(['a'] * 17)}]", "more than 16 filter profiles"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_its_place(bad, wanted):
    start = TEXT.index("[clean-traffic")
    text = TEXT[:start] + bad + TEXT[TEXT.index("}}]}") + 3 :]
    with pytest.raises(ProblemsError) as caught:
        load(text)
    assert wanted in str(caught.value)
