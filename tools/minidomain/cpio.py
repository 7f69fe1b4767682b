"""An initramfs, the same bit for bit whenever the same goes in: cpio's newc format."""

from __future__ import annotations

import io
import stat


class Archive:
    """Files by their path, all root's and without a time; with the directories above them."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes, tuple[int, int]]] = {}

    def __contains__(self, path: str) -> bool:
        return path.strip("/") in self._entries

    def directory(self, path: str, mode: int = 0o755) -> None:
        """An empty directory."""
        self._add(path, stat.S_IFDIR | mode, b"")

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """A file."""
        self._add(path, stat.S_IFREG | mode, data)

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def device(self, path: str, major: int, minor: int) -> None:
        """A character device, for root alone."""
        self._add(path, stat.S_IFCHR | 0o600, b"", (major, minor))

    def write(self) -> bytes:
        """The archive."""
        out = io.BytesIO()
        for number, (path, (mode, data, device)) in enumerate(sorted(self._entries.items()), 1):
            _write(out, path, data, (number, mode, device))
        _write(out, "TRAILER!!!", b"", (0, 0, (0, 0)))
        return out.getvalue()

    def _add(self, path: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        path = path.strip("/")
        above = path.rpartition("/")[0]
        if above and above not in self._entries:
            self.directory(above)
        self._entries[path] = (mode, data, device)


def _write(out: io.BytesIO, path: str, data: bytes, node: tuple[int, int, tuple[int, int]]) -> None:
    """One entry: magic, thirteen numbers of eight hex digits, name, data, padded to four bytes."""
    number, mode, device = node
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = [number, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(name), 0]
    out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
    out.write(b"\0" * (-out.tell() % 4))
    out.write(data)
    out.write(b"\0" * (-out.tell() % 4))
