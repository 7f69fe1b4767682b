"""What the agent may ask of its privileged helper, and what it hears: nothing else is understood.

Length (four bytes, big-endian), then MessagePack. Every request is answered by `Done`, `Refused`
or what it asks for; `Alarm` and `Dropped` may come at any time.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from broker.net.model import InvalidError, Port, interface_name, ip_network

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_MESSAGE: Final = 16 << 20
"""Bytes; a million pairs take less."""
MAX_TRACE: Final = 60
MAX_NETWORKS: Final = 64
"""Networks behind one routed port."""
_STATION: Final = 6
"""Bytes of a MAC address."""
_LENGTH: Final = struct.Struct(">I")

Pairs = list[tuple[int, int]]
Profiles = dict[str, bytes]
"""The texts of filter profiles, by where they come from."""
Index = Annotated[int, msgspec.Meta(ge=1, le=0x7FFFFFFF)]
Master = Annotated[int, msgspec.Meta(ge=0, le=0x7FFFFFFF)]
Mtu = Annotated[int, msgspec.Meta(ge=68, le=65535)]
Networks = Annotated[list[str], msgspec.Meta(max_length=MAX_NETWORKS)]


class Message(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of all messages; the tag is the class's name."""


class Hello(Message, frozen=True):
    """Is the helper there, and has it the right?"""


class Start(Message, frozen=True):
    """Make or take over the tables, and hold exactly this. Labels' first request."""

    bridges: list[str]
    ports: list[Port]
    pairs: Pairs
    profiles: Profiles = {}


class Put(Message, frozen=True):
    """Give a port its class."""

    port: Port


class Remove(Message, frozen=True):
    """Close a port."""

    index: Index


class Update(Message, frozen=True):
    """Go to other ports, pairs and profiles in one transaction.

    `during`: see `PortEnforcer.update`. Without `profiles` they stay those that are known.
    """

    ports: list[Port]
    pairs: Pairs
    during: Pairs | None = None
    profiles: Profiles | None = None


class SetLink(Message, frozen=True):
    """Change a guest's link: what is given; see `LinkChanges.change_link`."""

    index: Index
    up: bool | None = None
    master: Master | None = None
    name: str | None = None
    mtu: Mtu | None = None
    address: bytes | None = None

    def __post_init__(self) -> None:
        """Refuse a name or an address that is none."""
        if self.name is not None:
            interface_name(self.name)
        if self.address is not None and (len(self.address) != _STATION or self.address[0] & 1):
            raise InvalidError(f"not the address of a station: {self.address.hex()}")


class RouteTo(Message, frozen=True):
    """Bring a guest's link up and route to networks by it; see `LinkChanges.route_to`."""

    index: Index
    networks: Networks
    through: str

    def __post_init__(self) -> None:
        """Refuse what is no link's name or no network in its canonical form."""
        interface_name(self.through)
        if any(ip_network(text) != text for text in self.networks):
            raise InvalidError(f"not canonical networks: {self.networks!a}")


class Numbers(Message, frozen=True):
    """Which class numbers do ports have in the kernel?"""


class Show(Message, frozen=True):
    """What is in force, and what was counted?"""


class Count(Message, frozen=True):
    """What was refused so far?"""


class CountFilters(Message, frozen=True):
    """What did filter profiles decide and learn so far?"""


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
    """Refused packets of one pair of labels, by their numbers (`label_ids`)."""

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


class Counted(Message, frozen=True):
    """The answer to `Count`."""

    drops: list[Drops]


class RuleCount(msgspec.Struct, frozen=True):
    """What one rule of a filter profile (`profile/number`, `profile/default`) decided so far."""

    rule: str
    packets: int
    bytes: int


class Lease(msgspec.Struct, frozen=True):
    """An IPv4 address that was learned for a port, and the seconds it is still bound for."""

    index: int
    address: str
    seconds: int


class FiltersCounted(Message, frozen=True):
    """The answer to `CountFilters`."""

    counts: list[RuleCount]
    leases: list[Lease]


class Alarm(Message, frozen=True):
    """What an administrator must know."""

    text: str


class Dropped(Message, frozen=True):
    """A sample of refused packets; interfaces by index, 0 for dom0 itself; the sender's label."""

    sender: int
    receiver: int
    label: int
    packet: str


class Traced(Message, frozen=True):
    """One step of one traced packet."""

    packet: str
    chain: str
    verdict: str


Asked = Start | Put | Remove | Update | Numbers | Show | Count | CountFilters | Trace
"""What is about labels."""
Request = Hello | SetLink | RouteTo | Asked
Event = Alarm | Dropped | Traced
Answer = Done | Refused | NumbersAre | Shown | Counted | FiltersCounted | Event


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
