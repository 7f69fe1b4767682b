"""The privileged half: holds CAP_NET_ADMIN, and nothing else, so that the agent need not.

It does what little `messages` knows, and checks every field of it: changes guests' links, and
holds frames to labels. nftables is only touched once that is asked for.

Started by root with one end of a stream socket: `python -m broker.net.helper --fd N`. It ends when
the other end closes, and leaves links and tables as they are.
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

from broker.net import messages, privileges
from broker.net.filtering import Filtering
from broker.net.link_changes import LinkChanges
from broker.net.links import LinkTable
from broker.net.messages import (
    Alarm,
    Answer,
    Done,
    Event,
    Framer,
    Hello,
    ProtocolError,
    Refused,
    Request,
    RouteTo,
    SetLink,
)
from broker.net.model import NetError

if TYPE_CHECKING:
    from collections.abc import Sequence

_RECEIVE: Final = 1 << 16
_MAX_QUEUED: Final = 1 << 20
"""Bytes of events that wait for an agent that does not read them."""

_log = logging.getLogger("broker.net.helper")


class Helper:
    """Serves one agent over `stream`, in the network namespace this is made in."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._stream.settimeout(0.0)
        self._framer = Framer()
        self._out = bytearray()
        self._ended = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(stream, selectors.EVENT_READ, self._talk)
        self._table = LinkTable()
        self._links = LinkChanges(self._table)
        self._filtering: Filtering | None = None

    def run(self) -> None:
        """Serve until the agent's end closes."""
        while not self._ended:
            due = None if self._filtering is None else self._filtering.due()
            wait = None if due is None else max(0.0, due - time.monotonic())
            for key, _ in self._selector.select(wait):
                key.data()
            if self._filtering is not None:
                self._filtering.run_due()
        if self._filtering is not None:
            self._filtering.end_trace()
        self._stream.settimeout(1.0)
        with contextlib.suppress(OSError):
            self._stream.sendall(self._out)

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
            case Hello():
                return Done()
            case SetLink(index, up, master, name, mtu, address):
                self._links.change_link(
                    index, up=up, master=master, name=name, mtu=mtu, address=address
                )
                return Done()
            case RouteTo(index, networks, through):
                self._links.route_to(index, networks, through)
                return Done()
            case _:
                if self._filtering is None:
                    self._filtering = Filtering(
                        self._table, self._selector, self._alarm, self._send
                    )
                return self._filtering.answer(request)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the helper; answers the exit code."""
    parser = argparse.ArgumentParser(prog="broker.net.helper", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="a stream socket to the agent")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="net helper: %(message)s", stream=sys.stderr)
    stream = socket.socket(fileno=options.fd)
    try:
        privileges.keep_net_admin_alone()
        helper = Helper(stream)
    except (NetError, OSError) as error:
        stream.settimeout(1.0)
        stream.sendall(messages.framed(Refused(str(error))))
        return 1
    helper.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
