"""`brokerctl pki init|issue|renew|revoke|list`: the people who may call, and the broker's own name.

Works on files; no broker is asked.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Final

from broker.cli import groups
from broker.pki.defaults import BROKER, PERSON_DAYS

_DIRECTORY: Final = Path("/etc/xen-policy-broker/pki")
_MOST_DAYS: Final = 3650


def register(commands: groups.Commands) -> None:
    """Add the commands."""
    leaf = _command(
        commands,
        "init",
        "make an authority of your own, and the broker's certificate",
        "brokerctl pki init --host broker.example.org",
    )
    leaf.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name or address brokerctl reaches the broker by; this host's are there anyway",
    )
    leaf.add_argument(
        "--listen",
        metavar="ENDPOINT",
        default="tcp:7443",
        help="where brokerd is to listen, for the configuration that this prints (%(default)s)",
    )
    leaf = _command(
        commands,
        "issue",
        "a key and a certificate for one person in one role",
        "brokerctl pki issue alice --role officer",
    )
    leaf.add_argument("subject", metavar="SUBJECT", help="who: what the audit calls him")
    leaf.add_argument("--role", metavar="ROLE", required=True, help="a role of the policy")
    leaf.add_argument(
        "--days",
        type=_days,
        default=PERSON_DAYS,
        metavar="DAYS",
        help=f"how long it is good, at most {_MOST_DAYS} (%(default)s)",
    )
    _with_browser(leaf)
    leaf = _command(
        commands,
        "renew",
        "the same certificate again, with a new key; the old one is good until it expires",
        f"brokerctl pki renew {BROKER}",
    )
    leaf.add_argument("subject", metavar="SUBJECT", help=f"who, or {BROKER}")
    _with_browser(leaf)
    leaf = _command(
        commands,
        "revoke",
        "let nobody in any more with a certificate; brokerd heeds it at once",
        "brokerctl pki revoke alice",
    )
    leaf.add_argument("which", metavar="SUBJECT|SERIAL")
    _command(commands, "list", "every certificate issued, and its state", "brokerctl pki list")


def _days(text: str) -> int:
    days = int(text)
    if not 1 <= days <= _MOST_DAYS:
        raise argparse.ArgumentTypeError(f"{days} is not from 1 to {_MOST_DAYS}")
    return days


def _with_browser(leaf: groups.Parser) -> None:
    leaf.add_argument(
        "--browser",
        action="store_true",
        help="also SUBJECT.p12, for a browser and the console; its password is printed once",
    )


def _command(
    commands: groups.Commands,
    name: str,
    words: str,
    example: str,
) -> groups.Parser:
    def run(options: argparse.Namespace) -> int:
        # Certificates take longer to import than most commands take to run.
        code: int = import_module("broker.cli.pki_commands").run(name, options)
        return code

    leaf = groups.command(groups.group(commands, "pki"), name, run, help=words, example=example)
    leaf.add_argument("--dir", type=Path, default=_DIRECTORY, metavar="DIR", help="%(default)s")
    return leaf
