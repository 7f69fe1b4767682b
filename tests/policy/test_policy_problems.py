"""Every diagnostic, with its line and column; and all of a file's at once."""

# ruff: noqa: E501 - tables, a case a line

import re
from pathlib import Path

import pytest

from broker.policy.load import check_policy, load_policy
from broker.text.problems import ProblemsError

GOOD = """\
policy: corp
version: "1.4"
from: {policy: corp, version: "1.3"}
ste_types: [system, red, blue]
chinese_wall_types: [w1, w2]
conflict_sets: {rivals: [w1, w2]}
bootstrap: dom0
labels:
  dom0: {ste: [system, red, blue]}
  web: {ste: [red], chinese_wall: [w1], was: www, colours: [pink]}
  db: {ste: [blue, red], chinese_wall: [w2]}
groups: {tier: [web, db]}
resources:
  lun: {ste: [red], colour: pink, match: {class: vbd, params: "/dev/red-*"}}
  nic: {ste: [red], match: {class: uplink, bridge: xenbr0}}
classes:
  vif: {protocol: vif, default: ste}
  vbd: {protocol: vbd, default: deny}
channels:
  - {allow: {class: vbd, frontend: [web, db], backend: dom0}}
  - {deny: {class: vbd, frontend: group:tier, resource: lun, mode: w, reason: "no"}}
  - {deny: {class: vif, between: [web, db]}}
on_violation: {default: close, vif: reset}
mode: enforce
host_authorization: true
protected: [dom0]
roles: {}
"""

# What is replaced in GOOD by what, and all problems that this makes.
CASES = [
    ("policy: corp\nv", "policy: co:rp\nv", ["1:9: policy 'co:rp' is not a name: letters, digits and _.()-, beginning with a letter or digit"]),
    ('"1.4"', '"1-4"', ["2:10: version '1-4' is not major.minor, two integers (\"1.4\")", "3:31: not older than this policy's version 1-4"]),
    ('"1.4"', '"1.04"', ["2:10: version '1.04' is not major.minor, two integers (\"1.4\")", "3:31: not older than this policy's version 1.04"]),
    ('"1.4"', '"1.3"', ["3:31: not older than this policy's version 1.3"]),
    ("[system, red, blue]\nc", "[system, red, red, blue]\nc", ["4:26: STE type 'red' was named already, at P:4:21"]),
    ("[system, red, blue]\nc", "[system, red, _x, blue]\nc", ["4:26: STE type '_x' is not a name: letters, digits and _.()-, beginning with a letter or digit"]),
    ("rivals: [w1, w2]", "rivals: [w1, w2, w3]", ["6:34: unknown Chinese Wall type 'w3'"]),
    ("rivals: [w1, w2]", "rivals: [w1]", ["6:17: conflict set 'rivals' has fewer than two types"]),
    ("bootstrap: dom0", "bootstrap: dom1", ["7:12: unknown bootstrap label 'dom1'; did you mean 'dom0'?"]),
    ("chinese_wall: [w1]", "chinese_wall: [w1, w2]", ["10:40: label 'web' holds two types of conflict set 'rivals': w1 and w2"]),
    ("{ste: [red], ch", "{ste: [reed], ch", ["10:15: unknown STE type 'reed'; did you mean 'red'?"]),
    ("chinese_wall: [w1]", "chinese_wall: [zz]", ["10:36: unknown Chinese Wall type 'zz'"]),
    ("was: www", "was: db", ["10:46: label 'db' is still in the policy; it cannot be renamed away"]),
    ("chinese_wall: [w2]}\ng", "chinese_wall: [w2], was: web}\ng", ["11:51: label 'web' is still in the policy; it cannot be renamed away"]),
    ("colours: [pink]", "colours: [pink, pink]", ["10:67: colour 'pink' was named already, at P:10:61"]),
    ("  db: {ste", "  any: {ste: [red]}\n  db: {ste", ["11:3: 'any' is a word of the rules; no label can have it as a name"]),
    ("  db: {ste", "  web: {ste: [red]}\n  db: {ste", ["11:3: key 'web' was given already, on line 10"]),
    ("  db: {ste", "  'x y': {ste: [red]}\n  db: {ste", ["11:3: label 'x y' is not a name: letters, digits and _.()-, beginning with a letter or digit"]),
    ("  db: {ste", "  " + "x" * 129 + ": {ste: [red]}\n  db: {ste", ["11:3: label has 129 characters; at most 128 may be"]),
    ("tier: [web, db]", "tier: [web, group:x]", ["12:22: unknown label 'group:x'"]),
    ("lun: {ste: [red]", "lun: {ste: [red, blue]", ["14:3: resource 'lun' needs exactly one STE type"]),
    ("lun: {ste: [red]", "lun: {ste: []", ["14:3: resource 'lun' needs exactly one STE type"]),
    ('"/dev/red-*"', '"/dev/../red-*"', ["14:63: '..' never matches: write the path that it stands for"]),
    ('class: vbd, params: "/dev/red-*"', 'params: "/dev/red-*"', ["14:8: a 'match' says which 'class' of device it is about"]),
    ('"/dev/red-*"', '"/dev/\\e*"', ["14:63: not printable: /dev/\\x1b*"]),
    ("class: uplink, bridge: xenbr0", 'class: vbd, params: "/dev/*-1"', ["15:3: a device can match both 'nic' and 'lun' (P:14:3), and neither match is the more specific: one must lie within the other, or apart from it"]),
    ("vif, default: ste", "vif, default: maybe", ["17:33: expected ste or deny, not 'maybe'"]),
    ("vif, default: ste", "vif", ["17:8: 'default' is missing: what holds where no rule speaks?"]),
    ("  vbd: {protocol", "  default: {default: deny}\n  vbd: {protocol", ["18:3: 'default' is a word of the policy; no class can have it as a name"]),
    ("allow: {class: vbd,", "allow: {class: vdb,", ["20:21: unknown class 'vdb'; did you mean 'vbd'?"]),
    ("allow: {class: vbd,", "allow: {", ["20:13: 'class' is missing"]),
    (", backend: dom0}", "}", ["20:13: 'backend' is missing: an allow says who, or 'backend: any'"]),
    ("frontend: [web, db],", "", ["20:13: 'frontend' is missing: an allow says who, or 'frontend: any'"]),
    ("frontend: [web, db]", "frontend: [web, any]", ["20:42: 'any' stands alone"]),
    ("frontend: [web, db]", "frontend: []", ["20:13: an empty list of label names matches nothing"]),
    ("frontend: [web, db]", "frontend: group:none", ["20:36: unknown label 'group:none'; did you mean 'group:tier'?"]),
    ("frontend: [web, db]", "frontent: [web, db]", ["20:26: unknown key 'frontent'; did you mean 'frontend'?"]),
    ("resource: lun", "resource: any", ["21:57: unknown resource 'any'"]),
    ("mode: w", "mode: rw", ["21:68: expected r or w, not 'rw'"]),
    ("between: [web, db]", "between: [web]", ["22:12: 'between' takes two labels (one label twice for itself)"]),
    ("between: [web, db]", "between: [web, group:tier]", ["22:40: unknown label 'group:tier'"]),
    ("between: [web, db]", "between: [web, db], frontend: web", ["22:55: 'frontend' does not go with 'between'"]),
    ("between: [web, db]", "between: [web, db], mode: r", ["22:12: 'mode' does not go with 'between'"]),
    ("class: vif, between", "class: vbd, between", ["22:12: 'between' is for class vif alone"]),
    ("- {deny: {class: vif", "- {allow: {class: vif}, deny: {class: vif", ["22:5: a rule is one 'allow' or one 'deny'"]),
    ("vif: reset", "vif: explode", ["23:37: expected report or close or reset or quarantine or destroy, not 'explode'"]),
    ("vif: reset", "vfi: reset", ["23:32: unknown class 'vfi'; did you mean 'vif'?"]),
    ("mode: enforce", "mode: permissive", ["24:7: expected enforce, not 'permissive'"]),
    ("host_authorization: true", "host_authorization: yes", ["25:21: expected true or false, not 'yes'"]),
    ("protected: [dom0]", "protected: [dom9]", ["26:13: unknown label 'dom9'; did you mean 'dom0'?"]),
    ("roles: {}", "roles: {op: [{verbs: [x], label: [nix], group: tier}]}", ["27:35: unknown label 'nix'"]),
    ("roles: {}", "rules: {}", ["27:1: unknown key 'rules'; did you mean 'roles'?"]),
    ("bootstrap: dom0\n", "", ["1:1: 'bootstrap' is missing"]),
    ("tier: [web, db]", "tier: *web", ["12:16: aliases are refused: write the value out", "12:16: expected a list or a mapping, not a text", "21:35: unknown label 'group:tier'"]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "wanted"), CASES)
def test_what_is_wrong_is_said_with_its_place(old, new, wanted):
    assert GOOD.count(old) == 1, "a case must change one place"
    with pytest.raises(ProblemsError) as caught:
        load_policy(GOOD.replace(old, new).encode(), "P")
    assert [str(problem) for problem in caught.value.problems] == [f"P:{it}" for it in wanted]


def test_the_good_policy_has_neither_problems_nor_warnings():
    policy, warnings = check_policy(GOOD.encode(), "P")
    assert warnings == []
    assert (policy.name, policy.version, policy.host_authorization) == ("corp", (1, 4), True)
    assert policy.labels == ("dom0", "web", "db")
    assert policy.protocol_of("vbd") == "vbd"
    assert policy.protocol_of("9pfs") is None
    assert policy.needs_resource("vbd")
    assert not policy.needs_resource("vif")
    assert policy.on_violation("vif") == "reset"
    assert policy.on_violation("vbd") == "close"
    assert policy.protected == frozenset({"dom0"})
    assert policy.renamed_from("web") == "www"


def test_everything_is_said_at_once():
    text = GOOD
    for old, new in (("bootstrap: dom0", "bootstrap: x"), ("[web, db]}}\no", "[q, db]}}\no")):
        text = text.replace(old, new)
    text = text.replace("protected: [dom0]", "protected: [y]")
    with pytest.raises(ProblemsError) as caught:
        load_policy(text.encode(), "P")
    assert [problem.line for problem in caught.value.problems] == [7, 22, 26]


def test_what_is_malformed_does_not_hide_what_is_unknown():
    text = GOOD.replace("bootstrap: dom0", "bootstrap: x").replace("mode: w", "mood: w")
    text = text.replace("red, chinese", "red, [], chinese").replace("{ste: [red]}", "{}")
    with pytest.raises(ProblemsError) as caught:
        load_policy((text + "extra: 1\n").encode(), "P")
    assert [problem.line for problem in caught.value.problems] == [7, 21, 28]


def test_rules_that_spell_out_too_much_are_refused_before_they_are_indexed():
    names = ", ".join(f"x{number}" for number in range(2000))
    labels = "".join(f"  x{number}: {{ste: [red]}}\n" for number in range(2000))
    text = GOOD.replace("groups:", labels + "groups:")
    text = text.replace(
        "frontend: [web, db], backend: dom0", f"frontend: [{names}], backend: [{names}]"
    )
    with pytest.raises(ProblemsError) as caught:
        load_policy(text.encode(), "P")
    (problem,) = caught.value.problems
    assert str(problem) == (
        "P:2020:5: the rules up to this one spell out more than 1,000,000 combinations of class, "
        "frontend, backend and resource: use groups, or 'any'"
    )


def test_observe_mode_is_checked_like_the_rules():
    observe = (
        "mode: {observe: {opens: [{class: vfi, frontend: nix}, {class: vbd, backend: group:nix, "
        "resource: nix}, {class: [], frontend: [any, web]}], until: 2027-02-29}}"
    )
    with pytest.raises(ProblemsError) as caught:
        load_policy(GOOD.replace("mode: enforce", observe).encode(), "P")
    assert [str(problem) for problem in caught.value.problems] == [
        "P:24:34: unknown class 'vfi'; did you mean 'vif'?",
        "P:24:49: unknown label 'nix'",
        "P:24:77: unknown label 'group:nix'; did you mean 'group:tier'?",
        "P:24:98: unknown resource 'nix'; did you mean 'nic'?",
        "P:24:104: an empty list of class names matches nothing",
        "P:24:127: 'any' stands alone",
        "P:24:147: 'until' is a date, YYYY-MM-DD, not '2027-02-29'",
    ]


@pytest.mark.parametrize(
    "until", ["tomorrow", "2027-1-31", "2027-13-01", "2027-00-01", "2027-01-00", "0000-01-01"]
)
def test_until_is_a_date_that_exists(until):
    observe = f"mode: {{observe: {{opens: [{{class: vif}}], until: {until}}}}}"
    with pytest.raises(ProblemsError) as caught:
        load_policy(GOOD.replace("mode: enforce", observe).encode(), "P")
    assert "'until' is a date" in str(caught.value)


def test_observe_mode_that_opens_nothing_is_refused_and_what_opens_is_warned_of():
    nothing = "mode: {observe: {opens: [], until: 2027-01-31}}"
    with pytest.raises(ProblemsError) as caught:
        load_policy(GOOD.replace("mode: enforce", nothing).encode(), "P")
    assert str(caught.value) == "P:24:17: observe mode that opens nothing: write 'mode: enforce'"
    some = "mode: {observe: {opens: [{class: vif}], until: 2027-01-31}}"
    _, warnings = check_policy(GOOD.replace("mode: enforce", some).encode(), "P")
    assert [str(it) for it in warnings] == [
        "P:24:7: observe mode: no broker honours it yet, and brokerd refuses to load this policy"
    ]


def test_left_out_sections_have_the_defaults_of_the_contract():
    text = (
        'policy: p\nversion: "0.1"\nste_types: [t]\nbootstrap: a\n'
        "labels: {a: {ste: [t]}}\nclasses: {vif: {default: deny}}\n"
    )
    policy = load_policy(text.encode(), "P")
    assert policy.on_violation("vif") == "close"
    assert policy.host_authorization
    assert policy.protected == frozenset()
    assert policy.protocol_of("vif") == "vif"


def test_the_digest_is_of_the_exact_bytes():
    one = load_policy(GOOD.encode(), "P").digest
    other = load_policy((GOOD + "\n").encode(), "P").digest
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", one)
    assert one != other


WARNINGS = [
    ("[system, red, blue]\nc", "[system, red, blue, gone]\nc", ["4:32: unused: no label has STE type 'gone'"]),
    ("[w1, w2]\nc", "[w1, w2, w3]\nc", ["5:30: unused: no label has Chinese Wall type 'w3'"]),
    ("conflict_sets: {rivals: [w1, w2]}\n", "", ["5:22: unused: no conflict set has Chinese Wall type 'w1'", "5:26: unused: no conflict set has Chinese Wall type 'w2'"]),
    ("tier: [web, db]", "tier: [web, db], spare: []", ["12:27: group 'spare' is empty: rules for it match nothing", "12:27: unused: no rule or role names group 'spare'"]),
    ("lun: {ste: [red], colour: pink", "lun: {ste: [red], colour: green", ["14:29: no label has colour 'green': nobody gets 'lun'"]),
    (", match: {class: uplink, bridge: xenbr0}", "", ["15:3: unused: nothing matches or names resource 'nic'"]),
    ('"/dev/red-*"', '"/dev/red-?"', ["14:63: '?' and '[' stand for themselves; only '*' is special"]),
    ("  db: {ste: [blue, red]", "  db: {ste: []", ["11:3: label 'db' has no STE type: it gets no channel"]),
    ("[system, red, blue]}", "[system, red]}", ["11:3: label 'db' can never run: db is not authorized on this host: dom0 lacks STE blue"]),
    ("dom0: {ste: [system, red, blue]}", "dom0: {ste: [system, red, blue], chinese_wall: [w1]}", ["11:3: label 'db' can never run: conflict set rivals: db has w2, dom0 is running and has w1"]),
    ("channels:\n", "channels:\n  - {allow: {class: vbd, frontend: db, backend: [dom0], mode: r}}\n", ["20:5: redundant: P:21:5 says so already: allow vbd frontend web,db backend dom0 mode w"]),
    ("channels:\n", "channels:\n  - {allow: {class: vbd, frontend: [db, web], backend: dom0}}\n", ["21:5: redundant: P:20:5 says so already: allow vbd frontend db,web backend dom0 mode w"]),
    ("channels:\n", "channels:\n  - {deny: {class: vbd, frontend: web, resource: lun, mode: w}}\n", ["20:5: redundant: P:22:5 says so already: deny vbd frontend group:tier resource lun mode w"]),
    ("channels:\n", "channels:\n  - {deny: {class: vbd, backend: dom0}}\n", ["21:5: unreachable: P:20:5 denies it: deny vbd backend dom0 mode r"]),
    ("channels:\n", "channels:\n  - {allow: {class: vif, frontend: web, backend: dom0}}\n", ["20:5: redundant: the class's default is 'ste' already"]),
    ("frontend: [web, db], backend: dom0", "frontend: web, backend: odd", ["9:3: label 'odd' can never run: odd is not authorized on this host: dom0 lacks STE odd", "21:5: unreachable: no frontend named here shares an STE type with a backend"]),
    ("channels:\n", "channels:\n  - {allow: {class: vif, between: [db, web]}}\n", ["20:5: unreachable: another rule denies this pair"]),
    ("channels:\n", "channels:\n  - {deny: {class: vif, between: [db, web]}}\n", ["23:5: redundant: P:20:5 says so already"]),
    ("roles: {}", "roles: {op: []}", ["27:9: role 'op' grants nothing"]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "wanted"), WARNINGS)
def test_what_does_nothing_is_warned_of_and_still_loads(old, new, wanted):
    assert GOOD.count(old) == 1, "a case must change one place"
    text = GOOD.replace(old, new)
    if "backend: odd" in text:
        text = text.replace("labels:\n", "labels:\n  odd: {ste: [odd]}\n")
        text = text.replace("[system, red, blue]\nc", "[system, red, blue, odd]\nc")
    _, warnings = check_policy(text.encode(), "P")
    assert [str(problem) for problem in warnings] == [f"P:{it}" for it in wanted]


def test_a_label_that_no_rule_gives_a_channel_is_unused():
    text = (
        'policy: p\nversion: "0.1"\nste_types: [t]\nbootstrap: a\n'
        "labels:\n  a: {ste: [t]}\n  b: {ste: [t]}\n  c: {ste: [t]}\n"
        "groups: {g: [b]}\nclasses: {vif: {default: deny}}\n"
        "channels: [{allow: {class: vif, frontend: 'group:g', backend: a}}]\n"
    )
    _, warnings = check_policy(text.encode(), "P")
    assert [str(it) for it in warnings] == [
        "P:8:3: unused: no rule or default gives label 'c' a channel"
    ]


def test_the_shipped_example_is_clean():
    path = Path(__file__).parents[2] / "etc" / "policy.yaml"
    assert check_policy(path.read_bytes(), "P")[1] == []
