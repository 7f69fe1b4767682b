"""brokerd as an unprivileged domain, dom0's helper and agents: the whole way, on each store."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_twisted
from bed import start_agent, until
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from test_helper import BACKEND, BROKER, DRIVER, GUEST, VIF, Host
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from broker.agent.helper import HelperSession

COMMANDS = Path(sys.executable).parent
POLICY = """
policy: test
version: "1.0"
ste_types: [red, blue]
bootstrap: dom0
labels:
  dom0: {ste: [red, blue]}
  net: {ste: [red]}
  web: {ste: [red]}
  other: {ste: [blue]}
classes:
  vif: {protocol: vif, default: ste}
"""


class Whole(Host):
    """A host whose broker is the real program, on the broker domain's ring."""

    def __init__(self, daemon, directory):
        super().__init__(daemon)
        self.directory = directory
        (directory / "policy.yaml").write_text(POLICY)
        (directory / "broker.yaml").write_text(
            f"store: {self.guests[BROKER].address}\nstate: state\npolicy: policy.yaml\n"
            "rpc: {socket: broker.sock}\n"
        )
        self.log = (directory / "log").open("ab")
        self.program = None

    def start(self, *options):
        command = [str(COMMANDS / "brokerd"), "--config", str(self.directory / "broker.yaml")]
        self.program = subprocess.Popen([*command, *options], stderr=self.log)

    def end(self, number=signal.SIGTERM):
        self.program.send_signal(number)
        self.program.wait(10)

    def key(self):
        return load_pem_public_key((self.directory / "state" / "broker.pub").read_bytes())

    async def ctl(self, *words):
        command = [str(COMMANDS / "brokerctl"), "--json", "--socket", "broker.sock", *words]
        ran = await deferToThread(
            subprocess.run, command, cwd=self.directory, capture_output=True, text=True, timeout=30
        )
        assert ran.returncode == 0, (words, ran.stdout, ran.stderr)
        return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest_twisted.async_yield_fixture
async def host(store_daemon, tmp_path):
    made = Whole(store_daemon, tmp_path)
    helper = HelperSession(store_daemon.address, reactor, broker=BROKER)
    helper.startService()
    made.start("--init")
    yield made
    if made.program.poll() is None:
        made.end(signal.SIGKILL)
    await helper.stopService()
    made.close()


@pytest.mark.parametrize("label", ["web", "other"])
@pytest_twisted.ensureDeferred
async def test_a_label_decides_what_a_driver_domain_opens(host, tmp_path, label):
    net = "aaaaaaaa-f417-45de-ab20-17715a9d5aab"
    host.store.write(f"/local/domain/{DRIVER}/vm", f"/vm/{net}")
    host.store.write(f"/vm/{net}/name", "net")
    await until((tmp_path / "broker.sock").exists)
    await until(lambda: (host.read("/broker/v1/state") or b"") == b"enforcing")
    agent = start_agent(
        host.guests[DRIVER].address, tmp_path / "agent", domid=DRIVER, key=host.key()
    )
    host.create()
    await host.nonce(VIF, fe=GUEST, be=DRIVER)
    assert not host.gate(VIF, fe=GUEST, be=DRIVER)
    await host.ctl("label", "set", "net", "net")
    await host.ctl("label", "set", "web", label)
    if label == "web":
        await host.comes_to(VIF, "open", fe=GUEST, be=DRIVER)
        host.end(signal.SIGKILL)
        assert host.gate(VIF, fe=GUEST, be=DRIVER)
        (tmp_path / "broker.sock").unlink()
        host.start()
        await until((tmp_path / "broker.sock").exists)
        await host.ctl("label", "set", "web", "other")
        await host.comes_to(VIF, "suspended", fe=GUEST, be=DRIVER)
    else:
        await until(lambda: b"STE" in (host.report(VIF, "enforced", GUEST, DRIVER) or b"").upper())
    assert not host.gate(VIF, fe=GUEST, be=DRIVER)
    assert host.read(f"{BACKEND}/frontend") is not None
    await agent.stop()
