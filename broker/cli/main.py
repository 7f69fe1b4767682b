"""brokerctl: reads the command line and runs one command."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.cli import client, connection
from broker.cli.groups import Parser, subcommands

if TYPE_CHECKING:
    from collections.abc import Sequence

MODULES: Final = (
    "broker.cli.status",
    "broker.cli.domain",
    "broker.cli.label_store",
    "broker.cli.channel",
    "broker.cli.channel_orders",
    "broker.cli.decision",
    "broker.cli.policy_in_force",
    "broker.cli.policy",
    "broker.cli.policy_acm",
    "broker.cli.policy_diff",
    "broker.cli.policy_graph",
    "broker.cli.policy_suggest",
    "broker.cli.label",
    "broker.cli.label_config",
    "broker.cli.label_ticket",
    "broker.cli.spec",
    "broker.cli.audit",
    "broker.cli.audit_tail",
    "broker.cli.filter",
    "broker.cli.filter_files",
    "broker.cli.net",
    "broker.cli.pki",
    "broker.cli.policy_sign",
    "broker.cli.generic",
    "broker.cli.completion",
)
"""Modules with `register(commands)`, in the order of `brokerctl --help`; `generic` after all that
have commands for methods."""


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="brokerctl",
        description="Ask and administer the broker; check and try policies offline.",
        epilog="exit: 0 success, 1 denied or check failed, 2 bad input or usage, 3 unreachable",
    )
    connection.add_options(parser, top=True)
    parser.add_argument("--json", action="store_true", help="JSON, one value a line")
    commands = subcommands(parser)
    for name in MODULES:
        import_module(name).register(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run brokerctl; answers the exit code."""
    _open_what_is_closed()
    options = build_parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has gone; nothing is left to say. What it did not read may have
        # been a denial, so this is no success.
        _write_no_more()
        return 141
    except OSError as error:
        # A full disk, as a rule: whoever reads what was written has no whole answer.
        client.complain(f"{error.filename or 'the output'}: {error.strerror or error}")
        _write_no_more()
        return client.UNREACHABLE
    except KeyboardInterrupt:
        return 130
    return code


def _open_what_is_closed() -> None:
    """Have something to write to where the caller closed it, as with `>&-`: the null device.

    Python has None there, and would print what is for standard error on standard output.
    """
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - the same


def _write_no_more() -> None:
    """Nothing more is written to standard output, also not while exiting."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
