"""brokerctl channel connect, disconnect and reset: what is asked, what is shown."""

from __future__ import annotations

import json

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from broker.cli import main as brokerctl
from broker.rpc.errors import RpcError


@pytest.fixture
def run(serve, capsys):
    """Runs brokerctl on a served socket and answers exit code, standard output and error."""
    path = serve()

    async def start(*words):
        code = await deferToThread(brokerctl.main, ["--socket", str(path), "channel", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return start


@ensureDeferred
async def test_a_channel_is_connected_by_hand(run, admin):
    words = ("--domain", "web1", "--resource", "lun_red", "--params", "/dev/vg/red-2")
    code, out, _ = await run("connect", *words, "--mode", "r", "--devid", "51728")
    assert (code, out) == (0, "vbd/3/51728 -> 0 set up\\x1b[2J\n")
    name, _, asked = admin.calls[-1]
    assert name == "channel.connect"
    assert (asked.domain, asked.resource, asked.params) == ("web1", "lun_red", "/dev/vg/red-2")
    assert (asked.mode, asked.devid, asked.backend) == ("r", 51728, "0")
    code, out, _ = await run("connect", "--json", "--domain", "3", "--class", "vif")
    assert (code, json.loads(out)["device"]) == (0, "51728")


@pytest.mark.parametrize(("words", "force"), [((), False), (("--force",), True)])
@ensureDeferred
async def test_a_channel_is_disconnected_by_hand(run, admin, words, force):
    code, _, _ = await run("disconnect", "vbd/web1/51728", *words)
    assert code == 0
    name, _, asked = admin.calls[-1]
    assert (name, asked.force) == ("channel.disconnect", force)
    assert (asked.device_class, asked.frontend, asked.device) == ("vbd", "web1", "51728")


@ensureDeferred
async def test_a_channel_is_reset_by_hand(run, admin):
    assert (await run("reset", "vif/3/0"))[0] == 0
    assert admin.calls[-1][0] == "channel.reset"


@ensureDeferred
async def test_what_is_no_channel_is_bad_input(run, admin):
    code, _, err = await run("reset", "vif3")
    assert code == 2
    assert "not a channel" in err
    assert admin.calls == []


@ensureDeferred
async def test_a_denial_is_shown_with_its_reasons(run, admin):
    admin.fail = RpcError("denied", "the policy denies it", ("corp.yaml:9:3: no shared type",))
    code, _, err = await run("connect", "--domain", "web1", "--resource", "lun_red")
    assert code == 1
    assert "corp.yaml:9:3: no shared type" in err
