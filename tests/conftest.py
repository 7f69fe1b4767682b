"""Fixtures shared by all tests: running stores of each kind (support/xenstoreds.py)."""

from __future__ import annotations

import sys

import pytest
from hypothesis import settings
from support.xenstoreds import KINDS, start_store
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

# Examples are drawn alike in every run, and a busy machine is no failure.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")

# Until logging begins Twisted holds on to 65,536 events, and so to every broker that spoke.
globalLogBeginner.beginLoggingTo(
    [
        FilteringLogObserver(
            textFileLogObserver(sys.__stderr__), [LogLevelFilterPredicate(LogLevel.critical)]
        )
    ],
    discardBuffer=True,
    redirectStandardIO=False,
)


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.xenstored) for kind in KINDS])
def store_daemon(request):
    """A fresh, running store of each kind in turn: see support/xenstoreds.py."""
    daemon = start_store(request.param)
    yield daemon
    daemon.stop()


def pytest_terminal_summary(terminalreporter):
    """Print the tables that tests leave as their property `table`, whichever process ran them."""
    for report in terminalreporter.stats.get("passed", ()):
        for name, text in report.user_properties:
            if name == "table":
                terminalreporter.write_line(f"\n{text}\n")
