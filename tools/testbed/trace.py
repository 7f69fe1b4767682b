"""What xenstored wrote down of all that it was asked, as the lives of single channels.

    IN 0x55d4c8a3e4f0 20260102 10:02:44 WRITE (/local/domain/1/name a)
    OUT 0x55d4c8a3e4f0 20260102 10:02:44 WRITE (OK )

An address is a connection's; a guest's is created while its INTRODUCE is answered. Transactions are
not told apart: what is written in one counts from then on. One that fails is done again, with the
same values.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_TOLD: Final = re.compile(
    r"(?P<way>IN|OUT) (?P<connection>0x[0-9a-f]+) (?P<when>\d{8} \d\d:\d\d:\d\d) (?P<what>\w+)"
    r" \((?P<said>.*)\)"
)
_CREATED: Final = re.compile(r"(?P<what>CREATE|DESTROY) connection (?P<connection>0x[0-9a-f]+)")
_BACKEND: Final = re.compile(r"/local/domain/(\d+)/backend/(vif|vbd)/(\d+)/(\d+)/state")
_CHANGES: Final = ("WRITE", "RM")
_MOMENT: Final = 1e-6
"""Seconds between two operations; xenstored's clock has whole ones."""


class Operation(NamedTuple):
    """One request that was granted; `domid` is who asked, None for one of dom0's."""

    t: float
    domid: int | None
    what: str
    path: str
    value: str


class Channel(NamedTuple):
    """One frontend and its backend."""

    kind: str
    frontend: int
    device: int
    backend: int

    def places(self) -> dict[str, str]:
        """The directories of both ends."""
        back = f"/local/domain/{self.backend}/backend/{self.kind}/{self.frontend}/{self.device}"
        front = f"/local/domain/{self.frontend}/device/{self.kind}/{self.device}"
        return {"frontend": front, "backend": back}


class Change(NamedTuple):
    """A line as `brokerctl spec replay` takes it."""

    t: float
    side: str
    key: str
    value: str | None
    writer: str | None


class Trace:
    """One channel's part of it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.changes: list[Change] = []
        self.begun = 0
        """How often a backend came into being."""
        self.ended = 0
        """How often both ends were gone again."""
        self._there: set[str] = set()

    def add(self, side: str, place: str, operation: Operation) -> None:
        """A change of one end's directory, or of one that holds it."""
        path = operation.path
        key = path.removeprefix(f"{place}/") if path.startswith(f"{place}/") else ""
        value = None if operation.what == "RM" else operation.value
        writer = "frontend" if operation.domid == self.channel.frontend else None
        self.changes.append(Change(operation.t, side, key, value, writer))
        if key == "state" and value is not None:
            self.begun += side == "backend" and side not in self._there
            self._there.add(side)
        elif not key:
            self.ended += self._there == {side}
            self._there.discard(side)

    def jsonl(self, *, by_second: bool = False) -> str:
        """As a file, an operation a moment; or as one sees it who looks once a second."""
        lines = [it._asdict() for it in self.changes]
        for line in lines:
            if by_second:
                line["t"] = int(line["t"])
            if line["writer"] is None:
                del line["writer"]
        return "".join(f"{json.dumps(line)}\n" for line in lines)


def operations(text: str) -> list[Operation]:
    """What was asked and granted, in the order it was asked."""
    asked: dict[str, list[int]] = {}
    domids: dict[str, int] = {}
    found: list[Operation | None] = []
    introduced: int | None = None
    for number, line in enumerate(text.splitlines()):
        if created := _CREATED.fullmatch(line):
            domids.pop(created["connection"], None)
            asked.pop(created["connection"], None)
            if created["what"] == "CREATE" and introduced is not None:
                domids[created["connection"]] = introduced
                introduced = None
            continue
        told = _TOLD.fullmatch(line)
        if told is None or told["what"] == "WATCH_EVENT":
            continue
        waiting = asked.setdefault(told["connection"], [])
        if told["way"] == "OUT":
            # One asked before the trace began may be answered in it.
            if waiting and told["what"] == "ERROR":
                found[waiting[0]] = None
            del waiting[:1]
            continue
        if told["what"] == "INTRODUCE":
            introduced = int(told["said"].split()[0])
        waiting.append(len(found))
        found.append(_operation(told, domids.get(told["connection"]), number))
    return [it for it in found if it is not None]


def _operation(told: re.Match[str], domid: int | None, number: int) -> Operation:
    when = dt.datetime.strptime(told["when"], "%Y%m%d %H:%M:%S").replace(tzinfo=dt.UTC)
    path, _, value = told["said"].partition(" ")
    if not path.startswith(("/", "@")):
        path = f"/local/domain/{domid or 0}/{path}"
    return Operation(when.timestamp() + number * _MOMENT, domid, told["what"], path, value)


def traces(found: Iterable[Operation]) -> list[Trace]:
    """The part of each vif and vbd that there was."""
    changes = [it for it in found if it.what in _CHANGES]
    named = filter(None, (_BACKEND.fullmatch(it.path) for it in changes))
    channels = {Channel(it[2], int(it[3]), int(it[4]), int(it[1])): None for it in named}
    return [_trace(channel, changes) for channel in channels]


def _trace(channel: Channel, changes: Iterable[Operation]) -> Trace:
    trace = Trace(channel)
    for it in changes:
        for side, place in channel.places().items():
            if _concerns(it, place):
                trace.add(side, place, it)
    return trace


def _concerns(operation: Operation, place: str) -> bool:
    """Whether it changes something in there, or takes it away with what it is in."""
    if operation.path.startswith(f"{place}/"):
        return True
    return operation.what == "RM" and f"{place}/".startswith(f"{operation.path}/")
