"""The local unix socket: its file, and who is at the other end by the kernel's word."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from typing import TYPE_CHECKING, Final, Protocol

from broker.rpc.admin import ROOT, Caller
from broker.rpc.errors import RpcError

if TYPE_CHECKING:
    from pathlib import Path

_UCRED: Final = struct.Struct("iII")
"""struct ucred of <linux/socket.h>: pid, uid, gid."""


class SocketInUseError(Exception):
    """The socket's path cannot be taken: somebody listens there, or it is no socket."""


class SocketTransport(Protocol):
    """A connection with a socket below it, as Twisted's unix transport has."""

    socket: socket.socket


def prepare_path(path: Path, directory_mode: int = 0o700) -> None:
    """Make the socket's directory, if there is none, and remove a socket nobody listens on.

    Raises:
        SocketInUseError: a process listens there, or the path is something other than a socket.
        OSError: the directory cannot be made or the old socket not removed.
    """
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o700, parents=True)
        path.parent.chmod(directory_mode)  # mkdir's own mode is cut by the umask
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketInUseError(f"{path} exists and is no socket; remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # noqa: FBT003 - the standard library's signature
        outcome = probe.connect_ex(os.fspath(path))
    # Only a refusal proves that nobody listens: EAGAIN, say, is a full queue of somebody who does.
    if outcome != errno.ECONNREFUSED:
        raise SocketInUseError(
            f"{path} is in use: another broker is running there ({os.strerror(outcome)}); "
            "stop it or choose another path"
        )
    path.unlink()


def peer_credentials(connection: socket.socket) -> tuple[int, int, int]:
    """Pid, uid and gid of the process that connected (SO_PEERCRED, as they were then)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    return pid, uid, gid


class LocalPeers:
    """Tells who calls on the local socket; only the listed uids may."""

    def __init__(self, uids: frozenset[int] = frozenset({0})) -> None:
        self._uids = uids

    def __call__(self, transport: SocketTransport) -> Caller:
        """The caller at the other end.

        Raises:
            RpcError: `denied`, its uid is not listed.
        """
        pid, uid, _gid = peer_credentials(transport.socket)
        if uid not in self._uids:
            raise RpcError(
                "denied", f"uid {uid} may not administer the broker; run it as root (sudo)"
            )
        return Caller(subject=f"local:uid={uid},pid={pid}", role=ROOT, person=f"local:uid={uid}")
