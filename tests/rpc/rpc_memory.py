"""The HTTP side in memory: no socket, a clock that the test turns."""

from __future__ import annotations

import json
from http.client import HTTPResponse
from io import BytesIO

from rpc_fake_admin import FakeAdmin
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from broker.rpc.admin import ROOT, Caller
from broker.rpc.http import AdminFactory
from broker.rpc.limits import Limits, Places

CALLER = Caller(subject="local:uid=0,pid=7", role=ROOT, person="local:uid=0")
LIMITS = Limits(body=2000, header_bytes=1000, headers=8, stream_events=4)
CONNECTIONS = 3


class Memory:
    """One connection to a server in memory."""

    def __init__(self, admin=None, identify=lambda _: CALLER, factory=None):
        self.clock = Clock()
        self.admin = admin or FakeAdmin()
        self.factory = factory or AdminFactory(
            self.admin,
            identify,
            self.clock,
            local=True,
            limits=LIMITS,
            places=Places(total=CONNECTIONS, reserved=0),
        )
        self.transport = StringTransport()
        self.channel = self.factory.buildProtocol(None)
        if self.channel is not None:
            self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        if not self.transport.disconnecting:
            self.channel.dataReceived(data)

    def post(self, name, body: bytes = b"{}"):
        self.send(
            b"POST /v1/%b HTTP/1.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (name.encode(), len(body), body)
        )
        return self.answer()

    def answer(self):
        raw = self.transport.value()
        self.transport.clear()

        class Source:
            def makefile(self, _mode):
                return BytesIO(raw)

        response = HTTPResponse(Source())
        response.begin()
        return response.status, json.loads(response.read())

    def hang_up(self):
        self.channel.connectionLost(Failure(ConnectionDone()))


def refused(answer, status, code, says):
    assert answer[0] == status
    assert answer[1]["error"]["code"] == code
    assert says in answer[1]["error"]["message"]
