"""What the agent must not forget: nonces, last accepted records, the heartbeat's floor.

One JSON file, replaced as a whole and synced, so that a kill at any point leaves the old or the
new one. If it is lost, nothing opens by that: the nonces are new, so every older grant is void.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import msgspec

from broker.core.consumer import NOTHING, Memory
from broker.net.ports import OpenPort  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from pathlib import Path

_ENDED_KEPT: Final = 4096
"""How many paths without a device are remembered, so that the file cannot grow for ever."""


_BEATS_UNSAVED: Final = 30
"""Heartbeats that may pass before the floor is written for their sake alone: one minute."""


class HeldPort(msgspec.Struct, frozen=True):
    """The interface that was given its label's class: an `index` means one in one `boot` alone."""

    port: OpenPort
    index: int
    boot: str


class HeldFilter(msgspec.Struct, frozen=True):
    """The last filter record accepted: for the life `nonce`, these profiles and variables.

    `head`: of profiles' texts, those before this number are not for it.
    """

    seq: int
    nonce: str | None
    profiles: tuple[str, ...] = ()
    variables: dict[str, tuple[str, ...]] = {}
    head: int = 0


class Known(msgspec.Struct, kw_only=True):
    """One slot: `nonce` is empty between lives; `memory` is the path's and outlives them.

    `inputs` is the digest of the directory the life began with; `state` what was last enforced;
    `port` what a vif's frames are held to, None where nothing passes or none are filtered. `filter`
    is the last filter record that was accepted.
    """

    nonce: str = ""
    inputs: str = ""
    found_open: bool = False
    state: str = "closed"
    memory: Memory = NOTHING
    port: HeldPort | None = None
    filter: HeldFilter | None = None


class Saved(msgspec.Struct, kw_only=True):
    """The file. Slots are keyed `kind/frontend/devid`; `domid` is the agent's own."""

    domid: int
    heartbeat: int = -1
    slots: dict[str, Known] = {}


class DurableState:
    """The file at `directory/agent.json` and what is in it."""

    def __init__(self, directory: Path, domid: int) -> None:
        self._path = directory / "agent.json"
        self._written: tuple[bytes, int] = (b"", -1)
        self.problem = self._load(domid)
        """Why an existing file could not be used, or empty."""

    def _load(self, domid: int) -> str:
        self.saved = Saved(domid=domid)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            raw = self._path.read_bytes()
            saved = msgspec.json.decode(raw, type=Saved)
        except FileNotFoundError:
            return ""
        except msgspec.DecodeError as error:
            self._path.replace(self._path.with_suffix(".corrupt"))
            return f"{self._path}: {error}; kept as {self._path.with_suffix('.corrupt')}"
        if saved.domid != domid:
            return f"{self._path} is domain {saved.domid}'s, this is domain {domid}"
        self.saved = saved
        return ""

    def save(self) -> None:
        """Make it durable; costs nothing if little changed. Raises `OSError`."""
        self._prune()
        slots = msgspec.json.encode(self.saved.slots)
        if slots == self._written[0] and self.saved.heartbeat - self._written[1] < _BEATS_UNSAVED:
            return
        replace_durably(self._path, msgspec.json.encode(self.saved))
        self._written = (slots, self.saved.heartbeat)

    def _prune(self) -> None:
        ended = [key for key, known in self.saved.slots.items() if not known.nonce]
        for key in ended[: max(0, len(ended) - _ENDED_KEPT)]:
            del self.saved.slots[key]


def replace_durably(path: Path, data: bytes) -> None:
    """Put `data` in the file's place, so that a kill at any point leaves the old or the new one.

    Raises:
        OSError: it could not be; the old one is in place.
    """
    beside = path.with_suffix(".new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
