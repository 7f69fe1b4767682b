"""Loop devices: a regular file, already opened and checked, made into a block device.

Every loop device made here carries its life's nonce in `lo_file_name` (free text to the kernel),
so that it is found again after a crash at any point. Facts: linux/loop.h.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from broker.agent.gates.base import GateError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOOP_CLR_FD, _LOOP_GET_STATUS64, _LOOP_CONFIGURE = 0x4C01, 0x4C05, 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_READ_ONLY, _AUTOCLEAR, _DIRECT_IO = 1, 4, 16
_INFO64: Final = struct.Struct("=QQQQQIIII64s64s32s2Q")
_CONFIG_HEAD: Final = struct.Struct("=II")
_CONFIG_RESERVED: Final = 64
_PLAIN: Final = re.compile(r"/dev/loop[0-9]{1,7}")
_TAG: Final = b"xpb:"
_BUSY_RETRIES: Final = 64


class Loop(msgspec.Struct, frozen=True):
    """An attached loop device; `identity` as in `Disk`; `autoclear` if it waits for its end."""

    path: str
    number: tuple[int, int]
    identity: tuple[str, int, int]
    read_only: bool
    autoclear: bool
    tag: str


def attach(fd: int, tag: str, *, writable: bool) -> Loop:
    """Attach a free loop device to the file opened as `fd`, or find the one `tag` has already.

    Raises:
        GateError: there is none to be had, or the kernel refuses.
    """
    status = os.fstat(fd)
    identity = ("file", status.st_dev, status.st_ino)
    for loop in tagged(tag):
        if loop.identity == identity and loop.read_only != writable and not loop.autoclear:
            return loop
        detach(loop)
    try:
        return _attach_free(fd, tag, writable=writable)
    except OSError as error:
        raise GateError(f"no loop device: {os.strerror(error.errno or 0)}") from error


def _attach_free(fd: int, tag: str, *, writable: bool) -> Loop:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_BUSY_RETRIES):
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
            device = os.open(path, flags)
            try:
                _configure(device, fd, tag, writable=writable)
                loop = _status(device, path)
            except OSError as error:
                if error.errno != errno.EBUSY:  # somebody else took it first
                    raise
            else:
                if loop is None or loop.read_only == writable:
                    raise GateError(f"{path} is not attached as asked")
                return loop
            finally:
                os.close(device)
    finally:
        os.close(control)
    raise GateError("no loop device: all are taken as fast as they are found")


def _configure(device: int, fd: int, tag: str, *, writable: bool) -> None:
    plain = 0 if writable else _READ_ONLY
    name = _TAG + tag.encode("ascii")
    for flags in (plain | _DIRECT_IO, plain):
        info = _INFO64.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"", 0, 0)
        config = _CONFIG_HEAD.pack(fd, 0) + info + bytes(_CONFIG_RESERVED)
        try:
            fcntl.ioctl(device, _LOOP_CONFIGURE, config)
        except OSError as error:
            if error.errno != errno.EINVAL or flags == plain:
                raise
            continue  # a file system without direct I/O: through the page cache then
        return


def tagged(tag: str | None = None) -> list[Loop]:
    """The loop devices that carry `tag`, or any tag of ours."""
    return [loop for loop in _attached() if loop.tag and tag in {None, loop.tag}]


def at(path: str) -> Loop | None:
    """The loop device at `path`, if it is a plain `/dev/loopN` and attached."""
    if not _PLAIN.fullmatch(path):
        return None
    try:
        device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _status(device, path)
    finally:
        os.close(device)


def detach(loop: Loop) -> None:
    """Detach, and see that it is gone.

    Raises:
        GateError: something still uses it; the kernel will detach it when that ends.
    """
    try:
        device = os.open(loop.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise GateError(f"{loop.path}: {os.strerror(error.errno or 0)}") from error
    try:
        fcntl.ioctl(device, _LOOP_CLR_FD)
    except OSError as error:
        if error.errno != errno.ENXIO:  # gone already
            raise GateError(f"{loop.path}: {os.strerror(error.errno or 0)}") from error
    finally:
        # Since Linux 5.18 the last close is what detaches.
        os.close(device)
    left = at(loop.path)
    if left is not None and (left.tag, left.identity) == (loop.tag, loop.identity):
        raise GateError(f"{loop.path} is still in use")


def _attached() -> Iterator[Loop]:
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        loop = at(f"/dev/{entry.parent.parent.name}")
        if loop is not None:
            yield loop


def _status(device: int, path: str) -> Loop | None:
    try:
        raw = fcntl.ioctl(device, _LOOP_GET_STATUS64, bytes(_INFO64.size))
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    fields = _INFO64.unpack(raw)
    name: bytes = fields[9].rstrip(b"\0")
    rdev = os.fstat(device).st_rdev
    return Loop(
        path=path,
        number=(os.major(rdev), os.minor(rdev)),
        identity=("file", _device_number(fields[0]), fields[1]),
        read_only=bool(fields[8] & _READ_ONLY),
        autoclear=bool(fields[8] & _AUTOCLEAR),
        tag=name[len(_TAG) :].decode("ascii", "replace") if name.startswith(_TAG) else "",
    )


def _device_number(huge: int) -> int:
    """The kernel's `huge_encode_dev`, as `st_dev` has it."""
    return os.makedev((huge >> 8) & 0xFFF, (huge & 0xFF) | ((huge >> 12) & 0xFFF00))
