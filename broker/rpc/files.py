"""Reading a file that the configuration names, while the broker runs: it must not wait there."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

MOST: Final = 16 << 20
"""Bytes: no policy, certificate or denylist is anywhere near."""


def read_regular(path: Path, most: int = MOST) -> bytes:
    """A regular file's bytes; a fifo, a device or a socket would have the broker wait.

    Raises:
        OSError: it cannot be read, is no regular file, or has more than `most` bytes.
    """
    # A fifo opens at once this way, and is then found to be one.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no regular file", str(path))
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"more than {most} bytes", str(path))
    return data
