"""An agent's host with labels on its bridge: two guests, and policies in a directory."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from agent_host import Host, config
from support.xenstoreds import wait_until

CTL = Path(sys.executable).parent / "brokerctl"
POLICY = """
policy: {name}
version: "1.0"
ste_types: [red, blue]
bootstrap: dom0
labels:
  dom0: {{ste: [red, blue]}}
  web: {{ste: [red]}}
  shop: {{ste: [red]}}
  bank: {{ste: [blue]}}
classes:
  vif: {{protocol: vif, default: ste}}
channels: {rules}
"""
OPEN = POLICY.format(name="open", rules="[]")
SHUT = POLICY.format(
    name="shut", rules="[{deny: {class: vif, between: [web, shop], reason: apart}}]"
)


def digest(text):
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class Bridged(Host):
    """vif3.0 and vif4.0 are both the agent's; `policies` is the operator's directory."""

    def __init__(self, daemon, lab, directory):
        super().__init__(daemon, lab, directory)
        self.policies = directory / "policies"
        self.policies.mkdir()
        self.put(OPEN)
        self.report_file = directory / "net.json"
        self.config = config(
            directory,
            store=daemon.address,
            bridges="[xpbr0]",
            policies="policies",
            net_report="net.json",
        )
        lab.host.ip("link", "set", "vif4.0", "nomaster")
        lab.host.ip("link", "set", "vif4.0", "down")

    def put(self, policy):
        (self.policies / f"{digest(policy)[-8:]}.yaml").write_text(policy)

    def grant(self, fe, label, policy=OPEN, **changes):
        named = {"labels": (label, "dom0"), "policy": digest(policy)}
        self.decide("vif/0", fe=fe, **{**named, **changes})

    def begin(self, labels, policy=OPEN):
        """The agent, and a vif for each label that is granted and reported open."""
        self.start()
        for fe in labels:
            self.attach("vif/0", fe=fe, mac=f"00:16:3e:00:00:{fe:02x}")
        for fe, label in labels.items():
            wait_until(lambda fe=fe: self.report("vif/0", "nonce", fe), f"a nonce of {fe}")
            self.grant(fe, label, policy)
        self.come_to("open", *labels)

    def follow(self, policy):
        """Wait until the agent has put this policy in force, or found that it has no file."""
        self.beat_until(lambda: self.shown()["policy"] == digest(policy), "the policy in force")

    def be_labelled(self, **labels):
        """Wait until these ports have these labels (None: no label) in force."""

        def are():
            found = self.labels()
            return all(found.get(f"{name}.0") == label for name, label in labels.items())

        self.beat_until(are, f"{labels}")

    def come_to(self, state, *frontends):
        self.beat_until(
            lambda: {self.enforced("vif/0", fe) for fe in frontends} == {state},
            f"{frontends} {state}; {self.text()[-2000:]}",
        )

    def reason(self, fe):
        return (self.report("vif/0", "enforced", fe) or b"").decode()

    def passes(self):
        return self.lab.passes(3, 4) and self.lab.passes(4, 3)

    def leaks(self):
        return self.lab.passes(3, 4) or self.lab.passes(4, 3)

    def run(self, *command):
        """Within the host's namespace; what it prints."""
        words = ["ip", "netns", "exec", self.lab.host.name, *command]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def helper(self):
        """The net helper's process."""
        inside = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        (helper,) = [int(word) for word in Path(inside).read_text().split()]
        return helper

    def net_show(self):
        return self.run(str(CTL), "net", "show", "--report", str(self.report_file))

    def shown(self):
        return json.loads(self.report_file.read_text())

    def labels(self):
        return {it["name"]: it["label"] for it in self.shown()["ports"]}
