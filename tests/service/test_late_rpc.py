"""An RPC that comes late: after the first decisions, or when there is no store to wait for."""

from pathlib import Path

import pytest
import pytest_twisted
from broker_host import BrokerBox, until
from twisted.logger import capturedLogs

from broker.rpc.tls_files import TlsFiles
from broker.service import main
from broker.service.config import load_settings


def test_it_comes_at_once_unless_the_configuration_says_otherwise(tmp_path):
    file = tmp_path / "broker.yaml"
    for text, late in (("{}", False), ("rpc: {late: true}", True)):
        file.write_text(text)
        assert load_settings(file, store=None, state=None).late is late


@pytest_twisted.ensureDeferred
async def test_it_comes_after_the_first_decisions(box):
    brokerd = box.make(late=True)
    seen = []
    serve = brokerd._serve
    brokerd._serve = lambda: (seen.append(brokerd.engine.phase), serve())
    brokerd.start()
    assert not (box.directory / "rpc.sock").exists()
    await until((box.directory / "rpc.sock").exists, "it is served")
    assert seen == ["enforcing"]
    assert brokerd.admin.exposing is not None


@pytest_twisted.ensureDeferred
async def test_it_does_not_wait_for_a_store_that_does_not_come(monkeypatch):
    monkeypatch.setattr(main, "LATEST", 0.01)
    box = BrokerBox("unix:/nonexistent/store")
    try:
        brokerd = box.make(late=True)
        brokerd.start()
        await until((box.directory / "rpc.sock").exists, "it is served")
        assert brokerd.engine.phase != "enforcing"
    finally:
        await box.close()


@pytest_twisted.ensureDeferred
async def test_it_does_not_come_after_the_stop(box, monkeypatch):
    brokerd = await box.start(late=True)
    await until((box.directory / "rpc.sock").exists, "it is served")
    await box.stop()
    monkeypatch.setattr(brokerd, "_rpc", None)
    brokerd._serve()
    assert brokerd._rpc is None


@pytest_twisted.ensureDeferred
async def test_what_it_cannot_be_served_with_is_said_and_decisions_go_on(box):
    nowhere = Path("/nonexistent/file")
    files = TlsFiles(certificate=nowhere, key=nowhere, ca=nowhere)
    with capturedLogs() as logged:
        brokerd = await box.start(late=True, listen=("unix:/nonexistent/socket",), tls=files)
        await until(lambda: any("nobody can reach" in it["log_format"] for it in logged), "said")
    assert brokerd.engine.phase == "enforcing"
    assert brokerd.health.notices() == ()
    assert not (box.directory / "rpc.sock").exists()


@pytest_twisted.ensureDeferred
async def test_the_same_keeps_one_that_is_not_late_from_starting(box):
    nowhere = Path("/nonexistent/file")
    files = TlsFiles(certificate=nowhere, key=nowhere, ca=nowhere)
    with pytest.raises(main.TlsFilesError):
        box.make(listen=("unix:/nonexistent/socket",), tls=files)
