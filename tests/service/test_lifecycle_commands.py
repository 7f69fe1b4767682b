"""brokerctl about what runs, on a running broker: compare, explain, suggest."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from broker_host import POLICY, until, uuid_of

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred


def write(box, name, text):
    path = box.directory / name
    path.write_text(text)
    return path


@run
async def test_diff_live_names_the_running_channels_and_domains_that_lose(host, box, ctl):
    await box.start()
    host.create(3, name="web3")
    box.label(uuid_of(3), "plain")
    vif = host.vif(3)
    host.report(vif)
    await host.decided(vif, "grant")
    new = write(box, "new.yaml", POLICY.replace("  plain: {ste: [red]}\n", ""))
    code, out, err = await ctl("policy", "diff", box.policy, new, "--live")
    assert (code, err) == (0, "")
    assert f"- {vif}" in out
    assert "domain 3 (web3): its label is gone" in out
    assert host.verdict(vif) == "grant"
    code, out, err = await ctl("policy", "diff", box.policy, box.policy, "--live")
    assert "nothing gains or loses" in out
    code, _, err = await ctl("policy", "diff", new, box.policy, "--live")
    assert code == 1
    assert "it was to replace" in err


@run
async def test_explain_prints_the_smallest_changes_that_would_grant(host, box, ctl):
    await box.start()
    host.create(3)
    box.label(uuid_of(3), "plain")
    vbd = host.vbd(3)
    host.report(vbd)
    await host.decided(vbd, "deny")
    code, out, _ = await ctl("channel", "explain", "vbd/3/51712")
    assert code == 1
    assert "would be granted by" in out
    assert "storage_red" in out.partition("would be granted by")[2]


@run
async def test_suggest_turns_what_was_observed_into_a_policy_that_grants_it(host, box, ctl):
    mode = "mode: {observe: {opens: [{class: vbd, frontend: plain}], until: 2099-12-31}}\n"
    box.policy.write_text(POLICY + mode)
    await box.start()
    host.create(3)
    box.label(uuid_of(3), "plain")
    vbd = host.vbd(3)
    host.report(vbd)
    await host.decided(vbd, "grant", "observed: would be denied")
    await until(lambda: box.engine.state.observed)
    code, out, _ = await ctl("policy", "observed", "--json")
    assert code == 0
    assert json.loads(out)["frontend"] == "plain"
    code, out, _ = await ctl("policy", "suggest", "--observed", "--whole")
    assert code == 0
    await box.load(out.partition("\nmode:")[0])
    await until(lambda: "observed" not in host.record(vbd).reason)
    assert host.verdict(vbd) == "grant"


CONFIG = """\
name = "web1"
uuid = "00000000-0000-4000-8000-000000000003"
acm_label = ['labelname=plain,policyname=corp']
"""


@run
async def test_from_config_labels_a_domain_before_it_is_created_and_it_runs_with_that(
    host, box, ctl
):
    await box.start()
    code, out, err = await ctl("label", "from-config", write(box, "web1.cfg", CONFIG))
    assert (code, err) == (0, "")
    assert f"{uuid_of(3)}: - -> plain" in out
    host.create(3, name="web1")
    vif = host.vif(3)
    host.report(vif)
    await host.decided(vif, "grant")


@run
async def test_from_config_labels_by_name_where_there_is_no_uuid(box, ctl):
    await box.start()
    text = "".join(line for line in CONFIG.splitlines(True) if not line.startswith("uuid"))
    code, out, _ = await ctl("label", "from-config", write(box, "web1.cfg", text))
    assert code == 0
    assert "web1: - -> plain" in out
    assert ("name", "web1") in box.engine.state.labels


@pytest.mark.parametrize(
    ("text", "words", "says"),
    [
        (CONFIG.replace("corp", "other"), (), "web1.cfg:3:14: the label is of policy 'other'"),
        (CONFIG.replace("plain", "nobody"), (), "web1.cfg:3:14: policy corp has no label 'nobody'"),
        (CONFIG + "!", (), "web1.cfg:4:1: not NAME = value"),
        (CONFIG, ("--digest", "sha256:" + "0" * 64), "is in force, not sha256:000"),
        ("name = 'x'\nssidref = 262148", (), "web1.cfg:2:11: ssidref 262148 is a number in some"),
        (
            "name = 'x'\nssidref = 262148",
            ("--numbering", "document"),
            "web1.cfg:2:11: ssidref 262148 is a number in some",
        ),
    ],
)
@run
async def test_from_config_refuses_what_it_cannot_know_at_its_place(box, ctl, text, words, says):
    await box.start()
    code, _, err = await ctl("label", "from-config", write(box, "web1.cfg", text), *words)
    assert code == 2
    assert says in err
    assert not box.engine.state.labels


@run
async def test_a_number_is_a_label_only_by_its_numbering_and_the_policys_digest(box, ctl):
    await box.start()
    digest = box.engine.judge.policy.digest
    config = write(box, "old.cfg", "name = 'old'\nssidref = 0x00030003\n")
    for scheme, label in (("document", "web_b"), ("alphabetical", "lonely")):
        words = ("--numbering", scheme, "--digest", digest)
        code, out, _ = await ctl("label", "from-config", config, *words)
        assert code == 0
        assert f"-> {label}" in out
    both = "name = 'old'\nssidref = 0x00030003\naccess_control = ['ACM:corp:plain']\n"
    words = ("--numbering", "document", "--digest", digest)
    code, _, err = await ctl("label", "from-config", write(box, "two.cfg", both), *words)
    assert (code, "ssidref 196611 is web_b there" in err) == (2, True)
