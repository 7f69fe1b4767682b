"""Capabilities: the helper keeps CAP_NET_ADMIN alone, the agent has it not at all.

Facts: capabilities(7), linux/capability.h, linux/prctl.h. Capabilities are a thread's own: call
these before there are others.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import Final

from broker.net.model import NetError

NET_ADMIN: Final = 12
_VERSION: Final = 0x20080522
_HEADER: Final = struct.Struct("=Ii")
_DATA: Final = struct.Struct("=6I")
"""Effective, permitted, inheritable: the low halves, then the high ones."""
_KEEP_CAPS, _BOUNDING_DROP, _NO_NEW_PRIVILEGES = 8, 24, 38
_AMBIENT, _AMBIENT_RAISE = 47, 2
_NOBODY: Final = 65534
_LAST: Final = Path("/proc/sys/kernel/cap_last_cap")
_libc: Final = ctypes.CDLL(None, use_errno=True)


def keep_net_admin_alone() -> None:
    """Become nobody, with CAP_NET_ADMIN and no way to anything more.

    It is kept over an exec, for the `nft` program where the library is missing.

    Raises:
        NetError: this process has no CAP_NET_ADMIN.
        OSError: the kernel refuses.
    """
    wanted = 1 << NET_ADMIN
    _, permitted, _ = _get()
    if not permitted & wanted:
        raise NetError(
            "the net helper has no CAP_NET_ADMIN: start broker-agent as root, without "
            "NoNewPrivileges and with that capability in its bounding set"
        )
    if permitted != wanted:
        _prctl(_KEEP_CAPS, 1)
        for capability in range(int(_LAST.read_text(encoding="ascii")) + 1):
            if capability != NET_ADMIN:
                _prctl(_BOUNDING_DROP, capability)
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    _set(wanted, wanted, wanted)
    _prctl(_AMBIENT, _AMBIENT_RAISE, NET_ADMIN)
    _prctl(_NO_NEW_PRIVILEGES, 1)


def give_up_net_admin() -> None:
    """This process can change no network any more; a program that root starts still can.

    Raises:
        OSError: the kernel refuses.
    """
    kept = ~(1 << NET_ADMIN)
    effective, permitted, inheritable = _get()
    _set(effective & kept, permitted & kept, inheritable & kept)


def _get() -> tuple[int, int, int]:
    data = ctypes.create_string_buffer(_DATA.size)
    _check(_libc.capget(_HEADER.pack(_VERSION, 0), data))
    words = _DATA.unpack(data.raw)
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def _set(*sets: int) -> None:
    low, high = [it & 0xFFFFFFFF for it in sets], [it >> 32 & 0xFFFFFFFF for it in sets]
    _check(_libc.capset(_HEADER.pack(_VERSION, 0), _DATA.pack(*low, *high)))


def _prctl(option: int, first: int, second: int = 0) -> None:
    arguments = [ctypes.c_ulong(it) for it in (first, second, 0, 0)]
    _check(_libc.prctl(option, *arguments))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"capabilities: {os.strerror(number)}")
