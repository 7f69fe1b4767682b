"""Filter records and profiles' texts to the store.

They are there before the grants they belong to, and again where somebody else changed them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from broker.core.record import RecordError
from broker.text.escape import escape
from broker.xenstore import paths
from broker.xenstore.errors import ConnectionLostError, NotFoundError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from broker.service.audit import Audit
    from broker.service.filters import Filters, FilterText
    from broker.service.publisher import Publisher

_LOOK_AFTER: Final = 0.25
"""Seconds from an event to a look at what is there: most are echoes of what was just written."""


class Telling:
    """Tells agents what `filters` says; what is told is remembered for one connection."""

    log = Logger()

    def __init__(self, filters: Filters, audit: Audit, clock: IReactorTime) -> None:
        self._filters = filters
        self._audit = audit
        self._clock = clock
        self._publisher: Publisher | None = None
        self._told: dict[str, bytes] = {}
        self._suspect: set[str] = set()
        self._looking: IDelayedCall | None = None
        self._lock = DeferredLock()

    def begin(self, publisher: Publisher) -> None:
        """Another connection: nothing is told on it yet."""
        self._publisher = publisher
        self._told.clear()
        self._suspect.clear()

    def end(self) -> None:
        """The connection is gone."""
        self._publisher = None

    def forget(self, channels: Iterable[paths.Channel]) -> None:
        """These devices are gone."""
        for channel in channels:
            self._told.pop(paths.filter_path(channel), None)

    async def records(self, items: Sequence[FilterText]) -> list[StoreError | None]:
        """Tell of vifs' filters, after the texts they name; for each, None or why it failed.

        Raises:
            ConnectionLostError: the connection ended.
        """
        publisher = self._publisher
        if publisher is None:
            raise ConnectionLostError
        # Once agents know of profiles they wait for a record of each vif, so those that need no
        # profile come before: no vif is without one for having none.
        failed = await self._records(publisher, [it for it in items if it.bare])
        rest = [it for it in items if not it.bare]
        problem = await self.profiles()
        if problem is None:
            failed |= await self._records(publisher, rest)
        else:
            failed |= {it.path: problem for it in rest}
        return [failed.get(it.path) for it in items]

    async def _records(
        self, publisher: Publisher, items: Sequence[FilterText]
    ) -> dict[str, StoreError]:
        """Write what is news; by path, why the store did not take it."""
        news = [it for it in items if self._told.get(it.path) != it.text]
        answers = await publisher.filters([(it.path, it.text) for it in news])
        failed: dict[str, StoreError] = {}
        for item, answer in zip(news, answers, strict=True):
            if answer is None:
                self._told[item.path] = item.text
            else:
                failed[item.path] = answer
        return failed

    async def profiles(self) -> StoreError | None:
        """Tell the profiles' texts, if they are others than what was told; None, or why not.

        Raises:
            ConnectionLostError: the connection ended.
        """
        await self._lock.acquire()
        try:
            return await self._profiles()
        finally:
            self._lock.release()

    async def _profiles(self) -> StoreError | None:
        publisher, filters = self._publisher, self._filters
        if publisher is None:
            raise ConnectionLostError
        try:
            if not filters.refresh_head():
                return StoreError("EIO", "the audit log cannot be written")
        except RecordError as error:
            self._audit.alarm("filter profiles", str(error))
            return StoreError("E2BIG", str(error))
        nodes = {f"{paths.PROFILES}/{n}": chunk for n, chunk in enumerate(filters.chunks)}
        if filters.state.head:
            nodes[f"{paths.PROFILES}/head"] = filters.state.head  # last: who sees it finds the rest
        news = [(path, text) for path, text in nodes.items() if self._told.get(path) != text]
        if not news:
            return None
        for (path, text), answer in zip(news, await publisher.profiles(news), strict=True):
            if answer is not None:
                return answer
            self._told[path] = text
        return None

    def event(self, path: str) -> bool:
        """A watch fired; whether it was about what is told here."""
        if not path.startswith((f"{paths.FILTERS}/", f"{paths.PROFILES}/")):
            return False
        if path in self._told:
            self._suspect.add(path)
            if self._looking is None:
                self._looking = self._clock.callLater(_LOOK_AFTER, self._look)
        return True

    def _look(self) -> None:
        self._looking = None
        if self._publisher is not None:
            Deferred.fromCoroutine(self._put_right()).addErrback(self._failed)

    async def _put_right(self) -> None:
        """Write again what is not as it was told."""
        publisher = self._publisher
        wanted = [path for path in self._suspect if path in self._told]
        self._suspect.clear()
        if publisher is None or not wanted:
            return
        wrong: list[tuple[str, bytes]] = []
        for path, held in zip(wanted, await publisher.held(wanted), strict=True):
            text = self._told.get(path)
            if text is None or held == text or isinstance(held, NotFoundError):
                continue  # gone with its device, or dom0's helper makes it anew: an event tells
            if held:
                shown = escape(held if isinstance(held, bytes) else str(held), 100)
                self._audit.alarm(path, f"does not hold what the broker wrote, but: {shown}")
            wrong.append((path, text))
        await publisher.filters(wrong)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(ConnectionLostError):
            self.log.failure("what is told of filters could not be put right", failure)
