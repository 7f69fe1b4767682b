"""The disks of processes: what was synced outlives a crash, what was not may be lost or torn.

`Disk` stands in for the module `os` where the product writes durable files, and passes everything
on; it only fails, forgets and listens.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path


class Disk:
    """One for all processes: `failing` names what fails (`write`, `sync`, or nothing).

    `on_line(raw)` hears each line of an audit log once it is durable; `dead` processes write
    nothing any more.
    """

    def __init__(self, on_line):
        self.failing = ""
        self.dead = False
        self.opened = {}
        """What brokerd holds open: its kernel closes it when it is killed."""
        self.untracked = _Untracked(self)
        self._on_line = on_line
        self._synced = {}

    def __getattr__(self, name):
        return getattr(os, name)

    def open(self, path, flags, mode=0o777):
        file = os.open(path, flags, mode)
        self.opened[file] = None
        return file

    def close(self, file):
        self.opened.pop(file, None)
        os.close(file)

    def write(self, file, data):
        if self.dead:
            raise OSError(errno.EIO, "its process is dead")
        if self.failing == "write":
            os.write(file, bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(file, data)

    def fdatasync(self, file):
        self._sync(file)

    def fsync(self, file):
        self._sync(file)

    def _sync(self, file):
        if self.dead:
            raise OSError(errno.EIO, "its process is dead")
        if self.failing == "sync":
            raise OSError(errno.EIO, "Input/output error")
        if Path(f"/proc/self/fd/{file}").readlink().name.startswith("audit"):
            self._hear(file)

    def _hear(self, file):
        """Every line of this segment that has become durable."""
        inode = os.fstat(file).st_ino
        with Path(f"/proc/self/fd/{file}").open("rb") as log:
            log.seek(self._synced.get(inode, 0))
            lines = log.read()
        self._synced[inode] = self._synced.get(inode, 0) + len(lines)
        for raw in lines.splitlines():
            self._on_line(raw)

    def lose_unsynced(self, path, share):
        """The machine of whoever wrote `path` is gone: of the unsynced end, a `share` is left."""
        size, kept = path.stat().st_size, self._synced.get(path.stat().st_ino, 0)
        if size > kept:
            os.truncate(path, kept + int((size - kept) * share))


class _Untracked:
    """The same disk for a process that keeps nothing open."""

    def __init__(self, disk):
        self._disk = disk

    def __getattr__(self, name):
        return getattr(os if name in {"open", "close"} else self._disk, name)
