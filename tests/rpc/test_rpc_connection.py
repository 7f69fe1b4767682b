"""Where brokerctl looks for the broker: options, then the environment, then a profile."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from broker.cli import connection
from broker.cli import main as brokerctl
from broker.rpc.address import AddressError, Credentials

VARIABLES = ("SOCKET", "CONNECT", "CERT", "KEY", "CA", "PROFILE", "SERVER_NAME")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(f"XPB_{name}", raising=False)


def address(*words):
    return connection.address(brokerctl.build_parser().parse_args([*words, "status"]))


@pytest.fixture
def profile(tmp_path):
    path = tmp_path / "alice.yaml"
    path.write_text("connect: tls:h:1\ncert: alice.crt\nkey: /k/alice.key\nca: ca.crt\n")
    return path


def test_without_a_word_it_is_the_local_socket():
    assert address().path == connection.DEFAULT_SOCKET


def test_the_socket_is_an_option_or_in_the_environment(monkeypatch):
    monkeypatch.setenv("XPB_SOCKET", "/env")
    assert address().path == "/env"
    assert address("--socket", "/option").path == "/option"
    after = brokerctl.build_parser().parse_args(["status", "--socket", "/after"])
    assert connection.address(after).path == "/after"
    monkeypatch.setenv("XPB_SOCKET", "")
    assert address().path == connection.DEFAULT_SOCKET


def test_tls_is_an_option_with_its_files():
    found = address("--connect", "tls:h:1", "--cert", "c", "--key", "k", "--ca", "a")
    assert (found.host, found.port) == ("h", 1)
    assert [str(it) for it in (found.credentials.cert, found.credentials.ca)] == ["c", "a"]
    with pytest.raises(AddressError, match="--key FILE"):
        address("--connect", "tls:h:1", "--cert", "c")


def test_tls_is_in_the_environment(monkeypatch):
    for name, value in (("CONNECT", "tls-unix:/v"), ("CERT", "c"), ("KEY", "k"), ("CA", "a")):
        monkeypatch.setenv(f"XPB_{name}", value)
    assert address().path == "/v"
    assert str(address("--key", "other").credentials.key) == "other"
    assert address("--socket", "/s").credentials is None
    assert address("--connect", "unix:/s").credentials is None


def test_a_profile_says_it_all_and_what_is_said_beside_it_wins(profile, monkeypatch, tmp_path):
    found = address("--profile", str(profile))
    assert (found.host, found.port) == ("h", 1)
    assert found.credentials == Credentials(
        cert=tmp_path / "alice.crt", key=Path("/k/alice.key"), ca=tmp_path / "ca.crt"
    )
    monkeypatch.setenv("XPB_SOCKET", "/env")
    assert address("--profile", str(profile)).host == "h"
    monkeypatch.delenv("XPB_SOCKET")
    monkeypatch.setenv("XPB_PROFILE", str(profile))
    assert address("--connect", "tls:other", "--ca", "x").host == "other"


def test_a_profile_that_does_not_read_is_told(profile, capsys):
    profile.write_text("connect: tls:h:1\ncertificate: x\n")
    assert brokerctl.main(["--profile", str(profile), "status"]) == 2
    assert f"{profile}:2:1: unknown key 'certificate'" in capsys.readouterr().err
    assert brokerctl.main(["--profile", "/nonexistent", "status"]) == 2
    assert "/nonexistent: No such file" in capsys.readouterr().err
    assert brokerctl.main(["--connect", "nowhere", "status"]) == 2
    assert "no broker's address" in capsys.readouterr().err


@ensureDeferred
async def test_brokerctl_over_tls_answers_or_says_why_not(serve_tls, people, capsys, monkeypatch):
    where = serve_tls()
    own = people.issue("alice", "officer")
    monkeypatch.setenv("XPB_CONNECT", where(own).text)
    monkeypatch.setenv("XPB_CA", str(own.ca))
    words = ["status", "--cert", str(own.cert), "--key", str(own.key)]
    assert await deferToThread(brokerctl.main, words) == 0
    assert "health" in capsys.readouterr().out
    people.authority.revoke("alice", people.now)
    assert await deferToThread(brokerctl.main, words) == 1
    assert "revoked" in capsys.readouterr().err
    missing = ["status", "--cert", "/nonexistent", "--key", str(own.key)]
    assert await deferToThread(brokerctl.main, missing) == 2
