"""The agent's side of the privileged helper.

Calls are synchronous: the helper answers in well under a millisecond, and a gate must know that
its elements are in place before it goes on. A call that gets no answer in time ends the
connection, and everything fails closed from then on.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from broker.net import messages
from broker.net.messages import (
    Count,
    Counted,
    CountFilters,
    Done,
    Event,
    FiltersCounted,
    Framer,
    Hello,
    Numbers,
    NumbersAre,
    ProtocolError,
    Put,
    Refused,
    Remove,
    RouteTo,
    SetLink,
    Show,
    Shown,
    Start,
    Trace,
    Update,
)
from broker.net.model import NetError, Port, Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.net.messages import Answer, Drops, Request

TIMEOUT: Final = 10.0
"""Seconds for one answer; ten thousand pairs take a tenth of one."""
START_TIMEOUT: Final = 60.0
"""Seconds for the first answer: on an emulated or crowded machine a Python that starts takes its
time, and an agent that gave up on it would start the next one."""


class HelperClient:
    """Has the functions of `PortEnforcer` and `LinkChanges`; a helper carries them out.

    It is at the other end of `stream`. Each raises `NetError` if it is not in force. `events` has
    what came unasked.
    """

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._patience = START_TIMEOUT
        self._stream.settimeout(self._patience)
        self._framer = Framer()
        self._events: list[Event] = []
        self._profiles: Mapping[str, bytes] = {}

    def fileno(self) -> int:
        """Readable when events may have come: then call `events`."""
        return self._stream.fileno()

    def close(self) -> None:
        """End the helper; the tables stay as they are."""
        self._stream.close()

    def check(self) -> None:
        """Find out whether the helper is there and has its rights."""
        self._do(Hello())

    def numbers_in_kernel(self) -> frozenset[int]:
        """Class numbers that ports have in the kernel now, whoever put them there."""
        answer = self._call(Numbers())
        if not isinstance(answer, NumbersAre):
            raise NetError(f"net helper: unexpected answer {answer!r}")
        return frozenset(answer.numbers)

    def start(self, target: Target) -> None:
        """Make or take over the tables, and hold exactly `target`."""
        bridges, ports = sorted(target.bridges), list(target.ports.values())
        self._do(Start(bridges, ports, list(target.pairs), dict(target.profiles)))
        self._profiles = target.profiles

    def put(self, port: Port) -> None:
        """Give a port its class, or another one."""
        self._do(Put(port))

    def remove(self, index: int) -> None:
        """Close a port."""
        self._do(Remove(index))

    def update(self, target: Target, during: frozenset[tuple[int, int]] | None = None) -> None:
        """Go to another target; its bridges stay those of `start`."""
        first = None if during is None or during == target.pairs else list(during)
        profiles = None if target.profiles == self._profiles else dict(target.profiles)
        self._do(Update(list(target.ports.values()), list(target.pairs), first, profiles))
        self._profiles = target.profiles

    def change_link(
        self,
        index: int,
        *,
        up: bool | None = None,
        master: int | None = None,
        name: str | None = None,
        mtu: int | None = None,
        address: bytes | None = None,
    ) -> None:
        """Change what is given of a guest's link and leave the rest."""
        self._do(SetLink(index, up, master, name, mtu, address))

    def route_to(self, index: int, networks: Sequence[str], through: str) -> None:
        """Bring a guest's link up and have dom0 route to these networks by it."""
        self._do(RouteTo(index, list(networks), through))

    def drops(self) -> list[Drops]:
        """What was refused so far."""
        answer = self._call(Count())
        if not isinstance(answer, Counted):
            raise NetError(f"net helper: unexpected answer {answer!r}")
        return answer.drops

    def filter_counts(self) -> FiltersCounted:
        """What filter profiles decided and learned so far."""
        answer = self._call(CountFilters())
        if not isinstance(answer, FiltersCounted):
            raise NetError(f"net helper: unexpected answer {answer!r}")
        return answer

    def show(self) -> Shown:
        """What is in force, and what was refused."""
        answer = self._call(Show())
        if not isinstance(answer, Shown):
            raise NetError(f"net helper: unexpected answer {answer!r}")
        return answer

    def trace(self, sender: int, receiver: int, seconds: float) -> None:
        """Begin to trace; steps come as events."""
        self._do(Trace(sender, receiver, seconds))

    def events(self) -> list[Event]:
        """What came unasked since the last call; waits for nothing.

        Raises:
            NetError: the helper has ended.
        """
        self._stream.setblocking(False)  # noqa: FBT003 - the socket module's own
        try:
            data = self._stream.recv(1 << 16)
            if not data:
                raise NetError("the net helper has ended: labels are no longer kept in step")
            for answer in self._answers(data):
                self._keep(answer)
        except BlockingIOError:
            pass
        except OSError as error:
            raise NetError(f"net helper: {error}") from error
        finally:
            self._stream.settimeout(self._patience)
        events, self._events = self._events, []
        return events

    def _do(self, request: Request) -> None:
        answer = self._call(request)
        if not isinstance(answer, Done):
            raise NetError(f"net helper: unexpected answer {answer!r}")

    def _call(self, request: Request) -> Answer:
        try:
            with contextlib.suppress(BrokenPipeError):  # its last words are still to be read
                self._stream.sendall(messages.framed(request))
            answer: Answer | None = None
            while answer is None:
                data = self._stream.recv(1 << 16)
                if not data:
                    raise NetError("the net helper has ended")
                for one in self._answers(data):
                    if isinstance(one, Event):
                        self._keep(one)
                    else:
                        answer = one
            self._patience = TIMEOUT
            self._stream.settimeout(self._patience)
        except OSError as error:
            self._stream.close()
            raise NetError(f"net helper: {error}") from error
        if isinstance(answer, Refused):
            raise NetError(answer.reason)
        return answer

    def _answers(self, data: bytes) -> list[Answer]:
        try:
            return [messages.answer(text) for text in self._framer.feed(data)]
        except ProtocolError as error:
            self._stream.close()
            raise NetError(f"net helper: {error}") from error

    def _keep(self, answer: Answer) -> None:
        if isinstance(answer, Event):
            self._events.append(answer)
        elif isinstance(answer, Refused):
            raise NetError(answer.reason)


def spawn() -> tuple[HelperClient, subprocess.Popen[bytes]]:
    """Start a helper in this network namespace; it has CAP_NET_ADMIN if this user is root.

    Raises:
        OSError: it cannot be started. What it finds amiss is told by the first call.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        fd = theirs.fileno()
        command = [sys.executable, "-I", "-m", "broker.net.helper", "--fd", str(fd)]
        process = subprocess.Popen(  # noqa: S603 - our own module
            command, pass_fds=[fd], stdin=subprocess.DEVNULL, start_new_session=True
        )
    return HelperClient(ours), process
