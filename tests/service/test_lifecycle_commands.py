"""brokerctl about what runs, on a running broker: compare, explain, suggest."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from broker_host import POLICY, until, uuid_of
from twisted.internet.threads import deferToThread

from broker.cli import main as brokerctl

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred


@pytest.fixture
def ctl(box, capsys):
    """Runs brokerctl against the broker of the box: exit code, standard output and error."""

    async def start(*words):
        words = [str(word) for word in ("--socket", box.directory / "rpc.sock", *words)]
        code = await deferToThread(brokerctl.main, words)
        out, err = capsys.readouterr()
        return code, out, err

    return start


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
