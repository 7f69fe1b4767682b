"""What of filter profiles is durable: a part of the fold over the audit log (`state`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from broker.core.filter_record import head_number, parse_filter
from broker.service import events
from broker.service.events import Bound  # noqa: TC001 - msgspec reads the annotations
from broker.xenstore import paths

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Place(msgspec.Struct, frozen=True, order=True):
    """Whose vifs a profile is on: a uuid's or a name's, one device of it or (empty) all."""

    bound: Bound
    key: str
    device: str = ""

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.bound}:{self.key}" + (f" vif {self.device}" if self.device else "")


class Binding(msgspec.Struct, frozen=True):
    """What an attached profile's variables are given, by whom, when."""

    given: dict[str, tuple[str, ...]]
    subject: str
    t: float


class _At(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    place: Place
    bindings: dict[str, Binding]


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same in a snapshot."""

    profiles: dict[str, str] = {}
    attached: tuple[_At, ...] = ()
    records: dict[str, str] = {}
    head: str = ""
    seq: int = 0


class FilterState:
    """Stored profiles by digest, attachments by place, and the last records by path.

    `records` and `head` are the exact texts; `seq` is the last number that any of them has.
    """

    def __init__(self) -> None:
        self.profiles: dict[str, str] = {}
        self.attached: dict[Place, dict[str, Binding]] = {}
        self.records: dict[str, bytes] = {}
        self.head = b""
        self.seq = 0
        self.effects: dict[type, Callable[[Any], None]] = {
            events.FilterStored: self._stored,
            events.FilterDestroyed: self._destroyed,
            events.FilterAttached: self._attached,
            events.FilterDetached: self._detached,
            events.Filtered: self._filtered,
            events.ProfilesTold: self._told,
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FilterState) and self.kept() == other.kept()

    __hash__ = None  # type: ignore[assignment]  # it changes: as for every mutable container

    def vanished(self, path: str) -> None:
        """The device of a decision's path is gone."""
        self.records.pop(f"{paths.FILTERS}{path.removeprefix(paths.DECISIONS)}", None)

    def raise_to(self, seq: int) -> None:
        """Agents may remember numbers up to `seq`; nobody remembers the texts any more."""
        self.records.clear()
        self.head = b""
        self.seq = max(self.seq, seq)

    def kept(self) -> Kept:
        """For a snapshot."""
        return Kept(
            self.profiles,
            tuple(_At(place, bindings) for place, bindings in self.attached.items()),
            {path: text.decode("ascii") for path, text in self.records.items()},
            self.head.decode("ascii"),
            self.seq,
        )

    def restore(self, kept: Kept) -> None:
        """From a snapshot.

        Raises:
            ValueError: a text is none.
        """
        self.profiles = kept.profiles
        self.attached = {at.place: at.bindings for at in kept.attached}
        self.records = {path: text.encode("ascii") for path, text in kept.records.items()}
        for text in self.records.values():
            parse_filter(text)
        self.head = kept.head.encode("ascii")
        self.seq = kept.seq

    def _stored(self, event: events.FilterStored) -> None:
        self.profiles[event.name] = event.digest

    def _destroyed(self, event: events.FilterDestroyed) -> None:
        self.profiles.pop(event.name, None)

    def _attached(self, event: events.FilterAttached) -> None:
        place = Place(event.bound, event.key, event.device)
        bindings = self.attached.setdefault(place, {})
        bindings[event.profile] = Binding(event.given, event.subject, event.t)

    def _detached(self, event: events.FilterDetached) -> None:
        place = Place(event.bound, event.key, event.device)
        bindings = self.attached.get(place, {})
        bindings.pop(event.profile, None)
        if not bindings:
            self.attached.pop(place, None)

    def _filtered(self, event: events.Filtered) -> None:
        text = event.text.encode("ascii")
        self._number(parse_filter(text).seq)
        self.records[event.path] = text

    def _told(self, event: events.ProfilesTold) -> None:
        text = event.text.encode("ascii")
        self._number(head_number(text))
        self.head = text

    def _number(self, seq: int) -> None:
        if seq <= self.seq:
            raise ValueError(f"filters' number {seq} follows {self.seq}")
        self.seq = seq
