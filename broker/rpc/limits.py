"""What one client, and all together, may take: connections, calls, bytes, time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from broker.rpc.admin import Caller

_MAX_REMEMBERED: Final = 4096
"""People or addresses whose rate is remembered; beyond, who was silent longest starts afresh."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one listener. Sizes in bytes, times in seconds.

    `request_time` is for a whole request, from the connection (so that it holds for a TLS
    handshake too) or the last answer on: a client that sends a byte now and then gains nothing
    by it. `stream_events` are kept for a client that does not read, `stall` is how long it may.
    `person_connections` and `person_rate` (calls a second, `person_burst` at once) are for one
    person with a certificate; local root is not held to them. `address_rate` (connections a
    second, `address_burst` at once) is for one address of the network, so that handshakes,
    which cost the broker most, take no time that deciding needs.
    """

    body: int = 1 << 20
    headers: int = 50
    header_bytes: int = 8192
    request_time: int = 10
    stream_events: int = 1024
    keep_alive: float = 15.0
    stall: float = 60.0
    person_connections: int = 32
    person_burst: float = 200.0
    person_rate: float = 50.0
    address_burst: float = 100.0
    address_rate: float = 20.0


class Held(Protocol):
    """A connection, as its place in the house."""

    caller: Caller | None

    def abort(self) -> None:
        """Drop it at once; it leaves its place then."""
        ...


class Places:
    """The connections of all listeners together.

    Of `total`, `reserved` are for the local socket alone: nobody on a network keeps root out.
    Of the others at most `strangers` may be without a known caller; one more takes the place
    of the oldest of them, so that who connects and says nothing keeps nobody out either.
    """

    def __init__(self, total: int = 256, reserved: int = 32, strangers: int = 64) -> None:
        self._total = total
        self._remote_total = total - reserved
        self._most_strangers = strangers
        self._local: dict[Held, None] = {}
        self._remote: dict[Held, None] = {}

    @property
    def held(self) -> int:
        """How many are taken."""
        return len(self._local) + len(self._remote)

    def enter(self, connection: Held, *, local: bool) -> bool:
        """Take a place, or False: there is none."""
        if not local:
            strangers = [it for it in self._remote if it.caller is None]
            if len(strangers) >= self._most_strangers:
                oldest = strangers[0]
                del self._remote[oldest]
                oldest.abort()
            if len(self._remote) >= self._remote_total:
                return False
        if self.held >= self._total:
            return False
        (self._local if local else self._remote)[connection] = None
        return True

    def leave(self, connection: Held) -> None:
        """The place is free again."""
        self._local.pop(connection, None)
        self._remote.pop(connection, None)

    def of_person(self, person: str) -> int:
        """How many connections over a network one person has."""
        return sum(1 for it in self._remote if it.caller is not None and it.caller.person == person)


class Rates:
    """How often each person may call, or each address connect: a bucket that fills again."""

    def __init__(self, burst: float, rate: float) -> None:
        self._burst = burst
        self._rate = rate
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, who: str, now: float) -> float:
        """Take one at `now` (seconds, monotonic); the seconds to wait if there is none."""
        left, since = self._left.pop(who, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        wait = 0.0 if left >= 1 else (1 - left) / self._rate
        self._left[who] = (left if wait else left - 1, now)
        if len(self._left) > _MAX_REMEMBERED:
            del self._left[next(iter(self._left))]
        return wait
