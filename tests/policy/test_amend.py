"""An amendment grants all that was seen; and what of it a person reads."""

import io
import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.definitions import CLASSES, LABELS, RESOURCES, definitions

from broker.cli.main import main
from broker.core.policy import Policy
from broker.policy.amend import amend, amendment_text, whole_text
from broker.policy.load import load_policy

requests = st.tuples(
    st.sampled_from((*CLASSES, "9pfs")),
    st.sampled_from((*LABELS, "stranger")),
    st.sampled_from(LABELS),
    st.sampled_from((None, *RESOURCES, "unknown")),
    st.sampled_from("rw"),
)


@settings(max_examples=40, deadline=None)
@given(definitions(), st.lists(requests, max_size=6))
def test_everything_seen_is_granted_and_nothing_else_of_the_policy_is_touched(definition, seen):
    policy = Policy(definition)
    amendment = amend(policy, seen)
    made = Policy(amendment.definition)
    assert amendment.unmet == ()
    taken = dict(amendment.matches)
    for request in seen:
        device_class, frontend, backend, resource, mode = request
        resource = taken.get(request, resource)
        assert made.decide(device_class, frontend, backend, resource, mode)
    assert amendment.denied == sum(not policy.decide(*it) for it in set(seen))
    if not amendment.denied:
        assert amendment.changes == ()
        assert amendment.definition == definition
    assert amendment_text(policy, amendment).isascii()


POLICY = """\
policy: corp
version: "1.4"
ste_types: [t, u]
bootstrap: dom0
labels: {dom0: {ste: [t, u]}, a: {ste: [t]}, b: {ste: [t]}, c: {ste: [t], colours: [red]}}
groups: {ab: [a, b], abc: [a, b, c], only: [c]}
resources:
  r: {ste: [t], match: {class: vbd, params: /dev/r}}
  s: {ste: [u], colour: red, match: {class: vbd, params: /dev/s}}
classes: {vif: {default: ste}, vbd: {default: deny}}
channels:
  - {deny: {class: vif, frontend: a, backend: b, reason: "apart\\n"}}
"""


def amended(*seen):
    policy = load_policy(POLICY.encode(), "P")
    return policy, amend(policy, seen)


def text(*seen):
    return amendment_text(*amended(*seen))


def test_what_is_denied_alike_becomes_one_rule_with_groups():
    said = text(
        ("vbd", "a", "dom0", "r", "w"),
        ("vbd", "b", "dom0", "r", "w"),
        ("vbd", "a", "dom0", "r", "r"),
        ("vbd", "c", "dom0", "r", "r"),
    )
    assert (
        said
        == """\
# Of what was seen, corp 1.4 denies 4 requests.
# This would grant all of it; look at every line before it goes into the policy.
version: "1.5"
from: {policy: corp, version: "1.4"}

# To be added to `channels`:
channels:
  - {allow: {class: vbd, frontend: c, backend: dom0, resource: r, mode: r}}
  - {allow: {class: vbd, frontend: group:ab, backend: dom0, resource: r}}
"""
    )


def test_labels_are_written_whole_and_what_needs_a_person_is_said():
    said = text(
        ("vbd", "a", "dom0", "s", "w"),
        ("vif", "a", "b", None, "w"),
        ("vbd", "b", "dom0", None, "w"),
    )
    assert (
        said
        == """\
# Of what was seen, corp 1.4 denies 3 requests.
# This would grant all of it; look at every line before it goes into the policy.
version: "1.5"
from: {policy: corp, version: "1.4"}

# In `labels`, these labels as they stand:
labels:
  a: {ste: [t, u], colours: [red]}

# To be added to `channels`:
channels:
  - {allow: {class: vbd, frontend: b, backend: dom0, resource: r}}
  - {allow: {class: vbd, frontend: a, backend: dom0, resource: s}}

# These rules stop some of it; remove them, or narrow them:
#   channels[0], P:12:5: apart\\x0a

# These matched no resource; a `match` has to find their device:
#   vbd b to dom0, mode w, as r
"""
    )


def test_what_is_granted_needs_nothing():
    assert text(("vif", "a", "dom0", None, "w")) == "# Of what was seen, corp 1.4 denies nothing.\n"


def test_a_request_that_nothing_helps_is_listed():
    policy, amendment = amended(("vif", "a", "dom0", None, "x"))
    assert amendment.unmet == (("vif", "a", "dom0", None, "x"),)
    assert "# For these nothing was found:\n#   vif a to dom0, mode x\n" in amendment_text(
        policy, amendment
    )


def test_the_whole_policy_is_the_next_version_and_loads():
    policy, amendment = amended(("vbd", "a", "dom0", "s", "w"))
    whole = load_policy(whole_text(policy, amendment).encode(), "W")
    assert (whole.version, whole.definition.replaces) == ((1, 5), ("corp", (1, 4)))
    assert whole.decide("vbd", "a", "dom0", "s")
    assert not whole.decide("vbd", "b", "dom0", "s")


@pytest.fixture
def run(capfdbinary, monkeypatch, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(POLICY)

    def brokerctl(*arguments, seen=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(seen)))
        code = main(["policy", *arguments, "--policy", str(path)])
        captured = capfdbinary.readouterr()
        return code, captured.out.decode(), captured.err.decode()

    return brokerctl


SEEN = b'{"class":"vbd","frontend":"a","backend":"dom0","resource":"r"}\n'


def test_suggest_on_the_command_line(run, tmp_path):
    code, out, _ = run("suggest", seen=SEEN)
    assert code == 0
    assert out == text(("vbd", "a", "dom0", "r", "w"))
    code, out, _ = run("suggest", "--whole", seen=SEEN)
    assert load_policy(out.encode(), "W").decide("vbd", "a", "dom0", "r")
    code, out, _ = run("suggest", "--json", seen=SEEN)
    assert json.loads(out)["changes"] == ["allow vbd frontend a backend dom0 resource r"]
    code, out, err = run("suggest", seen=SEEN + b"{}\n")
    assert (code, out) == (2, "")
    assert err.startswith("-:2:1: ")
    assert run("suggest", "--requests", str(tmp_path / "none"))[0] == 2


def test_decide_suggests_only_when_asked_to(run):
    code, out, _ = run("decide", seen=SEEN)
    assert set(json.loads(out)) == {"verdict", "reasons"}
    code, out, _ = run("decide", "--suggest", seen=SEEN + SEEN.replace(b"vbd", b"vif"))
    assert code == 1
    denied, granted = (json.loads(line) for line in out.splitlines())
    assert denied["suggestions"] == [["allow vbd frontend a backend dom0 resource r"]]
    assert set(granted) == {"verdict", "reasons"}
