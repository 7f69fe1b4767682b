"""What a regular report is told to: a connection that keeps what is written, or none."""

from __future__ import annotations

from twisted.internet import defer
from twisted.internet.task import Clock

from broker.xenstore.errors import ConnectionLostError


class Connection:
    """Keeps what is `written`; refuses with `fails` where that is set."""

    def __init__(self):
        self.written = []
        self.fails = None

    def write(self, path, value):
        if self.fails is not None:
            return defer.fail(self.fails)
        self.written.append((path, value))
        return defer.succeed(None)


class Reported:
    """Where a report's tests begin: a clock, and a `connection` that may be None."""

    def __init__(self):
        self.clock = Clock()
        self.connection = Connection()

    def connected(self):
        if self.connection is None:
            raise ConnectionLostError("gone")
        return self.connection
