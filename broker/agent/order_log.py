"""Which of the broker's orders were taken, durable before anything is done about them.

One JSON file, `orders.json` in the agent's state directory. An order is carried out at most once:
its number is on the disk first, and no lower one is taken ever after. One that was under way when
the agent ended is found here again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.agent.durable import replace_durably

if TYPE_CHECKING:
    from pathlib import Path

_NAME: Final = "orders.json"


class _Saved(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The file: the highest number taken; by place, orders under way and the last results."""

    seq: int = -1
    running: dict[str, str] = {}
    results: dict[str, str] = {}


class OrderLog:
    """The file in `directory`; `problem` says why no order can be taken, if it is not readable."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _NAME
        self._saved = _Saved()
        self.problem = ""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._saved = msgspec.json.decode(self._path.read_bytes(), type=_Saved)
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as error:
            # Which orders were carried out is not known any more: none is, rather than one twice.
            self.problem = f"{self._path}: {error}"

    @property
    def seq(self) -> int:
        """The highest number of an order that was taken; -1 before the first."""
        return self._saved.seq

    @property
    def running(self) -> dict[str, bytes]:
        """The orders that were begun and have no result, by their places."""
        return {place: text.encode("ascii") for place, text in self._saved.running.items()}

    @property
    def results(self) -> dict[str, bytes]:
        """The last result in each place."""
        return {place: line.encode("ascii") for place, line in self._saved.results.items()}

    def begin(self, place: str, seq: int, text: bytes) -> None:
        """Take an order: from now on none of this number or a lower one is.

        Raises:
            OSError: it could not be noted, and must not be carried out.
        """
        before = msgspec.structs.replace(self._saved, running=dict(self._saved.running))
        self._saved.seq = seq
        self._saved.running[place] = text.decode("ascii")
        try:
            self._save()
        except OSError:
            self._saved = before
            raise

    def end(self, place: str, line: bytes) -> None:
        """Note an order's result.

        Raises:
            OSError: it is in memory alone; after a restart the order counts as interrupted.
        """
        self._saved.running.pop(place, None)
        self._saved.results[place] = line.decode("ascii")
        self._save()

    def _save(self) -> None:
        replace_durably(self._path, msgspec.json.encode(self._saved))
