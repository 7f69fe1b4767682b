"""How large the audit log gets, as configured; and what a status says that cannot be held to."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted

from broker.rpc import methods
from broker.rpc.admin import ROOT, Caller
from broker.service.config import load_settings
from broker.service.journal import Rotation
from broker.text.problems import ProblemsError

run = pytest_twisted.ensureDeferred
ETC = Path(__file__).parents[2] / "etc"
CALLER = Caller(subject="test", role=ROOT, person="test")


def settings(tmp_path, text):
    file = tmp_path / "broker.yaml"
    file.write_text(text)
    return load_settings(file, store=None, state=None)


def test_the_log_gets_as_large_as_configured(tmp_path):
    text = "audit_log: {segment_mebibytes: 8, keep: 3}"
    assert settings(tmp_path, text).rotation == Rotation(size=8 << 20, keep=3)
    example = load_settings(ETC / "broker.yaml", store=None, state=None)
    assert example.rotation == settings(tmp_path, "{}").rotation == Rotation()


@pytest.mark.parametrize("value", ["segment_mebibytes: 0", "keep: 0", "keep: -1", "size: 3"])
def test_a_size_that_makes_no_sense_is_refused(tmp_path, value):
    with pytest.raises(ProblemsError):
        settings(tmp_path, f"audit_log: {{{value}}}")


@run
async def test_a_log_that_outgrows_its_size_makes_the_status_red(host, box):
    brokerd = await box.start()
    brokerd.audit.unrotated = "audit.jsonl grows beyond its size: no room"
    status = await brokerd.admin.status(CALLER, methods.Nothing())
    assert status.health == "red"
    assert any("cannot be rotated" in problem for problem in status.problems)


@run
async def test_a_running_broker_rotates_at_its_size_and_goes_on_after_a_restart(host, box):
    box.options["rotation"] = Rotation(size=4000, keep=2)
    await box.start()
    for number in range(40):
        box.label(f"d{number}", "plain", "name")
    assert len(list(box.state.glob("audit-*.jsonl"))) == 2
    labels = dict(box.engine.state.labels)
    await box.stop()
    await box.start()
    assert box.engine.state.labels == labels
