"""What the commands that need no broker share: reading files, and saying what is wrong in them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import msgspec

from broker.cli import show
from broker.cli.client import BAD_INPUT
from broker.text.escape import escape, printable, readable
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from broker.cli.groups import Run
    from broker.core.policy import Policy, Verdict

_MESSAGE_LIMIT: Final = 4000


class ProblemLine(msgspec.Struct, frozen=True):
    """A problem as JSON."""

    severity: str
    file: str
    line: int
    column: int
    message: str


def reporting(run: Callable[[argparse.Namespace], int]) -> Run:
    """`run`, with what is wrong in a file written out, and exit 2."""

    def guarded(options: argparse.Namespace) -> int:
        try:
            return run(options)
        except ProblemsError as error:
            report(error.problems, "error", as_json=options.json)
            return BAD_INPUT

    return guarded


def report(problems: Iterable[Problem], severity: str, *, as_json: bool) -> None:
    """A line for each problem: on standard error, or as JSON on standard output."""
    for problem in problems:
        if as_json:
            where = readable(problem.file), problem.line, problem.column
            show.json_line(ProblemLine(severity, *where, readable(problem.message)))
        else:
            kind = "" if severity == "error" else f"{severity}: "
            text = f"{problem.where}: {kind}{problem.message}"
            print(printable(text, _MESSAGE_LIMIT), file=sys.stderr)


def read(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        ProblemsError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ProblemsError([Problem(str(path), 1, 1, f"cannot be read: {said}")]) from None


def policy(path: Path) -> Policy:
    """The policy in a file.

    Raises:
        ProblemsError: it cannot be read, or is not one.
    """
    # Compiling policies is not needed for most commands, nor is what it imports.
    from broker.policy.load import load_policy  # noqa: PLC0415

    return load_policy(read(path), str(path))


class ReasonLine(msgspec.Struct, frozen=True):
    """A reason as JSON."""

    rule: str
    text: str
    where: str


class VerdictLine(msgspec.Struct, frozen=True):
    """A verdict as JSON."""

    verdict: str
    reasons: tuple[ReasonLine, ...]


def verdict_line(verdict: Verdict) -> VerdictLine:
    """A verdict as `policy decide` and `policy admit` answer it."""
    return VerdictLine(
        "grant" if verdict.granted else "deny",
        tuple(ReasonLine(reason.rule, reason.text, reason.where) for reason in verdict.reasons),
    )


def unknown(path: Path, what: str, name: str) -> ProblemsError:
    """The error for a name on the command line that a policy does not have."""
    return ProblemsError([Problem(str(path), 1, 1, f"has no {what} '{escape(name, 60)}'")])
