"""`brokerctl audit tail|checkpoint`: the audit log of a running broker."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from broker.cli import client, groups, show
from broker.rpc.client import Lagged, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.rpc.client import Client
    from broker.rpc.methods import AuditPage, AuditRecord

MOST_LINES: Final = 1000
_FRAME: Final = ("n", "event", "t", "in_force", "hash", "subject", "role")
_LONGEST: Final = 600


def register(commands: groups.Commands) -> None:
    """Add the commands."""
    leaf = client.method_command(commands, "audit.tail", _tail)
    leaf.add_argument(
        "-n",
        "--lines",
        type=_lines,
        default=20,
        help=f"how many of the latest records that match, at most {MOST_LINES} "
        "(default: %(default)s)",
    )
    leaf.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    leaf.add_argument(
        "--since",
        type=int,
        metavar="N",
        help="all after the record number N, however many, and go on with what comes",
    )
    leaf.add_argument("--event", metavar="KIND", help="of one kind: decided, label_set, alarm, ...")
    leaf.add_argument("--domain", help="that name this domain: domid, uuid or name")
    leaf.add_argument("--subject", help="of whoever's name begins so")
    leaf.add_argument("--verdict", choices=("grant", "deny", "pending"), help="decisions alone")
    client.method_command(commands, "audit.checkpoint", _checkpoint)


def _lines(text: str) -> int:
    lines = int(text)
    if not 0 <= lines <= MOST_LINES:
        raise argparse.ArgumentTypeError(f"{lines} is not from 0 to {MOST_LINES}")
    return lines


def _tail(broker: Client, options: argparse.Namespace) -> int:
    wanted = {name: getattr(options, name) for name in ("event", "domain", "subject", "verdict")}
    since = options.since
    if since is None and options.lines:
        records, since = _latest(broker, options.lines, wanted)
        for record in records:
            _show(record, as_json=options.json)
    if options.follow or options.since is not None:
        for event in _following(broker, since, wanted):
            if not isinstance(event, Lagged):
                _show(event, as_json=options.json)
            elif options.json:
                show.json_line(event)
            else:
                client.complain(f"{event.lost} records are gone, or do not read")
    return client.SUCCESS


def _latest(broker: Client, lines: int, wanted: dict[str, object]) -> tuple[list[AuditRecord], int]:
    """The last records that match, however far back, and the number of the log's last."""
    records: list[AuditRecord] = []
    page: AuditPage = client.call(broker, "audit.list", last=lines, **wanted)
    last, unread = page.last, page.unread
    records[:0] = page.records
    while page.more and len(records) < lines:
        page = client.call(
            broker, "audit.list", last=lines - len(records), before=page.oldest, **wanted
        )
        records[:0] = page.records
        unread += page.unread
    if unread:
        client.complain(f"{unread} lines are no records: brokerctl audit verify says which")
    return records, last


def _following(
    broker: Client, since: int | None, wanted: dict[str, object]
) -> Iterator[AuditRecord | Lagged]:
    try:
        for event in client.stream(broker, "audit.tail", since=since, **wanted):
            if not isinstance(event, Lagged):
                since = event.n
            yield event
    except UnreachableError as error:
        hint = "" if since is None else f"; go on with: brokerctl audit tail --since {since}"
        raise UnreachableError(f"{error}{hint}") from None


def _checkpoint(broker: Client, options: argparse.Namespace) -> int:
    del options  # an anchor is JSON anyway
    record: AuditRecord = client.call(broker, "audit.checkpoint")
    show.line(_exact(record))
    return client.SUCCESS


def _show(record: AuditRecord, *, as_json: bool) -> None:
    line = _exact(record)
    if as_json:
        show.line(line)
        return
    told: dict[str, Any] = msgspec.json.decode(line)
    when = datetime.fromtimestamp(told["t"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    role = f" in the role {show.text(told.get('role'))}" if told.get("role") else ""
    who = f" by {show.text(told['subject'])}{role}" if "role" in told and told["subject"] else ""
    show.line(f"{record.n} {when} {show.text(record.event)}{_words(told)}{who}")


def _words(told: dict[str, Any]) -> str:
    if told["event"] == "decided":
        return f": {_decision(str(told['text']))}"
    frame = _FRAME if "role" in told else _FRAME[:-2]
    parts = [f"{key}={_value(value)}" for key, value in told.items() if key not in frame]
    return ": " + " ".join(parts) if parts else ""


def _decision(text: str) -> str:
    # What reads records loads cryptography, which no other command here needs.
    from broker.core.record import RecordError, parse_record  # noqa: PLC0415

    try:
        it = parse_record(text.encode("ascii", "replace"))
    except RecordError:
        return show.text(text, _LONGEST)
    channel = f"{it.device_class}/{it.frontend}/{it.device} -> {it.backend}"
    labels = ",".join(label or "-" for label in it.labels)
    return show.text(f"{it.verdict} {channel} {labels} seq={it.seq}: {it.reason}", _LONGEST)


def _value(value: object) -> str:
    if isinstance(value, list | dict):
        return show.text(msgspec.json.encode(value).decode(), _LONGEST)
    return show.text(str(value), _LONGEST)


def _exact(record: AuditRecord) -> str:
    """The record's line as it is in the log, which is printable ASCII always."""
    if not (record.line.isascii() and record.line.isprintable()):
        raise UnreachableError(f"record {record.n} is no line of an audit log")
    return record.line
