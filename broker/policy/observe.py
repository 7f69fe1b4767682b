"""`mode: {observe: ...}`: what is opened although it is denied, and the day it ends."""

from __future__ import annotations

import calendar
import re
from typing import TYPE_CHECKING, Final

from broker.core import definition as core
from broker.policy.rules import SideReader
from broker.text.escape import escape

if TYPE_CHECKING:
    from broker.policy.findings import Findings
    from broker.policy.form import PolicyForm
    from broker.text.marked_yaml import Text

_DATE: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})", re.ASCII)
_DAY: Final = 24 * 60 * 60
_FIRST_YEAR: Final = 1970


def read_observe(form: PolicyForm, findings: Findings) -> core.Observe | None:
    """What observe mode opens; None where the policy enforces everything."""
    if isinstance(form.mode, str):
        return None
    observe = form.mode.observe
    reader = SideReader(form, findings)
    opens = tuple(
        core.Pattern(
            classes=reader.classes(pattern, pattern.classes),
            frontends=reader.labels(pattern, pattern.frontend),
            backends=reader.labels(pattern, pattern.backend),
            resources=reader.resources(pattern, pattern.resource),
        )
        for pattern in observe.opens
    )
    if not observe.opens and not observe.partial:
        findings.add(observe, "observe mode that opens nothing: write 'mode: enforce'")
    until = _end_of(observe.until, findings)
    return core.Observe(opens, until, str(observe.until), findings.where(form.mode))


def _end_of(text: Text, findings: Findings) -> int:
    """POSIX seconds of the midnight (UTC) that ends the day."""
    match = _DATE.fullmatch(text)
    if match is not None:
        year, month, day = (int(part) for part in match.groups())
        # calendar has no year 0, and days before the epoch are certainly slips.
        if year >= _FIRST_YEAR and 1 <= month <= 12 and 1 <= day <= _days(year, month):
            return calendar.timegm((year, month, day, 0, 0, 0)) + _DAY
    findings.add(text, f"'until' is a date, YYYY-MM-DD, not '{escape(text, 60)}'")
    return 0


def _days(year: int, month: int) -> int:
    return calendar.monthrange(year, month)[1]
