"""Commands that ask a running broker: made from the method table, with its exit codes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from broker.cli import connection, groups, show
from broker.rpc.address import AddressError
from broker.rpc.catalogue import METHODS
from broker.rpc.client import Client, UnreachableError
from broker.rpc.errors import RpcError
from broker.text.escape import printable
from broker.text.problems import ProblemsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

SUCCESS: Final = 0
DENIED: Final = 1
BAD_INPUT: Final = 2
UNREACHABLE: Final = 3
_EXIT: Final = {
    "bad_request": BAD_INPUT,
    "denied": DENIED,
    "not_found": BAD_INPUT,
    "conflict": DENIED,
    "too_large": BAD_INPUT,
    "bad_input": BAD_INPUT,
    "too_many": UNREACHABLE,
    "internal": UNREACHABLE,
    "unavailable": UNREACHABLE,
}
"""Of an error's code. What failed inside, or has no store or policy, has given no answer: 3."""
_MESSAGE_LIMIT: Final = 2000


def method_command(
    commands: groups.Commands, name: str, run: Callable[[Client, argparse.Namespace], int]
) -> groups.Parser:
    """Add the command of the method `name` (`label.set` is `label set`); help and example follow.

    `run` is given a client and the options, and answers the exit code; the errors of a call are
    written here.
    """
    method = METHODS[name]
    group, _, action = name.rpartition(".")
    leaf = groups.command(
        groups.group(commands, group) if group else commands,
        action,
        asking(run),
        help=method.help,
        example=method.example,
    )
    connection.add_options(leaf, top=False)
    return leaf


def asking(run: Callable[[Client, argparse.Namespace], int]) -> groups.Run:
    """`run` with a client; what goes wrong with a call is written, and made an exit code.

    With `--json` it is written as the RPC writes it, on standard output: `{"error": {"code",
    "message", "problems"}}`, with the code `unreachable` where there was no answer.
    """
    return lambda options: _run(run, options)


def connect(options: argparse.Namespace) -> Client:
    """The client that the command line asks for.

    Raises:
        AddressError, ProblemsError: it asks for none that can be made.
    """
    return Client(connection.address(options))


def call(client: Client, name: str, **arguments: object) -> Any:  # noqa: ANN401 - the table says which
    """Call a method; arguments left None are left out."""
    kind = METHODS[name].arguments
    return client.call(name, kind(**_given(arguments)))


def stream(client: Client, name: str, **arguments: object) -> Any:  # noqa: ANN401 - the table says which
    """The events of a stream; arguments left None are left out."""
    kind = METHODS[name].arguments
    return client.stream(name, kind(**_given(arguments)))


def complain(message: str) -> None:
    """One line on standard error, escaped."""
    print(f"brokerctl: {printable(message, _MESSAGE_LIMIT)}", file=sys.stderr)


def bad_input(options: argparse.Namespace, message: str) -> int:
    """Say what will not do, as text or as JSON; answers the exit code."""
    _tell(options, "bad_input", message)
    return BAD_INPUT


def _given(arguments: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in arguments.items() if value is not None}


def _run(run: Callable[[Client, argparse.Namespace], int], options: argparse.Namespace) -> int:
    problems: tuple[str, ...] = ()
    try:
        return run(connect(options), options)
    except AddressError as error:
        code, name, message = BAD_INPUT, "bad_input", str(error)
    except ProblemsError as error:
        code, name, message = BAD_INPUT, "bad_input", ""
        problems = tuple(str(place) for place in error.problems)
    except UnreachableError as error:
        code, name, message = UNREACHABLE, "unreachable", str(error)
    except RpcError as error:
        code, name, message = _EXIT[error.code], error.code, error.message
        problems = error.problems
    _tell(options, name, message, problems)
    return code


def _tell(
    options: argparse.Namespace, code: str, message: str, problems: tuple[str, ...] = ()
) -> None:
    if options.json:
        show.json_line({"error": {"code": code, "message": message, "problems": problems}})
        return
    for problem in problems:
        print(printable(problem, _MESSAGE_LIMIT), file=sys.stderr)
    if message:
        complain(message)
