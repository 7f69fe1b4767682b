"""`brokerctl audit verify`: whether an audit log is whole, without a broker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.cli import client, groups, offline, show
from broker.text.problems import Problem

if TYPE_CHECKING:
    import argparse

    from broker.audit.verify import Report

STATE: Final = Path("/var/lib/xen-policy-broker")
_LONGEST: Final = 4000


def register(commands: groups.Commands) -> None:
    """Add the commands."""
    leaf = groups.command(
        groups.group(commands, "audit"),
        "verify",
        offline.reporting(_verify),
        help="whether an audit log is whole: edits, cuts, insertions, moves, and where",
        example="brokerctl audit verify /mnt/copy --anchor anchors.jsonl --key broker.pub",
    )
    leaf.add_argument(
        "directory",
        metavar="DIR",
        nargs="?",
        type=Path,
        default=STATE,
        help="the state directory, or a copy of it (default: %(default)s)",
    )
    leaf.add_argument(
        "--anchor",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="checkpoints kept elsewhere (audit checkpoint), one a line: shows an end cut off",
    )
    leaf.add_argument(
        "--key",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="the broker's public key, also a former one (default: DIR/broker.pub)",
    )


def _verify(options: argparse.Namespace) -> int:
    # Cryptography takes its time to load, and no other command needs it.
    from broker.audit import directory  # noqa: PLC0415

    where: Path = options.directory
    keys = [directory.read_key(path) for path in options.key or [where / directory.PUBLIC_KEY]]
    anchors = [it for path in options.anchor for it in directory.read_anchors(path, keys)]
    report = directory.verify_directory(where, keys, anchors)
    if anchors and not report.anchors and report.good:
        message = (
            f"record {report.first} is the oldest kept, and every anchor is from before it: none "
            "can be looked at; take a newer one"
        )
        report.problems.append(Problem(str(where), 1, 1, message))
    if options.json:
        _json(report)
    else:
        offline.report(report.problems, "error", as_json=False)
        _print(report)
    return client.SUCCESS if report.good else client.DENIED


def _json(report: Report) -> None:
    problems = [
        {"file": show.text(it.file, _LONGEST), "line": it.line, "message": it.message}
        for it in report.problems
    ]
    show.json_line(
        {
            "good": report.good,
            "problems": problems,
            "more_problems": report.more,
            "files": report.files,
            "first": report.first,
            "last": report.last,
            "checkpoints": report.checkpoints,
            "unsigned": report.unsigned,
            "anchors": report.anchors,
            "anchors_too_old": report.too_old,
        }
    )


def _print(report: Report) -> None:
    wrong = len(report.problems) + report.more
    rows = [
        ("audit log", "whole" if report.good else f"not whole: {_count(wrong, 'problem')}"),
        ("records", f"{report.first} to {report.last}, in {_count(report.files, 'file')}"),
        ("signed", f"{_count(report.checkpoints, 'checkpoint')}{_unsigned(report)}"),
    ]
    if report.anchors or report.too_old:
        old = f"; {len(report.too_old)} from before the oldest record" if report.too_old else ""
        rows.append(("anchors", f"{report.anchors} found in it{old}"))
    elif report.good:
        rows.append(("anchors", "none given: that the end was not cut off is not known"))
    show.facts(rows)


def _unsigned(report: Report) -> str:
    if not report.unsigned:
        return ", the last one at the end"
    return f"; the last {_count(report.unsigned, 'record')} not yet"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
