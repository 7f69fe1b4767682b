"""Audit logs made line by line, as the broker writes them."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.audit.chain import Head, frame, in_force_field
from broker.audit.checkpoint import sign_checkpoint
from broker.audit.segments import Segment
from broker.audit.verify import Source
from broker.service.events import Alarm, Started, encode_event

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = [KEY.public_key()]
POLICY = "sha256:" + "ab" * 32


class Maker:
    """A log in memory: a list of lines for each segment."""

    def __init__(self, head=None, key=KEY):
        self.head = head or Head()
        self.key = key
        self.segments = [[]]

    def add(self, event, in_force=POLICY):
        line, digest = frame(
            self.head.n + 1, self.head.hash, encode_event(event), in_force_field(in_force)
        )
        self.head = Head(self.head.n + 1, digest)
        self.segments[-1].append(line)
        return line

    def alarms(self, count):
        for _ in range(count):
            self.add(Alarm(1.0, "path", f"number {self.head.n}"))

    def checkpoint(self):
        return self.add(sign_checkpoint(self.head, 1700000000.1234, self.key))

    def rotate(self):
        prev = self.head.hash.decode()
        self.segments.append([])
        self.add(Segment(1.0, prev, "sha256:" + "0" * 64))
        self.checkpoint()

    def sources(self):
        return sources(self.segments)


def sources(segments):
    """As files, named by the number each segment should begin with."""
    named, first = [], 1
    for lines in segments[:-1]:
        named.append(Source(f"audit-{first}", first, lines))
        first += len(lines)
    return [*named, Source("audit", None, segments[-1])]


def small_log():
    """Three segments, checkpoints in all, signed at the end."""
    maker = Maker()
    maker.add(Started(1.0, "1"), None)
    maker.alarms(4)
    maker.checkpoint()
    maker.alarms(2)
    maker.rotate()
    maker.alarms(3)
    maker.rotate()
    maker.alarms(3)
    maker.checkpoint()
    return maker
