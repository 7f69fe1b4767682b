"""Booting simulated domains by command, as docs/first-hour.md does."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.xenstoreds import start_store

from broker.sim.boot import devices_of, main, uuid_of


def test_devices_are_numbered_by_their_kind():
    made = devices_of(["vif", "vbd:/a", "vif", "vbd:/b"], 3)
    assert [(it.kind, it.devid) for it in made] == [
        *(("vif", 0), ("vbd", 51712), ("vif", 1), ("vbd", 51728)),
    ]
    assert made[1].details["params"] == "/a"


@pytest.mark.parametrize("word", ["disk", "vbd", "vbd:", "vif:x"])
def test_what_is_no_device_is_refused(word, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--store", "unix:/nonexistent", "--domid", "1", "web1", word])
    assert stopped.value.code == 2
    assert "not a device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("store", "why"),
    [("unix:/nonexistent/socket", "No such file or directory"), ("tcp:1", "not a store's address")],
)
def test_a_store_that_cannot_be_reached_is_told_in_one_line(store, why):
    command = [sys.executable, "-m", "broker.sim.boot", "--store", store, "--domid", "3", "web1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"{store}: ")
    assert why in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_domain_is_there_after_it_was_booted():
    daemon = start_store("embedded")
    try:
        command = [sys.executable, "-m", "broker.sim.boot", "--store", daemon.address]
        subprocess.run([*command, "--domid", "3", "web1", "vif"], check=True, timeout=30)
        client = daemon.client()
        assert client.read("/local/domain/3/vm") == f"/vm/{uuid_of('web1')}".encode()
        assert client.read("/libxl/3/device/vif/0/backend")
        client.close()
    finally:
        daemon.stop()
