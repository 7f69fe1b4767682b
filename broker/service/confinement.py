"""What brokerd may still do once all is set up, before it hears the first guest.

It reads itself, its configuration's directories and its libraries; it writes its state; it makes
its sockets; of devices it has the store's. It begins no process and executes nothing. To a unix
socket it can connect wherever one is: the store's, the journal's and the service manager's are.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.confine.landlock import DEVICE, LISTEN, READ, WRITE
from broker.confine.process import confine
from broker.xenstore.transport import XENBUS_DEVICE

if TYPE_CHECKING:
    from broker.service.config import Settings

_LIBRARIES: Final = ("/usr/lib", "/lib", "/lib64", "/usr/local/lib")
_TIME: Final = ("/etc/localtime", "/usr/share/zoneinfo")
_PACKAGE: Final = Path(__file__).parents[1]
_TCP: Final = re.compile(r"tcp6?:(?:port=)?([0-9]+)")


def confine_brokerd(settings: Settings) -> tuple[str, ...]:
    """Confine this process for good; what this kernel cannot hold it with, in words.

    Raises:
        ConfineError: the kernel could, and it did not succeed.
    """
    ports = _late_ports(settings)
    families = {socket.AF_UNIX} | ({socket.AF_INET, socket.AF_INET6} if ports else set())
    return confine(rules_for(settings), ports=ports, families=families)


def rules_for(settings: Settings) -> dict[Path, int]:
    """Landlock's rules, by path."""
    rules: dict[Path, int] = {}

    def allow(path: Path, rights: int) -> None:
        path = path.resolve()
        rules[path] = rules.get(path, 0) | rights

    imported = [Path(entry) for entry in sys.path if entry]
    for path in (*map(Path, (*_LIBRARIES, *_TIME)), *imported, _PACKAGE):
        allow(path, READ)
    # Whole directories: a file that is written anew is another, under the same name.
    for file in _read_again(settings):
        allow(file.parent, READ)
    for directory in (settings.specs, settings.filters):
        allow(directory, READ)
    sockets = [settings.socket, *(Path(it[5:]) for it in settings.listen if it[:6] == "unix:/")]
    for path in sockets:
        allow(path.parent, LISTEN)
    kind, _, name = settings.store.partition(":")
    if kind == "xenbus":
        allow(Path(name or XENBUS_DEVICE), DEVICE)
    allow(Path(os.devnull), DEVICE)
    allow(settings.state, WRITE)
    return rules


def _read_again(settings: Settings) -> list[Path]:
    """The files of the configuration that are read while brokerd runs."""
    tls = settings.tls
    files = [] if tls is None else [tls.certificate, tls.key, tls.ca, tls.revoked]
    return [it for it in (settings.policy, *files) if it is not None]


def _late_ports(settings: Settings) -> list[int]:
    """TCP ports that are not listened on yet."""
    if not settings.late:
        return []
    return [int(found[1]) for it in settings.listen if (found := _TCP.match(it))]
