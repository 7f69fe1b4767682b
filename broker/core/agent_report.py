"""What a backend domain's agent says of itself, every few seconds: one line.

    at=1764000000 version=0.1.0 policy=sha256:<hex> beat=1 open=12 closed=3 suspended=0 failed=0

`policy` is the one whose labels it holds bridges to, `-` where it holds none to any, `missing`
where it has no such policy's file and nothing passes; `beat` whether it hears the broker's
heartbeat. It is for people alone: nothing is decided by it, and an agent can lie about itself and
about nobody else.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from broker.core.record import RecordError

PERIOD: Final = 10.0
"""Seconds between two reports."""
_COUNT: Final = r"(0|[1-9][0-9]{0,9})"
MISSING: Final = "missing"
BOOTSTRAP: Final = "a bootstrap device of the agent's own list"
"""Why a device is open that no record opened: the host's operator listed it in agent.yaml."""
_REPORT: Final = re.compile(
    rf"at=(0|[1-9][0-9]{{0,15}}) version=([0-9A-Za-z.+~-]{{1,40}}) "
    rf"policy=(-|missing|sha256:[0-9a-f]{{64}}) beat=([01]) "
    rf"open={_COUNT} closed={_COUNT} suspended={_COUNT} failed={_COUNT}"
)


class AgentReport(msgspec.Struct, frozen=True, kw_only=True):
    """One report; `at` is when it was made, seconds since 1970 by the agent's clock."""

    at: int
    version: str
    policy: str | None
    beat: bool
    open: int = 0
    closed: int = 0
    suspended: int = 0
    failed: int = 0


def encode_agent_report(report: AgentReport) -> str:
    """The report's text."""
    return (
        f"at={report.at} version={report.version} policy={report.policy or '-'} "
        f"beat={int(report.beat)} open={report.open} closed={report.closed} "
        f"suspended={report.suspended} failed={report.failed}"
    )


def parse_agent_report(untrusted_text: bytes) -> AgentReport:
    """The report in a node's value.

    Raises:
        RecordError: it is none.
    """
    found = _REPORT.fullmatch(untrusted_text[:400].decode("latin-1"))
    if found is None or len(untrusted_text) > 400:
        raise RecordError("not a report of an agent about itself")
    return AgentReport(
        at=int(found[1]),
        version=found[2],
        policy=None if found[3] == "-" else found[3],
        beat=found[4] == "1",
        open=int(found[5]),
        closed=int(found[6]),
        suspended=int(found[7]),
        failed=int(found[8]),
    )
