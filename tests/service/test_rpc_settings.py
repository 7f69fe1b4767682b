"""What one caller may ask, and how long a proposal waits: as broker.yaml says."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from twisted.internet import reactor

from broker.pki.authority import Authority
from broker.rpc.certificates import TlsFiles
from broker.rpc.limits import Limits
from broker.rpc.server import Servers
from broker.service import proposals
from broker.service.config import load_settings
from broker.text.problems import ProblemsError

ETC = Path(__file__).parents[2] / "etc"


def settings(tmp_path, text):
    file = tmp_path / "broker.yaml"
    file.write_text(text)
    return load_settings(file, store=None, state=None)


def test_the_example_says_what_holds_without_it(tmp_path):
    example = load_settings(ETC / "broker.yaml", store=None, state=None)
    assert example.limits == settings(tmp_path, "{}").limits == Limits()
    assert example.approval_life == settings(tmp_path, "{}").approval_life == proposals.LIFE


def test_limits_are_those_of_the_configuration(tmp_path):
    text = "rpc: {limits: {person_connections: 3, person_rate: 0.5, address_burst: 7}}"
    assert settings(tmp_path, text).limits == Limits(
        person_connections=3, person_rate=0.5, address_burst=7.0
    )
    assert settings(tmp_path, "approval_hours: 0.5").approval_life == 1800


@pytest.mark.parametrize(
    "text",
    [
        "approval_hours: 0",
        "approval_hours: 9000",
        "rpc: {limits: {person_rate: 0}}",
        "rpc: {limits: {person_connections: 0}}",
        "rpc: {limits: {address_burst: 0.5}}",
        "rpc: {limits: {body: 1}}",
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(text, tmp_path):
    with pytest.raises(ProblemsError):
        settings(tmp_path, text)


def test_every_listener_is_held_to_them(tmp_path):
    authority = Authority(tmp_path)
    authority.init(("127.0.0.1",), datetime.now(UTC))
    files = TlsFiles(
        certificate=tmp_path / "broker.crt", key=tmp_path / "broker.key", ca=tmp_path / "ca.crt"
    )
    limits = Limits(person_connections=3)
    servers = Servers(object(), tmp_path / "socket", ["tcp:0"], files, reactor, limits=limits)
    assert servers._local._factory.limits == limits
    assert servers._tls._factory.limits == limits
