"""Any bytes as one line of ours: refused, or exactly what writing it again gives.

Decision records, filter records and heads, orders' results, agents' reports, tickets: what lies
in nodes that others can write to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.core.agent_report import AgentReport, encode_agent_report, parse_agent_report
from broker.core.drops import Drop, encode_drops, parse_drops
from broker.core.filter_record import FilterRecord, parse_filter, sign_filter, verify_head
from broker.core.filter_report import (
    Lease,
    RuleCount,
    encode_filter_report,
    parse_filter_report,
)
from broker.core.order import Result, encode_result, parse_result, verify_order
from broker.core.record import (
    Record,
    RecordError,
    parse_record,
    sign_record,
    verify_heartbeat,
    verify_record,
)
from broker.core.revocations import parse_report
from broker.core.ticket import read_ticket, verify_ticket
from tools.fuzz.expected import UnexpectedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_T = TypeVar("_T")
_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_OTHERS = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()

_RECORD = Record(
    verdict="grant",
    seq=7,
    id="00000000-0000-4000-8000-000000000007",
    frontend=3,
    backend=0,
    device_class="vbd",
    device="51712",
    uuid="00000000-0000-4000-8000-000000000003",
    nonce="0123456789abcdef" * 2,
    inputs=None,
    labels=("red", None),
    resource="lun",
    policy="sha256:" + "0" * 64,
    spec=None,
    reason="by rule: 100%",
)
_FILTER = FilterRecord(
    seq=3,
    frontend=3,
    backend=0,
    device_class="vif",
    device="0",
    uuid=None,
    nonce="0123456789abcdef" * 2,
    profiles=("clean-traffic",),
    variables={"MAC": ("00:16:3e:00:00:01",), "IP": ("10.0.0.1", "10.0.0.2")},
)


def run(data: bytes) -> None:
    """Read `data` as every kind of line.

    Raises:
        UnexpectedError: it reads otherwise than it is written, or is good under a key that did
            not sign it.
    """
    try:
        for read in (parse_record, parse_filter, read_ticket, parse_report, parse_drops):
            _read(read, data)
        _same(parse_agent_report, encode_agent_report, data)
        _same(parse_result, encode_result, data)
        _read(parse_filter_report, data)
    finally:
        for verify in (verify_record, verify_heartbeat, verify_head, verify_order):
            if _read(verify, data, _OTHERS) is not None:
                raise UnexpectedError(f"{verify.__name__}: good under another key")
        if _read(verify_ticket, data, [_OTHERS]) is not None:
            raise UnexpectedError("a ticket is good under another key")


def _read(read: Callable[..., _T], *given: object) -> _T | None:
    try:
        return read(*given)
    except RecordError as error:
        if not str(error).isprintable():
            raise UnexpectedError(f"not printable: {error!a}") from error
        return None


def _same(read: Callable[[bytes], _T], write: Callable[[_T], str | bytes], data: bytes) -> None:
    """What is read and written again reads the same."""
    found = _read(read, data)
    if found is not None:
        written = write(found)
        again = _read(read, written.encode("ascii") if isinstance(written, str) else written)
        if again != found:
            raise UnexpectedError(f"{found} is written as {written!a}")


def seeds() -> Iterator[bytes]:
    """A good line of each kind, and some that lack a little."""
    lines = [sign_record(_RECORD, _KEY), sign_filter(_FILTER, _KEY)]
    drops = [Drop(sender="red", receiver=None, packets=7, bytes=420)]
    report = AgentReport(at=5, version="0.1.0", policy=None, beat=True, open=3)
    lease = Lease(frontend=3, device="0", address="10.0.0.9", until=99)
    count = RuleCount(rule="clean-traffic/default", packets=3, bytes=180)
    result = Result(ok=False, seq=3, id=_RECORD.id, reason="it is gone")
    texts = [
        encode_drops(5, drops),
        encode_agent_report(report),
        encode_filter_report(5, [count], [lease]),
        f"open seq=7 nonce={_RECORD.nonce} reason=-",
    ]
    lines += [encode_result(result), *(text.encode("ascii") for text in texts)]
    yield from lines
    yield from (line[:-3] for line in lines)
    yield from (line.replace(b" ", b"  ", 1) for line in lines)


def words() -> Iterator[bytes]:
    """The fields' names, and values that are nearly one another's."""
    for seed in seeds():
        yield from (word.partition(b"=")[0] + b"=" for word in seed.split(b" "))
    yield from (b"-", b"%2D", b"%00", b"%ff", b"%", b" sig=", b"01", b"4294967296", b"+", b",")
