"""What people see of the bridges: the log, and the file that `brokerctl net show` reads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
from twisted.logger import Logger

from broker.net import report as reports
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from twisted.internet.interfaces import IDelayedCall

    from broker.net.report import Report
    from broker.xenstore.transport import Reactor

_AFTER: Final = 0.1
"""Seconds that changes are collected for before the file is written."""
_KEPT: Final = 32
"""Alarms, and samples of refused packets, that are kept for people to see."""


class BridgeReport:
    """Keeps the file at `path` in step with `described()`; nothing is enforced by it."""

    log = Logger()

    def __init__(self, path: Path, reactor: Reactor, described: Callable[[], Report]) -> None:
        self._path = path
        self._reactor = reactor
        self._described = described
        self._alarms: list[str] = []
        self._samples: list[str] = []
        self._written = b""
        self._writing: IDelayedCall | None = None

    def alarm(self, text: str) -> None:
        """What an administrator must know."""
        self.log.critical("bridge: {text}", text=escape(text, 400))
        self._alarms = [*self._alarms, f"{self._now()} {text}"][-_KEPT:]
        self.soon()

    def sample(self, words: str) -> None:
        """A packet was refused."""
        self.log.debug("refused: {words}", words=escape(words))
        self._samples = [*self._samples, f"{self._now()} {words}"][-_KEPT:]
        self.soon()

    def soon(self) -> None:
        """Something may have changed."""
        if self._writing is None:
            self._writing = self._reactor.callLater(_AFTER, self._due)

    def stop(self) -> None:
        """Write what has not been written; nothing comes after."""
        if self._writing is not None:
            self._writing.cancel()
            self._due()

    def _due(self) -> None:
        self._writing = None
        self.write()

    def write(self) -> None:
        """Write the file now, if it would say anything new."""
        report = msgspec.structs.replace(
            self._described(), alarms=tuple(self._alarms), samples=tuple(self._samples)
        )
        content = reports.encode(report)
        if content == self._written:
            return
        beside = self._path.with_name(f"{self._path.name}.new")
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            beside.write_bytes(content)
            beside.replace(self._path)
        except OSError as error:
            self.log.warn("{error}: net show has nothing new to show", error=escape(str(error)))
        else:
            self._written = content

    def _now(self) -> str:
        at = datetime.fromtimestamp(self._reactor.seconds(), UTC)
        return at.strftime("%Y-%m-%dT%H:%M:%SZ")
