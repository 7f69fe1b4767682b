"""Landlock: below which directories a process may read, write, make; which TCP ports it may have.

Facts: landlock(7), linux/landlock.h. It holds for this thread and those begun after, for good;
descriptors that are open stay as they are, and connecting to a unix socket's path is not its
matter. Nothing may be executed whatever the rules say.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446
"""The system calls' numbers, on every machine."""
_VERSION_ASKED: Final = 1
_BENEATH, _PORT = 1, 2

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG, _MAKE_SOCK, _MAKE_SYM = 1 << 7, 1 << 8, 1 << 9, 1 << 12
_REFER, _TRUNCATE, _IOCTL = 1 << 13, 1 << 14, 1 << 15
_FIRST: Final = (1 << 13) - 1
"""What the first version handles: all of the above before `_REFER`, executing and devices."""
_BIND: Final = 1
_NET: Final = 3
"""Binding and connecting."""
_SIGNALS: Final = 2
"""Scope: signals reach only those that are confined alike."""

READ: Final = _READ_FILE | _READ_DIR
WRITE: Final = (
    READ
    | _WRITE_FILE
    | _TRUNCATE
    | _REFER
    | _REMOVE_DIR
    | _REMOVE_FILE
    | _MAKE_DIR
    | _MAKE_REG
    | _MAKE_SOCK
    | _MAKE_SYM
)
"""All that one does with files of one's own; no devices, no programs."""
LISTEN: Final = _READ_DIR | _REMOVE_FILE | _MAKE_SOCK | _MAKE_SYM
"""Sockets come and go, each with a link that is its lock."""
DEVICE: Final = _READ_FILE | _WRITE_FILE
_OF_FILES: Final = _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
"""What a rule for something that is no directory may say."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Which version the kernel has; 0 if it has none, or was started without it."""
    found: int = _libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION_ASKED))
    if found < 0:
        number = ctypes.get_errno()
        if number in (errno.ENOSYS, errno.EOPNOTSUPP):
            return 0
        raise OSError(number, f"landlock: {os.strerror(number)}")
    return found


def restrict(rules: Mapping[Path, int], ports: Collection[int]) -> None:
    """Leave this thread these rights, below each path, and these TCP ports to listen on.

    A path that is not there gets no rule: what comes there later stays out of reach. What the
    kernel's version does not know yet (ports before 4, devices' ioctl before 5) is not held.

    Raises:
        OSError: the kernel refuses, or has none (`version`).
    """
    known = version()
    handled = _FIRST
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL)):
        handled |= right if known >= since else 0
    words = [handled]
    if known >= 4:
        words.append(_NET)
    if known >= 6:
        words.append(_SIGNALS)
    attributes = struct.pack(f"={len(words)}Q", *words)
    ruleset = _call(_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    try:
        for path, rights in rules.items():
            _allow_path(ruleset, path, rights & handled)
        for port in ports if known >= 4 else ():
            _add(ruleset, _PORT, struct.pack("=QQ", _BIND, port))
        _call(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)


def _allow_path(ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not path.is_dir():
            rights &= _OF_FILES
        _add(ruleset, _BENEATH, struct.pack("=Qi", rights, place))
    finally:
        os.close(place)


def _add(ruleset: int, kind: int, attributes: bytes) -> None:
    _call(_ADD, ctypes.c_int(ruleset), ctypes.c_uint(kind), attributes, ctypes.c_uint(0))


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"landlock: {os.strerror(code)}")
    return result
