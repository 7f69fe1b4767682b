"""Where the hotplug scripts hand over: a unix socket that root alone may use.

One JSON line in, `{"action", "path", "type_if"}` (XENBUS_PATH and the script's arguments); one
out, `{"state", "reason", "exit"}`, once the device is open or refused, or after five seconds. The
script then leaves it at that: whatever the answer, the agent is who opens and closes.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final, cast

import msgspec
from twisted.internet import defer, protocol
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver

from broker.agent.lives import Slot
from broker.text.escape import escape
from broker.xenstore.paths import domain_dir, parse_backend_dir

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from twisted.internet.interfaces import IAddress, IListeningPort, IReactorCore, IReactorUNIX
    from twisted.internet.unix import Server

    from broker.agent.reports import Outcome
    from broker.agent.session import AgentSession
    from broker.xenstore import transport as store_transport

    class Reactor(store_transport.Reactor, IReactorCore, IReactorUNIX):
        """What the whole agent asks of a reactor."""


WAIT: Final = 4.5
"""Seconds for the gate; the script itself gives up after 5."""
_UCRED: Final = struct.Struct("=iII")


class Request(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a script was called for: `online`, `offline` (vif), `add` or `remove` (vbd)."""

    action: str
    path: str
    type_if: str = ""


class Answer(msgspec.Struct, kw_only=True):
    """`exit` is the script's exit status: 1 only for a refusal in strict mode."""

    state: str
    reason: str
    exit: int = 0


class HotplugService:
    """Answers scripts from what `session` enforces for domain `domid`."""

    log = Logger()

    def __init__(self, session: AgentSession, domid: int, *, strict: bool) -> None:
        self._session = session
        self._home = domain_dir(domid)
        self._strict = strict

    async def answer(self, line: bytes) -> Answer:
        """The answer to one request line; never raises."""
        try:
            request = msgspec.json.decode(line, type=Request)
        except msgspec.DecodeError as error:
            return Answer(state="closed", reason=f"not a hotplug request: {error}")
        path = request.path if request.path.startswith("/") else f"{self._home}/{request.path}"
        found = parse_backend_dir(path)
        if found is None or not path.startswith(f"{self._home}/"):
            return Answer(state="closed", reason="XENBUS_PATH is no backend of this domain")
        slot = Slot(*found[1:])
        if request.type_if == "tap":
            return Answer(state="closed", reason="an emulated device's tap has no gate")
        if request.action in {"offline", "remove"}:
            await self._session.release(slot)
            return Answer(state="closed", reason="released")
        if request.action not in {"online", "add"}:
            return Answer(state="closed", reason="neither online, offline, add nor remove")
        return await self._settle(slot)

    async def _settle(self, slot: Slot) -> Answer:
        waiting = self._session.settled(slot)
        waiting.addTimeout(WAIT, self._session.reactor)
        try:
            outcome: Outcome = await waiting
        except (defer.TimeoutError, defer.CancelledError):
            return Answer(state="closed", reason="no answer yet: stays closed until there is one")
        strictly = self._strict and outcome.refused
        return Answer(state=outcome.state, reason=outcome.reason, exit=1 if strictly else 0)


class _Script(LineOnlyReceiver):
    """One script's connection."""

    delimiter = b"\n"
    MAX_LENGTH = 4096
    log = Logger()

    def __init__(self, answer: Callable[[bytes], defer.Deferred[Answer]]) -> None:
        self._answer = answer

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """Refuse whoever is not root, whatever the socket's mode has become."""
        transport = cast("Server", self.transport)
        peer = transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        uid = _UCRED.unpack(peer)[1]
        if uid != 0:
            self.log.warn("hotplug: a process of uid {uid} was refused", uid=uid)
            transport.abortConnection()

    def lineReceived(self, line: bytes) -> None:  # noqa: N802 - Twisted's name
        """One request."""
        self._answer(line).addCallback(self._send, line)

    def _send(self, answer: Answer, line: bytes) -> None:
        self.log.info(
            "hotplug {request}: {state}: {reason}",
            request=escape(line),
            state=answer.state,
            reason=escape(answer.reason),
        )
        if self.connected:
            transport = cast("Server", self.transport)
            transport.write(msgspec.json.encode(answer) + self.delimiter)
            transport.loseConnection()


class _Factory(protocol.Factory):
    noisy = False

    def __init__(self, service: HotplugService) -> None:
        self._service = service

    def buildProtocol(self, _address: IAddress | None) -> _Script:  # noqa: N802 - Twisted's name
        return _Script(
            lambda line: defer.Deferred.fromCoroutine(self._service.answer(line)),
        )


def listen(service: HotplugService, path: Path, reactor: IReactorUNIX) -> IListeningPort:
    """Serve on the unix socket at `path`, mode 0600; a stale socket there is replaced.

    Raises:
        CannotListenError: the path is in use, or cannot be made.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return reactor.listenUNIX(str(path), _Factory(service), mode=0o600, wantPID=True)
