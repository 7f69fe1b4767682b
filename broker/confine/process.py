"""The whole of it, in the order in which the kernel takes it."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.confine import landlock, seccomp

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_NO_NEW_PRIVILEGES: Final = 38
_VERSION: Final = 0x20080522
_HEADER: Final = struct.Struct("=Ii")
_DATA: Final = struct.Struct("=6I")
_libc: Final = ctypes.CDLL(None, use_errno=True)


class ConfineError(Exception):
    """The kernel has what is asked for, and it could not be applied; the message says what."""


def confine(
    rules: Mapping[Path, int], *, ports: Collection[int], families: Collection[int]
) -> tuple[str, ...]:
    """Give up for good all but these rights: what this kernel has not to hold it with, is returned.

    `rules` are landlock's, by path; `ports` are the TCP ports to listen on; `families` those of
    sockets. No capability is left, and nothing that is executed could gain one.

    Raises:
        ConfineError: it could not be applied; the process may be confined in part, and has to end.
    """
    threads = _threads()
    if threads != 1:
        raise ConfineError(f"{threads} threads run already, and each would have to be confined")
    missing = []
    try:
        _check(_libc.prctl(_NO_NEW_PRIVILEGES, *map(ctypes.c_ulong, (1, 0, 0, 0))), "no_new_privs")
        _drop_capabilities()
        if landlock.version():
            landlock.restrict(rules, ports)
        else:
            missing.append("Landlock")
        if seccomp.is_known():
            seccomp.restrict(families)
        else:
            missing.append("seccomp filters")
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        raise ConfineError(f"{where}{error.strerror}") from error
    return tuple(missing)


def _threads() -> int:
    """How many run in this process; without /proc, how many of Python's."""
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except FileNotFoundError:
        return threading.active_count()


def _drop_capabilities() -> None:
    """Have none. Where there are none already, a service manager may forbid even that call."""
    header = _HEADER.pack(_VERSION, 0)
    data = ctypes.create_string_buffer(_DATA.size)
    _check(_libc.capget(header, data), "capabilities")
    if any(_DATA.unpack(data.raw)):
        _check(_libc.capset(header, bytes(_DATA.size)), "capabilities")


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
