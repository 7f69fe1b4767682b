"""The privileged half: holds CAP_NET_ADMIN so that the agent need not.

It does what little `messages` knows, and checks every field of it.

Started by root with one end of a stream socket: `python -m broker.net.helper --fd N`. It ends when
the other end closes, and leaves the tables as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import selectors
import socket
import sys
import time
from typing import TYPE_CHECKING, Final

from broker.net import messages
from broker.net.enforcer import PortEnforcer
from broker.net.links import LinkTable
from broker.net.messages import (
    Alarm,
    Answer,
    Done,
    Dropped,
    Event,
    Framer,
    Numbers,
    NumbersAre,
    ProtocolError,
    Put,
    Refused,
    Remove,
    Request,
    Show,
    Start,
    Trace,
    Update,
)
from broker.net.model import NetError, Target
from broker.net.monitor import Monitor
from broker.net.nft_command import open_transactor
from broker.net.probe import probe
from broker.net.readback import Readback
from broker.net.samples import Samples
from broker.net.show import shown
from broker.net.trace import Tracer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.net.model import Port

_RETRY: Final = 0.5
"""Seconds until a repair that failed is tried again."""
_RECEIVE: Final = 1 << 16
_MAX_QUEUED: Final = 1 << 20
"""Bytes of events that wait for an agent that does not read them."""

_log = logging.getLogger("broker.net.helper")


class Helper:
    """Serves one agent over `stream`, in the network namespace this is made in.

    Raises:
        NetError: labels cannot be enforced here.
    """

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._stream.settimeout(0.0)
        self._framer = Framer()
        self._out = bytearray()
        self._ended = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(stream, selectors.EVENT_READ, self._talk)
        self._nft = open_transactor()
        self._links = LinkTable()
        self._readback = Readback()
        self._abilities = probe(self._nft)
        self._enforcer = PortEnforcer(self._nft, self._readback, self._abilities, self._alarm)
        self._monitor = Monitor()
        for fd in self._monitor.filenos():
            self._selector.register(fd, selectors.EVENT_READ, self._look)
        self._samples = self._open_samples()
        self._started = False
        self._check_at: float | None = None
        self._trace: tuple[Tracer, float] | None = None

    def run(self) -> None:
        """Serve until the agent's end closes."""
        while not self._ended:
            due = [at for at in (self._check_at, self._trace and self._trace[1]) if at is not None]
            wait = max(0.0, min(due) - time.monotonic()) if due else None
            for key, _ in self._selector.select(wait):
                key.data()
            now = time.monotonic()
            if self._check_at is not None and now >= self._check_at:
                self._check()
            if self._trace is not None and now >= self._trace[1]:
                self._end_trace()
        self._end_trace()
        self._stream.settimeout(1.0)
        with contextlib.suppress(OSError):
            self._stream.sendall(self._out)

    def _open_samples(self) -> Samples | None:
        try:
            samples = Samples()
        except NetError as error:
            self._alarm(f"{error}: refused packets are counted but not shown")
            return None
        self._selector.register(samples, selectors.EVENT_READ, self._sample)
        return samples

    def _send(self, message: Answer) -> None:
        """Queue a message; an agent that does not read loses events, and stops nothing here."""
        if isinstance(message, Event) and len(self._out) > _MAX_QUEUED:
            return
        self._out += messages.framed(message)
        self._flush()

    def _flush(self) -> None:
        try:
            del self._out[: self._stream.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self._ended = True
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        self._selector.modify(self._stream, wanted, self._talk)

    def _talk(self) -> None:
        if self._out:
            self._flush()
        self._serve()

    def _alarm(self, text: str) -> None:
        _log.error("%s", text)
        self._send(Alarm(text))

    def _serve(self) -> None:
        try:
            data = self._stream.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended = True
            return
        try:
            for text in self._framer.feed(data):
                self._send(self._answer(messages.request(text)))
        except ProtocolError as error:
            # A stream that is out of step cannot be trusted to mean what it says next.
            _log.error("not a request: %s", error)
            self._send(Refused(f"not a request: {error}"))
            self._ended = True

    def _answer(self, request: Request) -> Answer:
        try:
            return self._carry_out(request)
        except (NetError, OSError) as error:
            return Refused(str(error))

    def _carry_out(self, request: Request) -> Answer:
        match request:
            case Numbers():
                return NumbersAre(sorted(self._enforcer.numbers_in_kernel()))
            case Start():
                self._start(request)
            case _ if not self._started:
                return Refused("nothing is in force yet: ask for Start first")
            case Show():
                return shown(self._enforcer.target, self._readback, self._abilities)
            case Trace(sender, receiver, seconds):
                self._begin_trace(sender, receiver, seconds)
            case Put() | Remove() | Update():
                self._change(request)
        return Done()

    def _start(self, request: Start) -> None:
        governed = frozenset(request.bridges)
        for name in governed:
            # One that is not there yet is closed from the moment it is.
            if self._links.named(name) is not None:
                self._links.check_bridge(name)
        ports = self._by_index(request.ports, governed)
        self._enforcer.start(Target(governed, ports, frozenset(request.pairs)))
        self._started = True

    def _change(self, request: Put | Remove | Update) -> None:
        governed = self._enforcer.target.bridges
        match request:
            case Put(port):
                self._by_index([port], governed)
                self._enforcer.put(port)
            case Remove(index):
                self._enforcer.remove(index)
            case Update(ports, pairs, during):
                target = Target(governed, self._by_index(ports, governed), frozenset(pairs))
                self._enforcer.update(target, frozenset(during))

    def _by_index(self, ports: list[Port], governed: frozenset[str]) -> dict[int, Port]:
        """The ports, each that is new being the interface it is said to be, on a governed bridge.

        Raises:
            NetError: one is not.
        """
        known = self._enforcer.target.ports
        for port in ports:
            if known.get(port.index) == port:
                continue
            link = self._links.get(port.index)
            if link is None or link.name != port.name:
                raise NetError(f"{port.name} is not interface {port.index}: gone, or renamed")
            if port.bridge is not None and port.bridge not in governed:
                raise NetError(f"{port.name}: {port.bridge} is not governed; name it in `bridges`")
            if port.bridge is not None:
                self._links.check_bridge(port.bridge)
        return {port.index: port for port in ports}

    def _look(self) -> None:
        changes = self._monitor.changes()
        if not self._started:
            return
        if changes.tables:
            self._check_at = time.monotonic()
        for index in changes.gone:
            try:
                self._enforcer.remove(index)
            except NetError as error:
                self._alarm(f"interface {index} is gone, its elements are not: {error}")
                self._check_at = time.monotonic()

    def _check(self) -> None:
        self._check_at = None
        try:
            self._enforcer.check()
        except NetError as error:
            self._alarm(f"labels are not enforced: {error}; trying again")
            self._check_at = time.monotonic() + _RETRY

    def _sample(self) -> None:
        if self._samples is not None:
            for sample in self._samples.received():
                dropped = (sample.sender, sample.receiver, sample.number, sample.packet)
                self._send(Dropped(*dropped))

    def _begin_trace(self, sender: int, receiver: int, seconds: float) -> None:
        self._end_trace()
        tracer = Tracer(self._nft, sender, receiver, seconds)
        self._trace = (tracer, time.monotonic() + seconds)
        self._selector.register(tracer, selectors.EVENT_READ, self._step)

    def _step(self) -> None:
        if self._trace is not None:
            for step in self._trace[0].steps():
                self._send(step)

    def _end_trace(self) -> None:
        if self._trace is not None:
            tracer, self._trace = self._trace[0], None
            self._selector.unregister(tracer)
            try:
                tracer.close()
            except NetError as error:
                self._alarm(f"tracing could not be ended: {error}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the helper; answers the exit code."""
    parser = argparse.ArgumentParser(prog="broker.net.helper", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="a stream socket to the agent")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="net helper: %(message)s", stream=sys.stderr)
    stream = socket.socket(fileno=options.fd)
    try:
        helper = Helper(stream)
    except (NetError, OSError) as error:
        stream.settimeout(1.0)
        stream.sendall(messages.framed(Refused(str(error))))
        return 1
    helper.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
