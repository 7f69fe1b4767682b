"""The filters of this domain's vifs, as the broker's signed lines say: profiles, and whose.

Once the broker has told of any profiles, every vif needs a filter record of its present life, also
one that names no profile; and one whose grant says that it has profiles needs its record in any
case. Without it the vif stays closed. What was accepted last is on disk: no
older line is taken after it, and a restart needs no store to go on. Who has lost that takes what he
is shown, but a record of a new life says which texts were in force then: older ones open nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from twisted.logger import Logger

from broker.agent.durable import HeldFilter, replace_durably
from broker.agent.gates.base import GateError
from broker.core.filter_record import (
    ProfilesHead,
    unpack_profiles,
    verify_filter,
    verify_head,
)
from broker.core.record import RecordError
from broker.net.model import PortFilter
from broker.text.escape import escape
from broker.xenstore.errors import ConnectionLostError
from broker.xenstore.paths import PROFILES, filter_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from broker.agent.durable import DurableState, Known
    from broker.agent.gates.base import Device
    from broker.core.consumer import Memory
    from broker.core.filter_record import FilterRecord
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.errors import StoreError
    from broker.xenstore.paths import Channel

HEAD: Final = f"{PROFILES}/head"
_TOLD: Final = 256
"""Problems that are remembered as told."""


class _Kept(msgspec.Struct, frozen=True):
    """The file: the head's line and the chunks, as they were read."""

    head: bytes
    chunks: tuple[bytes, ...]


class VifFilters:
    """What `key` signed for backend domain `domid`; `directory` is the agent's state."""

    log = Logger()

    def __init__(
        self, domid: int, key: Ed25519PublicKey, durable: DurableState, directory: Path
    ) -> None:
        self.texts: Mapping[str, bytes] = {}
        """The profiles' texts, by where they come from."""
        self.attached = False
        """Whether the policy in force attaches profiles to anything."""
        self._domid = domid
        self._key = key
        self._durable = durable
        self._path = directory / "profiles.json"
        self._line = b""
        self._head: ProfilesHead | None = None
        self._told: set[str] = set()
        self._load()

    def _load(self) -> None:
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
            head = verify_head(kept.head, self._key)
            self.texts = unpack_profiles(head, kept.chunks)
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError, RecordError) as error:
            # Vifs with profiles are closed until the store tells them anew.
            self.log.critical("{path}: {error}", path=self._path, error=escape(str(error)))
            return
        self._head, self._line = head, kept.head

    async def look(
        self, connection: StoreConnection, lives: Sequence[tuple[Channel, Known]]
    ) -> None:
        """Read what is told of these vifs' present lives, and of profiles.

        Raises:
            ConnectionLostError: the connection ended.
        """
        paths = [HEAD, *(filter_path(channel) for channel, _ in lives)]
        head, *records = await connection.read_many(paths)
        if (line := _text(head)) and line != self._line:
            await self._profiles(connection, line)
        for (channel, known), record in zip(lives, records, strict=True):
            if text := _text(record):
                self._accept(channel, known, text)

    async def _profiles(self, connection: StoreConnection, line: bytes) -> None:
        try:
            head = self._newer(line)
            paths = [f"{PROFILES}/{number}" for number in range(head.chunks)]
            chunks = tuple(map(_text, await connection.read_many(paths)))
            texts = unpack_profiles(head, chunks)
            replace_durably(self._path, msgspec.json.encode(_Kept(line, chunks)))
        except (RecordError, OSError) as error:
            self._once(f"{HEAD}: {error}")
            return
        self.texts, self._head, self._line = texts, head, line
        self.log.info("filter profiles seq {seq} {digest}", seq=head.seq, digest=head.digest)

    def _newer(self, line: bytes) -> ProfilesHead:
        head = verify_head(line, self._key)
        if self._head is not None and head.seq <= self._head.seq:
            raise RecordError(f"seq {head.seq} is not newer than {self._head.seq}")
        return head

    def _accept(self, channel: Channel, known: Known, text: bytes) -> None:
        try:
            record = self._verified(channel, text)
        except RecordError as error:
            self._once(f"{filter_path(channel)}: {error}")
            return
        before = -1 if known.filter is None else known.filter.seq
        if record.profiles and record.head > self._seq():
            # What it had stays in force; the texts come first, and this is looked at again.
            self._once(f"{filter_path(channel)}: for profiles {record.head}, not {self._seq()}")
        elif record.seq > before:
            known.filter = HeldFilter(
                record.seq, record.nonce, record.profiles, dict(record.variables), record.head
            )
        elif record.seq < before:
            self._once(f"{filter_path(channel)}: seq {record.seq} is older than {before}")

    def _verified(self, channel: Channel, text: bytes) -> FilterRecord:
        record = verify_filter(text, self._key)
        ends = (record.backend, record.device_class, record.frontend, record.device)
        if ends != (self._domid, channel.device_class, channel.frontend, channel.device):
            raise RecordError("it is another vif's")
        return record

    def _seq(self) -> int:
        """The number of the texts here; 0: there are none."""
        return 0 if self._head is None else self._head.seq

    def _once(self, problem: str) -> None:
        """The same line is read again and again."""
        if problem not in self._told:
            self._told = {problem} if len(self._told) > _TOLD else {*self._told, problem}
            self.log.warn("refused: {problem}", problem=escape(problem, 300))

    def of(self, known: Known) -> PortFilter | None:
        """What the frames of this life are held to; None: no profile is attached.

        Raises:
            GateError: nothing is signed for it.
        """
        held = known.filter
        if held is None or held.nonce != known.nonce or not known.nonce:
            if self._head is None and not self.attached and not known.memory.filtered:
                return None
            raise GateError("no filter record is signed for it")
        if not held.profiles:
            return None
        if held.head > self._seq():
            raise GateError(
                f"its filter record is for profiles {held.head}, and those here are {self._seq()}"
            )
        return PortFilter(held.profiles, held.variables)

    def of_device(self, device: Device) -> PortFilter | None:
        """The same, of a device's present life.

        Raises:
            GateError: nothing is signed for it, or its life is not known.
        """
        channel = device.channel
        known = self._durable.saved.slots.get(f"{device.kind}/{channel.frontend}/{channel.device}")
        if known is None:
            raise GateError("its life is not known")
        return self.of(known)


class NotHeld:
    """Where frames are held to nothing: vifs with profiles stay closed, or are closed.

    It is the vif gate's filter, and the enforcer's in place of `Bridges`.
    """

    def __init__(self, filters: VifFilters) -> None:
        self._filters = filters

    def admit(self, device: Device, link: str) -> None:
        """Refuse a vif that has profiles."""
        asked = self._filters.of_device(device)
        if asked is not None:
            raise GateError(
                f"{link}: its filter profiles ({', '.join(asked.profiles)}) cannot be held here: "
                "set `policies` and `bridges` in agent.yaml"
            )

    def expel(self, device: Device, link: str) -> None:
        """Nothing to take away."""

    def follow(self, memories: Iterable[Memory]) -> None:
        """No policy's labels are held to here."""

    def follow_filters(self, *, may_move: bool) -> None:
        """Nor any profile."""

    def keep(self, device: Device, *, may_move: bool) -> str:  # noqa: ARG002 - as `Bridges` has it
        """Why an open vif has to be closed: it has got profiles; empty if it has none."""
        try:
            self.admit(device, "it is open")
        except GateError as error:
            return str(error)
        return ""


def _text(answer: bytes | StoreError) -> bytes:
    if isinstance(answer, ConnectionLostError):
        raise answer
    return answer if isinstance(answer, bytes) else b""
