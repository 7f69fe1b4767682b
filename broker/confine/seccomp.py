"""Seccomp: which system calls a process may still make, on x86-64.

Facts: seccomp(2), bpf(4), linux/seccomp.h, linux/filter.h; numbers: asm/unistd_64.h. The list is of
what Python, its libraries and an epoll reactor need for files, sockets and threads; no process is
begun, no program executed, no memory made executable, no namespace, mount, key, trace or module
touched. All else fails: with EPERM, and from _NEWER on with ENOSYS, so that a C library newer than
this list falls back to what is on it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

ALLOWED: Final = {
    "read": 0, "write": 1, "close": 3, "lseek": 8, "pread64": 17, "pwrite64": 18, "readv": 19,
    "writev": 20, "preadv": 295, "pwritev": 296, "preadv2": 327, "pwritev2": 328, "dup": 32,
    "dup2": 33, "dup3": 292, "fcntl": 72, "flock": 73, "pipe": 22, "pipe2": 293, "sendfile": 40,
    "copy_file_range": 326, "close_range": 436,
    "open": 2, "creat": 85, "openat": 257, "stat": 4, "fstat": 5, "lstat": 6, "newfstatat": 262,
    "statx": 332, "statfs": 137, "fstatfs": 138, "access": 21, "faccessat": 269,
    "faccessat2": 439, "readlink": 89, "readlinkat": 267, "getdents": 78, "getdents64": 217,
    "getcwd": 79, "rename": 82, "renameat": 264, "renameat2": 316, "link": 86, "linkat": 265,
    "unlink": 87, "unlinkat": 263, "symlink": 88, "symlinkat": 266, "mkdir": 83, "mkdirat": 258,
    "rmdir": 84, "chmod": 90, "fchmod": 91, "fchmodat": 268, "umask": 95, "utimensat": 280,
    "truncate": 76, "ftruncate": 77, "fallocate": 285, "fadvise64": 221, "fsync": 74,
    "fdatasync": 75,
    "socketpair": 53, "connect": 42, "accept": 43, "accept4": 288, "bind": 49, "listen": 50,
    "sendto": 44, "recvfrom": 45, "sendmsg": 46, "recvmsg": 47, "sendmmsg": 307, "recvmmsg": 299,
    "shutdown": 48, "getsockname": 51, "getpeername": 52, "setsockopt": 54, "getsockopt": 55,
    "poll": 7, "ppoll": 271, "select": 23, "pselect6": 270, "epoll_create": 213,
    "epoll_create1": 291, "epoll_ctl": 233, "epoll_wait": 232, "epoll_pwait": 281,
    "epoll_pwait2": 441, "eventfd2": 290,
    "munmap": 11, "brk": 12, "mremap": 25, "madvise": 28, "msync": 26, "membarrier": 324,
    "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "sigaltstack": 131,
    "restart_syscall": 219, "tgkill": 234, "exit": 60, "exit_group": 231,
    "futex": 202, "set_robust_list": 273, "rseq": 334, "sched_yield": 24,
    "sched_getaffinity": 204, "getcpu": 309,
    "nanosleep": 35, "clock_nanosleep": 230, "clock_gettime": 228, "clock_getres": 229,
    "gettimeofday": 96, "times": 100, "getrandom": 318,
    "getpid": 39, "getppid": 110, "gettid": 186, "getuid": 102, "geteuid": 107, "getgid": 104,
    "getegid": 108, "getresuid": 118, "getresgid": 120, "getgroups": 115, "uname": 63,
    "sysinfo": 99, "getrusage": 98, "getrlimit": 97, "capget": 125,
}  # fmt: skip
"""Whatever their arguments."""
_NEWER: Final = 424
_WRITE, _EXECUTE = 2, 4
_THREAD: Final = 0x00010100
"""CLONE_THREAD and CLONE_VM: what makes a thread and no process."""
_NAMESPACES: Final = 0x7E020080
_IOCTLS: Final = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
_ALL: Final = 0xFFFFFFFF
_PARTLY: Final = (
    (9, 2, _WRITE | _EXECUTE, (0, _WRITE, _EXECUTE)),  # mmap: never both
    (10, 2, _EXECUTE, (0,)),  # mprotect
    (16, 1, _ALL, _IOCTLS),  # ioctl
    (56, 0, _THREAD | _NAMESPACES, (_THREAD,)),  # clone
    (302, 2, _ALL, (0,)),  # prlimit64: a limit is looked at, and none is set
)
"""A call's number, which of its arguments is looked at, the bits of it, what they may be."""
_SOCKET: Final = 41

_MACHINE: Final = 0xC000003E
"""AUDIT_ARCH_X86_64."""
_X32: Final = 0x40000000
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_CALL, _FILTER, _ALL_THREADS = 317, 1, 1
"""seccomp(2)'s number; SECCOMP_SET_MODE_FILTER; SECCOMP_FILTER_FLAG_TSYNC."""
_Instruction = tuple[int, int, int, int]

_libc: Final = ctypes.CDLL(None, use_errno=True)


def is_known() -> bool:
    """Whether this machine is of the kind that the list is for, and its kernel has filters."""
    if platform.machine() != "x86_64":
        return False
    action = ctypes.c_uint32(_ERROR)
    result = _libc.syscall(_CALL, ctypes.c_uint(2), ctypes.c_uint(0), ctypes.byref(action))
    if result < 0 and ctypes.get_errno() not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
    return bool(result == 0)


def restrict(families: Collection[int]) -> None:
    """Hold all threads of this process to the list, and to sockets of these families.

    Raises:
        OSError: the kernel refuses: no_new_privs has to be set before.
    """
    code = b"".join(struct.pack("=HBBI", *it) for it in program(families))
    held = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("@HP", len(code) // 8, ctypes.addressof(held))
    result = _libc.syscall(_CALL, ctypes.c_uint(_FILTER), ctypes.c_uint(_ALL_THREADS), head)
    if result != 0:  # -1, or a thread that could not be held to it
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


def program(families: Collection[int]) -> list[_Instruction]:
    """The filter, in the kernel's classic BPF."""
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _MACHINE),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
    ]
    for number in sorted(ALLOWED.values()):
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for number, argument, bits, values in (*_PARTLY, (_SOCKET, 0, _ALL, families)):
        look = [(_LOAD, 0, 0, _FIRST_ARGUMENT + 8 * argument), (_AND, 0, 0, bits)]
        for value in values:
            look += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
        code += [(_EQUAL, 0, len(look) + 1, number), *look, (_LOAD, 0, 0, _NUMBER)]
    code += [
        (_AT_LEAST, 0, 1, _NEWER),
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
        (_RETURN, 0, 0, _ERROR | errno.EPERM),
    ]
    return code
