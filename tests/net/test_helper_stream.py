"""The stream between agent and helper: what is no request, and a helper that has not the right."""

from __future__ import annotations

import select
import socket
import struct
import threading

import msgspec
import pytest
from net_rig import run

from broker.net import client, helper, messages
from broker.net.messages import Framer, ProtocolError, Remove
from broker.net.model import NetError, Target

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\0\0\x01\xc1",
        b"\xff\xff\xff\xff",
        b"\0\0\0\x05hello",
        messages._LENGTH.pack(9) + msgspec.msgpack.encode({"type": "Off"})[:9],
    ],
)
def test_what_is_not_a_request_ends_the_helper_and_changes_nothing(labelled, sent):
    rig = labelled()
    with rig.net.host.entered():
        helper, process = client.spawn()
    helper.start(Target(frozenset({"br0"})))
    before = rig.content()
    helper._stream.sendall(sent)
    with pytest.raises(NetError):
        while True:
            select.select([helper], [], [], 5)
            helper.events()
    assert process.wait(timeout=10) == 0
    assert rig.content() == before


@pytest.mark.parametrize(
    "fields",
    [
        {"index": 0},
        {"index": 1 << 31},
        {"number": 0},
        {"number": 1 << 16},
        {"name": "a;flush ruleset"},
        {"name": 'x"'},
        {"name": "12"},
        {"name": "*"},
        {"name": ""},
        {"name": "x" * 16},
        {"bridge": "br0 }"},
        {"macs": ["02:00:00:00:00:1"]},
        {"macs": ["01:00:5e:00:00:01"]},
        {"macs": ["00:00:00:00:00:00"]},
        {"macs": ["02:00:00:00:00:AA"]},
        {"macs": ["02:00:00:00:00:01"] * 65},
        {"macs": ["02:00:00:00:00:01"], "uplink": True},
        {"ips": ["010.0.0.1"]},
        {"ips": ["::0001"]},
        {"ips": ["10.0.0.1"] * 65},
        {"label": -1},
        {"label": 1 << 32},
        {"extra": 1},
        {"uplink": 1},
    ],
)
def test_a_port_with_a_wrong_field_is_no_request(fields):
    good = {"name": "vif1.0", "index": 5, "number": 1, "bridge": "br0"}
    put = {"type": "Put", "port": {**good, **fields}}
    assert messages.request(msgspec.msgpack.encode({"type": "Put", "port": good}))
    with pytest.raises(ProtocolError):
        messages.request(msgspec.msgpack.encode(put))


def test_messages_are_cut_from_any_stream():
    stream = b"".join(messages.framed(Remove(n)) for n in (1, 2, 3))
    framer, found = Framer(), []
    for n in range(len(stream)):
        found += framer.feed(stream[n : n + 1])
    assert [messages.request(text) for text in found] == [Remove(1), Remove(2), Remove(3)]
    with pytest.raises(ProtocolError):
        list(Framer().feed(struct.pack(">I", messages.MAX_MESSAGE + 1)))


def test_a_helper_without_rights_says_so():
    ours, theirs = socket.socketpair()
    with theirs:
        fd = theirs.fileno()
        program = (
            "import os, sys; from broker.net.helper import main;"
            f"os.setgroups([]); os.setuid(65534); sys.exit(main(['--fd', '{fd}']))"
        )
        with pytest.raises(Exception, match="returned non-zero exit status 1"):
            run([client.sys.executable, "-c", program], pass_fds=[fd])
    with pytest.raises(NetError, match="CAP_NET_ADMIN"):
        client.HelperClient(ours).numbers_in_kernel()


def test_only_the_first_answer_may_take_as_long_as_a_program_that_starts(monkeypatch):
    monkeypatch.setattr(client, "TIMEOUT", 0.2)
    ours, theirs = socket.socketpair()
    with theirs:
        helper = client.HelperClient(ours)
        answer = messages.framed(messages.Done())
        late = threading.Timer(0.5, lambda: theirs.sendall(answer))
        late.start()
        helper.check()
        late.join()
        with pytest.raises(NetError, match="timed out"):
            helper.check()


def spoken_to(*answers):
    """A client whose helper has sent this and ended."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"".join(messages.framed(it) for it in answers))
    return client.HelperClient(ours)


def test_a_helper_that_ends_instead_of_answering_has_done_nothing():
    with pytest.raises(NetError, match="has ended"):
        spoken_to().check()
    with pytest.raises(NetError, match="has ended"):
        spoken_to(messages.Alarm("tables gone")).check()


@pytest.mark.parametrize("ask", ["check", "show", "drops", "numbers_in_kernel"])
def test_an_answer_to_another_question_is_none(ask):
    wrong = messages.Counted([]) if ask != "drops" else messages.Done()
    with pytest.raises(NetError, match="unexpected answer"):
        getattr(spoken_to(wrong), ask)()


def test_events_for_an_agent_that_does_not_read_do_not_pile_up_and_answers_are_not_lost():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made = helper.Helper(theirs)
        for _ in range(4000):
            made._send(messages.Alarm("x" * 1000))
        assert len(made._out) < helper._MAX_QUEUED + 2000
        before = len(made._out)
        made._send(messages.Done())
        assert len(made._out) > before
