"""`brokerctl` in this process."""

from __future__ import annotations

import io
import sys

import pytest

from broker.cli.main import main


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs a command with this input: its exit status, what it prints, what it complains of."""

    def brokerctl(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return brokerctl
