"""The units: well-formed, and no more open than is written down. Needs systemd-analyze."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "etc/systemd"
ALL = sorted(path.name for path in UNITS.iterdir())
MOST = {"brokerd.service": 2.0, "broker-agent.service": 4.5}
"""The exposure that each may have, 0 to 10."""


def analyze(*arguments):
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.root
@pytest.mark.parametrize("unit", MOST)
def test_a_service_is_no_more_exposed_than_it_has_to_be(unit):
    done = analyze("security", "--offline=true", str(UNITS / unit))
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert exposure, done.stderr
    assert float(exposure[1]) <= MOST[unit], done.stdout


@pytest.mark.root
def test_every_unit_is_as_systemd_wants_it(tmp_path):
    names = []
    for name in ALL:
        # What they run need not be installed here, and who explains it neither.
        text = re.sub(r"(?m)^(Exec\w+=)/\S+", r"\1/bin/true", (UNITS / name).read_text())
        text = re.sub(r"(?m)^Documentation=.*\n", "", text)
        names.append(name.replace("@.", "@0."))
        (tmp_path / name).write_text(text)
        if "@." in name:
            shutil.copy(tmp_path / name, tmp_path / names[-1])
    done = analyze("verify", "--recursive-errors=no", *(str(tmp_path / name) for name in names))
    complaints = [line for line in done.stderr.splitlines() if "xpb" in line or "broker" in line]
    assert complaints == []
    assert done.returncode == 0, done.stderr


def settings(name):
    """The settings of a unit, each with all its values."""
    found = {}
    for line in (UNITS / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_brokerd_has_no_capability_and_no_network_and_is_watched():
    unit = settings("brokerd.service")
    assert unit["CapabilityBoundingSet"] == [""]
    assert unit["PrivateNetwork"] == ["yes"]
    assert unit["Type"] == ["notify"]
    assert int(unit["WatchdogSec"][0]) >= 30
    assert settings("brokerd.socket")["SocketMode"] == ["0600"]
    assert settings("brokerd-tls.socket")["Service"] == ["brokerd.service"]


def test_the_agent_is_watched():
    unit = settings("broker-agent.service")
    assert unit["Type"] == ["notify"]
    assert unit["Restart"] == ["on-failure"]  # a watchdog's end is one
    assert int(unit["WatchdogSec"][0]) >= 30


def test_the_agent_keeps_what_its_gates_need():
    """Each of these would break a gate in silence; the unit says which and why."""
    unit = settings("broker-agent.service")
    for name in (
        "ProtectClock",
        "PrivateDevices",
        "DevicePolicy",
        "DeviceAllow",
        "NoNewPrivileges",
        "PrivateNetwork",
        "ProtectKernelTunables",
        "ProtectHome",
        "PrivateTmp",
    ):
        assert name not in unit
        assert f"{name}" in (UNITS / "broker-agent.service").read_text() or name == "DeviceAllow"
    capabilities = set(unit["CapabilityBoundingSet"][0].split())
    assert {"CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SETPCAP"} <= capabilities
