"""How a module adds its commands to brokerctl.

Each module has `register(commands)`. It gets or makes its group and adds leaves to it, so
several modules can share `policy` or `label`:

    def register(commands: Commands) -> None:
        leaf = command(group(commands, "label"), "get", run, help="...", example="...")
        leaf.add_argument("domain")

    def run(options: argparse.Namespace) -> int:    # answers the exit code
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

GROUPS: Final = {
    "agent": "the agents of backend domains",
    "audit": "the audit log: follow it, sign it, verify it",
    "channel": "connections between domains",
    "decision": "what would be decided about two domains",
    "domain": "domains and their labels",
    "filter": "filter profiles: what a vif may send and receive",
    "label": "labels of domains, and their numbers",
    "net": "labels on this host's bridges",
    "pki": "certificates of administrators and of the broker",
    "policy": "policies: check, ask, load",
    "spec": "protocol descriptions",
}


class Parser(argparse.ArgumentParser):
    """An argument parser that remembers its sub-commands, so that modules can share a group."""

    commands: Commands | None = None


if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Parser]  # noqa: SLF001 - argparse has no public name
    Run = Callable[[argparse.Namespace], int]


def subcommands(parser: Parser) -> Commands:
    """The sub-commands of `parser`, made on the first call."""
    if parser.commands is None:
        parser.commands = parser.add_subparsers(
            metavar="COMMAND", required=True, title="commands", parser_class=Parser
        )
    return parser.commands


def group(commands: Commands, name: str) -> Commands:
    """The group `name` (of `GROUPS`) below `commands`, made on the first call."""
    parser = commands.choices.get(name)
    if parser is None:
        parser = commands.add_parser(name, help=GROUPS.get(name), description=GROUPS.get(name))
    return subcommands(parser)


def command(commands: Commands, name: str, run: Run, *, help: str, example: str) -> Parser:  # noqa: A002 - argparse's own word
    """Add a leaf that `run` executes; it takes `--json`, and `--help` shows the example."""
    parser = commands.add_parser(
        name,
        help=help,
        description=help,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # Suppressed, so that `brokerctl --json label list` and `brokerctl label list --json` agree.
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="JSON, one value a line"
    )
    parser.set_defaults(run=run)
    return parser
