"""Files that are on the disk when a function returns, whole or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_durably(path: Path, data: bytes, mode: int) -> None:
    """Replace a file whole, or not at all, and have it on the disk on return.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(path.name + ".new")
    os.close(write_new(temporary, data, mode))
    temporary.replace(path)
    sync_directory(path.parent)


def write_new(path: Path, data: bytes, mode: int) -> int:
    """Make a file anew with this content, on the disk on return; answers it, open for writing.

    Raises:
        OSError: it cannot be written.
    """
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        write_all(file, data)
        os.fsync(file)
    except OSError:
        os.close(file)
        raise
    return file


def write_all(file: int, data: bytes) -> None:
    """Write all of it, however many writes that takes.

    Raises:
        OSError: it cannot be written; some of it may have been.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def sync_directory(path: Path) -> None:
    """Have the names in a directory on the disk.

    Raises:
        OSError: it cannot be written.
    """
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
