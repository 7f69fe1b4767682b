"""How much one domain may make the broker write: what repeats is counted, too much is punished.

Without this a guest could fill the audit disk, and a full audit disk denies everybody.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Charge = Literal["write", "count", "exhausted"]

MAX_SUBJECTS: Final = 4096
"""Subjects counted at once; beyond, the longest silent one is forgotten."""


class Budget(msgspec.Struct, frozen=True):
    """`burst` lines at once, and one more each `refill` seconds."""

    burst: int = 50
    refill: float = 10.0


class Ledger:
    """Every account's allowance, and how often each thing was only counted.

    An account is a domid (negative: the broker's own), or the path of a channel.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._tokens: dict[int | str, tuple[float, float]] = {}
        self._counts: dict[tuple[int | str, str], int] = {}
        self._last: dict[tuple[int | str, str], str] = {}

    def charge(self, account: int | str, subject: str, detail: str, now: float) -> Charge:
        """Whether `account` may have a line written at `now` (seconds, any monotonic clock).

        The same `detail` on the same `subject` twice running is counted; so is everything once
        the account's allowance is used up, which is `exhausted`.
        """
        key = (account, subject)
        if self._last.get(key) == detail:
            self._counts[key] = self._counts.get(key, 0) + 1
            return "count"
        self._last.pop(key, None)
        self._last[key] = detail
        if len(self._last) > MAX_SUBJECTS:
            self._last.pop(next(iter(self._last)))
        tokens, since = self._tokens.get(account, (float(self._budget.burst), now))
        tokens = min(float(self._budget.burst), tokens + (now - since) / self._budget.refill)
        if tokens < 1:
            self._tokens[account] = (tokens, now)
            self._counts[key] = self._counts.get(key, 0) + 1
            return "exhausted"
        self._tokens[account] = (tokens - 1, now)
        return "write"

    def counted(self) -> dict[str, int]:
        """What was counted instead of written since the last call, by subject."""
        result: dict[str, int] = {}
        for (account, subject), count in self._counts.items():
            named = isinstance(account, int) and account >= 0
            key = f"domain {account}: {subject}" if named else subject
            result[key] = result.get(key, 0) + count
        self._counts.clear()
        return result

    def forget(self, account: int | str) -> None:
        """The domain or the channel is gone; another under its name starts afresh."""
        self._tokens.pop(account, None)
        for key in [key for key in self._last if key[0] == account]:
            del self._last[key]
