"""A disk's path, resolved once: the object that is found is held open and is what gets used.

Nothing on the way may lead elsewhere: under `/dev`, symbolic links are followed as long as they
stay under `/dev` and end at a block device; anywhere else there may be none, and it must be a
regular file. Whoever can rename files meanwhile gains nothing: each step is taken from the
directory that is already held.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final, Self

import msgspec

from broker.agent.gates.base import GateError
from broker.text.escape import escape

if TYPE_CHECKING:
    from types import TracebackType

_MAX_PATH: Final = 4095
_MAX_LINKS: Final = 40
_DEV: Final = b"/dev"


class Disk(msgspec.Struct):
    """An opened disk; a context manager that closes `fd`.

    `device` is its `(major, minor)` if it is a block device, None for a regular file.
    `identity` tells disks apart: the block device's number, or the file's device and inode.
    """

    fd: int
    path: str
    device: tuple[int, int] | None
    identity: tuple[str, int, int]

    def __enter__(self) -> Self:
        """Hold it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go."""
        os.close(self.fd)


def open_disk(untrusted_params: bytes, *, writable: bool, dev: bytes = _DEV) -> Disk:
    """Open the block device or regular file at this absolute path.

    Args:
        untrusted_params: the device's `params`, as libxl wrote them.
        writable: open it for writing as well.
        dev: where devices live.

    Raises:
        GateError: the path is not plain, leads astray, or is of no use as a disk.
    """
    parts = _components(untrusted_params)
    shown = escape(untrusted_params)
    under_dev = untrusted_params.startswith(dev + b"/")
    try:
        if under_dev:
            held = _walk_devices(dev, parts[len(_components(dev)) :])
        else:
            held = _walk_files(parts)
    except OSError as error:
        raise GateError(f"disk {shown}: {os.strerror(error.errno or 0)}") from error
    try:
        return _reopen(held, shown, writable=writable, under_dev=under_dev)
    finally:
        os.close(held)


def _components(path: bytes) -> list[bytes]:
    if not path.startswith(b"/") or b"\0" in path or len(path) > _MAX_PATH:
        raise GateError(f"disk {escape(path)}: not an absolute path")
    parts = path.split(b"/")[1:]
    if any(part in {b"", b".", b".."} for part in parts):
        raise GateError(f"disk {escape(path)}: the path has empty parts, `.` or `..`")
    return parts


def _walk_files(parts: list[bytes]) -> int:
    """Hold the object at `/` + `parts`, following no link at all."""
    held = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        held = _step(held, part, directory=not last)
    return held


def _walk_devices(dev: bytes, parts: list[bytes]) -> int:
    """Hold the object at `dev` + `parts`, following links that stay below `dev`."""
    waiting, done, links = list(parts), list[bytes](), 0
    held = os.open(dev, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    while waiting:
        part = waiting.pop(0)
        held = _step(held, part, directory=False)
        if not stat.S_ISLNK(os.fstat(held).st_mode):
            done.append(part)
            continue
        target = os.readlink(b"", dir_fd=held)
        os.close(held)
        links += 1
        if links > _MAX_LINKS:
            raise GateError("disk: too many symbolic links")
        waiting = _after_link(dev, done, target) + waiting
        done = []
        held = os.open(dev, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    return held


def _after_link(dev: bytes, done: list[bytes], target: bytes) -> list[bytes]:
    """The way from `dev` to where a link found after `done` points.

    Counting `..` in the text is sound: no directory of `done` is itself a link.
    """
    if target.startswith(dev + b"/"):
        way, rest = list[bytes](), target[len(dev) + 1 :]
    elif target.startswith(b"/"):
        raise GateError(f"disk: a link leads out of {escape(dev)}, to {escape(target)}")
    else:
        way, rest = list(done), target
    for part in rest.split(b"/"):
        if part in {b"", b"."}:
            continue
        if part != b"..":
            way.append(part)
        elif way:
            way.pop()
        else:
            raise GateError(f"disk: a link leads out of {escape(dev)}, to {escape(target)}")
    return way


def _step(held: int, part: bytes, *, directory: bool) -> int:
    """One step from a held directory, which is let go."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_DIRECTORY if directory else 0)
    try:
        return os.open(part, flags, dir_fd=held)
    finally:
        os.close(held)


def _reopen(held: int, shown: str, *, writable: bool, under_dev: bool) -> Disk:
    """Open what is held for use; going through its descriptor, it is the same object."""
    status = os.fstat(held)
    block = stat.S_ISBLK(status.st_mode)
    if not block and (under_dev or not stat.S_ISREG(status.st_mode)):
        wanted = "a block device" if under_dev else "a regular file"
        raise GateError(f"disk {shown}: not {wanted}, or a link leads there")
    if block and not under_dev:
        raise GateError(f"disk {shown}: a block device outside of /dev")
    # O_EXCL on a block device: writing beside a mount of this domain's own would ruin it.
    flags = os.O_CLOEXEC | (os.O_RDWR | (os.O_EXCL if block else 0) if writable else os.O_RDONLY)
    try:
        fd = os.open(f"/proc/self/fd/{held}", flags)
    except OSError as error:
        raise GateError(f"disk {shown}: {os.strerror(error.errno or 0)}") from error
    if block:
        number = (os.major(status.st_rdev), os.minor(status.st_rdev))
        return Disk(fd=fd, path=shown, device=number, identity=("block", *number))
    return Disk(fd=fd, path=shown, device=None, identity=("file", status.st_dev, status.st_ino))
