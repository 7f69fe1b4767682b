"""What `brokerctl pki` does: the authority's files, made and shown."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from broker.cli import client, show
from broker.pki.authority import Authority, PkiError
from broker.pki.names import Names, NamesError
from broker.rpc.admin import ROOT

if TYPE_CHECKING:
    import argparse

    from broker.pki.authority import Issued


def run(name: str, options: argparse.Namespace) -> int:
    """Run the command of that name; answers the exit code."""
    try:
        return _COMMANDS[name](Authority(options.dir), options)
    except (PkiError, NamesError, OSError) as error:
        return client.bad_input(options, str(error))


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
    if options.role == ROOT:
        raise PkiError(f"the role {ROOT} is local root's; no certificate can have it")
    life = timedelta(days=options.days)
    issued = authority.issue(Names(options.subject, options.role), _now(), life)
    return _made(authority, issued, options)


def _renew(authority: Authority, options: argparse.Namespace) -> int:
    return _made(authority, authority.renew(options.subject, _now()), options)


def _made(authority: Authority, issued: Issued, options: argparse.Namespace) -> int:
    path = authority.directory.absolute() / issued.subject
    password = authority.bundle(issued.subject) if options.browser else None
    if options.json:
        files = {"key": f"{path}.key", "certificate": f"{path}.crt"}
        if password is not None:
            files |= {"bundle": f"{path}.p12", "password": password}
        show.json_line({"issued": issued, **files})
        return client.SUCCESS
    role = "" if issued.role is None else f", role {show.text(issued.role)}"
    show.line(
        f"{show.text(str(path))}.key and .crt: {show.text(issued.subject)}{role}, good until "
        f"{_day(issued.not_after)}"
    )
    if password is not None:
        show.line(f"{show.text(str(path))}.p12 for a browser; its password: {password}")
    return client.SUCCESS


def _revoke(authority: Authority, options: argparse.Namespace) -> int:
    for issued in authority.revoke(options.which, _now()):
        if options.json:
            show.json_line({"revoked": issued})
        else:
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


_COMMANDS: Final = {
    "init": _init,
    "issue": _issue,
    "renew": _renew,
    "revoke": _revoke,
    "list": _list,
}
