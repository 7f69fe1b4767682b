"""`brokerctl pki init|issue|renew|revoke|list`: the people who may call, and the broker's own name.

Works on files; no broker is asked.
"""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.cli import client, groups, show
from broker.pki.authority import BROKER, PERSON_LIFE, Authority, PkiError
from broker.pki.names import Names, NamesError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from broker.pki.authority import Issued

_DIRECTORY: Final = Path("/etc/xen-policy-broker/pki")
_MOST_DAYS: Final = 3650


def register(commands: groups.Commands) -> None:
    """Add the commands."""
    leaf = _command(
        commands,
        "init",
        _init,
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
        _issue,
        "a key and a certificate for one person in one role",
        "brokerctl pki issue alice --role officer",
    )
    leaf.add_argument("subject", metavar="SUBJECT", help="who: what the audit calls him")
    leaf.add_argument("--role", metavar="ROLE", required=True, help="a role of the policy")
    leaf.add_argument(
        "--days",
        type=int,
        default=PERSON_LIFE.days,
        choices=range(1, _MOST_DAYS + 1),
        metavar="DAYS",
        help="how long it is good (%(default)s)",
    )
    leaf = _command(
        commands,
        "renew",
        _renew,
        "the same certificate again, with a new key; the old one is good until it expires",
        f"brokerctl pki renew {BROKER}",
    )
    leaf.add_argument("subject", metavar="SUBJECT", help=f"who, or {BROKER}")
    leaf = _command(
        commands,
        "revoke",
        _revoke,
        "let nobody in any more with a certificate; brokerd heeds it at once",
        "brokerctl pki revoke alice",
    )
    leaf.add_argument("which", metavar="SUBJECT|SERIAL")
    _command(
        commands, "list", _list, "every certificate issued, and its state", "brokerctl pki list"
    )


def _command(
    commands: groups.Commands,
    name: str,
    run: Callable[[Authority, argparse.Namespace], int],
    words: str,
    example: str,
) -> groups.Parser:
    def guarded(options: argparse.Namespace) -> int:
        try:
            return run(Authority(options.dir), options)
        except (PkiError, NamesError, OSError) as error:
            client.complain(str(error))
            return client.BAD_INPUT

    leaf = groups.command(groups.group(commands, "pki"), name, guarded, help=words, example=example)
    leaf.add_argument("--dir", type=Path, default=_DIRECTORY, metavar="DIR", help="%(default)s")
    return leaf


def _init(authority: Authority, options: argparse.Namespace) -> int:
    hosts = [*options.host, socket.gethostname(), "localhost", "127.0.0.1", "::1"]
    authority.init(tuple(dict.fromkeys(hosts)), _now())
    where = authority.directory.absolute()
    if options.json:
        show.json_line({"directory": str(where), "hosts": hosts})
        return client.SUCCESS
    show.line(f"# an authority is in {where}; for brokerd's configuration:")
    for line in (
        "rpc:",
        f'  listen: ["{options.listen}"]',
        "  tls:",
        f"    certificate: {where}/broker.crt",
        f"    key: {where}/broker.key",
        f"    ca: {where}/ca.crt",
        f"    revoked: {where}/revoked",
    ):
        show.line(show.text(line))
    return client.SUCCESS


def _issue(authority: Authority, options: argparse.Namespace) -> int:
    life = timedelta(days=options.days)
    return _made(authority, authority.issue(Names(options.subject, options.role), _now(), life))


def _renew(authority: Authority, options: argparse.Namespace) -> int:
    return _made(authority, authority.renew(options.subject, _now()))


def _made(authority: Authority, issued: Issued) -> int:
    path = authority.directory.absolute() / issued.subject
    role = "" if issued.role is None else f", role {show.text(issued.role)}"
    show.line(
        f"{show.text(str(path))}.key and .crt: {show.text(issued.subject)}{role}, good until "
        f"{_day(issued.not_after)}"
    )
    return client.SUCCESS


def _revoke(authority: Authority, options: argparse.Namespace) -> int:
    for issued in authority.revoke(options.which, _now()):
        show.line(f"{issued.serial} of {show.text(issued.subject)} is good no more")
    return client.SUCCESS


def _list(authority: Authority, options: argparse.Namespace) -> int:
    listed = authority.listed(_now())
    if options.json:
        for it in listed:
            show.json_line(it)
        return client.SUCCESS
    show.table(
        ["Subject", "Role", "Until", "State", "Serial"],
        [
            (who.subject, who.role, _day(who.not_after), state, who.serial)
            for who, state in ((it.issued, it.state) for it in listed)
        ],
    )
    return client.SUCCESS


def _now() -> datetime:
    return datetime.now(UTC)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
