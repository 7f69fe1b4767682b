"""Three policies, and by hand what they allow: no line of the product decides here."""

from __future__ import annotations

import hashlib

STE = {
    "SystemManagement": {"system", "red", "blue", "storage_red", "storage_blue"},
    "red": {"red", "storage_red"},
    "blue": {"blue", "storage_blue"},
    "bank_a": {"red"},
    "bank_b": {"red"},
    "driver": {"red"},
}
WALL = {"bank_a": "bank_b", "bank_b": "bank_a"}
DISKS = {"disks_red": "storage_red", "disks_blue": "storage_blue"}
_TEXT = """\
policy: corp
version: "1.{number}"
ste_types: [system, red, blue, storage_red, storage_blue]
chinese_wall_types: [bank_a, bank_b]
conflict_sets: {{rivals: [bank_a, bank_b]}}
bootstrap: SystemManagement
labels:
  SystemManagement: {{ste: [system, red, blue, storage_red, storage_blue]}}
  red: {{ste: [red, storage_red]}}
  bank_a: {{ste: [red], chinese_wall: [bank_a]}}
  bank_b: {{ste: [red], chinese_wall: [bank_b]}}
  driver: {{ste: [red]}}
{blue}resources:
  disks_red: {{ste: [storage_red], match: {{class: vbd, params: "/dev/vg/red-*"}}}}
  disks_blue: {{ste: [storage_blue], match: {{class: vbd, params: "/dev/vg/blue-*"}}}}
classes:
  vif: {{protocol: vif, default: ste}}
  vbd: {{protocol: vbd, default: deny}}
channels:
  - {{allow: {{class: vbd, frontend: [{disks}], backend: SystemManagement}}}}
{deny}on_violation: {{default: quarantine}}
"""
_BLUE = "  blue: {ste: [blue, storage_blue]}\n"
_DENY = "  - {deny: {class: vif, frontend: red}}\n"


class Rules:
    """One policy: its text, the labels it has, whose vifs it denies, who may have disks."""

    def __init__(self, number, *, without=(), no_vif=(), disks=("red", "blue")):
        self.labels = set(STE) - set(without)
        self.no_vif = set(no_vif)
        self.disks = set(disks) & self.labels
        self.text = _TEXT.format(
            number=number,
            blue=_BLUE if "blue" in self.labels else "",
            deny=_DENY if no_vif else "",
            disks=", ".join(sorted(self.disks)),
        )
        self.digest = f"sha256:{hashlib.sha256(self.text.encode()).hexdigest()}"

    def allow(self, device_class, frontend, backend, disk=None):
        """Whether domains of two labels may share a channel; `disk` is what a vbd's matched."""
        if frontend not in self.labels or backend not in self.labels:
            return False
        if device_class == "vif":
            return bool(STE[frontend] & STE[backend]) and frontend not in self.no_vif
        kind = DISKS.get(disk)
        both = STE[frontend] & STE[backend]
        allowed = frontend in self.disks and backend == "SystemManagement"
        return allowed and bool(both) and kind in both


POLICIES = {
    "usual": Rules(0),
    "stern": Rules(1, no_vif=["red"], disks=["blue"]),
    "short": Rules(2, without=["blue"]),
}
BY_DIGEST = {rules.digest: rules for rules in POLICIES.values()}


def disk_of(params):
    """The resource that a disk's path matches."""
    for name in DISKS:
        if params.startswith(f"/dev/vg/{name.removeprefix('disks_')}-"):
            return name
    return None
