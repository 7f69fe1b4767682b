"""What an agent says of itself: one line, and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.agent_report import (
    MISSING,
    AgentReport,
    encode_agent_report,
    parse_agent_report,
)
from broker.core.record import RecordError

DIGEST = "sha256:" + "ab" * 32
GOOD = f"at=7 version=0.1.0 policy={DIGEST} beat=1 open=2 closed=0 suspended=0 failed=3"
counts = st.integers(0, 9_999_999_999)


@given(
    st.builds(
        AgentReport,
        at=st.integers(0, 10**16 - 1),
        version=st.from_regex(r"[0-9A-Za-z.+~-]{1,40}", fullmatch=True),
        policy=st.sampled_from([None, MISSING, DIGEST]),
        beat=st.booleans(),
        open=counts,
        closed=counts,
        suspended=counts,
        failed=counts,
    )
)
def test_what_is_written_is_read(report):
    assert parse_agent_report(encode_agent_report(report).encode()) == report


@pytest.mark.parametrize(
    "text",
    [
        "",
        "at=7",
        GOOD + " ",
        GOOD + "\n",
        GOOD.replace("beat=1", "beat=2"),
        GOOD.replace(DIGEST, "sha256:ab"),
        GOOD.replace("0.1.0", "\x1b[2J"),
        GOOD.replace("at=7", "at=07"),
        GOOD.replace("open=2", "open=" + "9" * 11),
        GOOD + "x" * 400,
    ],
)
def test_what_is_no_report_is_refused(text):
    with pytest.raises(RecordError):
        parse_agent_report(text.encode("latin-1"))


@given(st.binary(max_size=500))
def test_nothing_but_a_report_is_read_as_one(data):
    try:
        report = parse_agent_report(data)
    except RecordError:
        return
    assert encode_agent_report(report).encode() == data
