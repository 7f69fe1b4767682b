"""What the agent may ask of its privileged helper, and what it hears: nothing else is understood.

Length (four bytes, big-endian), then MessagePack. Every request is answered by `Done`, `Refused`
or what it asks for; `Alarm` and `Dropped` may come at any time.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from broker.net.model import Port  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_MESSAGE: Final = 16 << 20
"""Bytes; a million pairs take less."""
MAX_TRACE: Final = 60
_LENGTH: Final = struct.Struct(">I")

Pairs = list[tuple[int, int]]
Index = Annotated[int, msgspec.Meta(ge=1, le=0x7FFFFFFF)]


class Message(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of all messages; the tag is the class's name."""


class Start(Message, frozen=True):
    """Make or take over the tables, and hold exactly this. The first request of a connection."""

    bridges: list[str]
    ports: list[Port]
    pairs: Pairs


class Put(Message, frozen=True):
    """Give a port its class."""

    port: Port


class Remove(Message, frozen=True):
    """Close a port."""

    index: Index


class Update(Message, frozen=True):
    """Go to other ports and pairs in one transaction; `during`: see `PortEnforcer.update`."""

    ports: list[Port]
    pairs: Pairs
    during: Pairs


class Numbers(Message, frozen=True):
    """Which class numbers do ports have in the kernel?"""


class Show(Message, frozen=True):
    """What is in force, and what was counted?"""


class Trace(Message, frozen=True):
    """Report what becomes of packets from one port to another, for a bounded time."""

    sender: Index
    receiver: Index
    seconds: Annotated[float, msgspec.Meta(gt=0, le=MAX_TRACE)]


class Done(Message, frozen=True):
    """It is in force, and was read back."""


class Refused(Message, frozen=True):
    """It is not in force; why."""

    reason: str


class NumbersAre(Message, frozen=True):
    """The answer to `Numbers`."""

    numbers: list[int]


class Drops(msgspec.Struct, frozen=True):
    """Refused packets of one pair of classes; 0 is no class, or dom0."""

    sender: int
    receiver: int
    packets: int
    bytes: int


class Shown(Message, frozen=True):
    """The answer to `Show`."""

    knows_bridge: bool
    bridges: list[str]
    ports: list[Port]
    pairs: Pairs
    drops: list[Drops]


class Alarm(Message, frozen=True):
    """What an administrator must know."""

    text: str


class Dropped(Message, frozen=True):
    """A sample of refused packets; interfaces by index, 0 for dom0 itself."""

    sender: int
    receiver: int
    number: int
    packet: str


class Traced(Message, frozen=True):
    """One step of one traced packet."""

    packet: str
    chain: str
    verdict: str


Request = Start | Put | Remove | Update | Numbers | Show | Trace
Event = Alarm | Dropped | Traced
Answer = Done | Refused | NumbersAre | Shown | Alarm | Dropped | Traced


class ProtocolError(Exception):
    """The other side sent what is not a message."""


class Framer:
    """Cuts a stream into messages."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that `data` completes.

        Raises:
            ProtocolError: one is longer than `MAX_MESSAGE`.
        """
        self._held += data
        while len(self._held) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._held)
            if length > MAX_MESSAGE:
                raise ProtocolError(f"message of {length} bytes")
            end = _LENGTH.size + length
            if len(self._held) < end:
                return
            yield bytes(self._held[_LENGTH.size : end])
            del self._held[:end]


def framed(message: Request | Answer) -> bytes:
    """A message as it goes over the stream."""
    data = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(data)) + data


_REQUESTS: Final[msgspec.msgpack.Decoder[Request]] = msgspec.msgpack.Decoder(Request)
_ANSWERS: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)


def request(untrusted_data: bytes) -> Request:
    """A request, every field of it checked.

    Raises:
        ProtocolError: it is none.
    """
    try:
        return _REQUESTS.decode(untrusted_data)
    except msgspec.MsgspecError as error:
        raise ProtocolError(str(error)) from error


def answer(data: bytes) -> Answer:
    """An answer or event.

    Raises:
        ProtocolError: it is none.
    """
    try:
        return _ANSWERS.decode(data)
    except msgspec.MsgspecError as error:
        raise ProtocolError(str(error)) from error
