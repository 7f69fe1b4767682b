"""All Python modules of the image in one file, and the one who imports from it.

Looking for a module in directories takes longer than running most of them. The file is: eight
bytes that say how long the index is; the index; the modules' code, one after the other, each
compressed, since the file takes up memory. The index has for each name where the module's source
was, and where its code begins and ends. A shared object has no code there and lies where its
source would be; a package that is a mere directory has neither.
"""

from __future__ import annotations

import marshal
import os
import zlib

# importlib itself is not there yet.
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PLACE = "/usr/lib/python3.11/modules.bin"
"""Where it is in the image."""
_LENGTH = 8


def packed(sources: Mapping[str, str], codes: Mapping[str, bytes]) -> bytes:
    """Such a file: of each module's source (empty: a mere directory), and of each source's code."""
    index = {}
    parts = []
    end = 0
    for name, source in sorted(sources.items()):
        code = zlib.compress(codes[source], 9) if source in codes else b""
        index[name] = (source, end, end + len(code))
        parts.append(code)
        end += len(code)
    text = marshal.dumps(index)
    return b"".join([len(text).to_bytes(_LENGTH, "little"), text, *parts])


class Modules:
    """What the import system calls a finder and a loader, for all that is in such a file."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._begin = _LENGTH + int.from_bytes(os.read(self._file, _LENGTH), "little")
        text = os.read(self._file, self._begin - _LENGTH)
        self._index: dict[str, tuple[str, int, int]] = marshal.loads(text)

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> object:
        """How to import a module; None if it is not in the file."""
        found = self._index.get(name)
        if found is None:
            return None
        source = found[0]
        if source.endswith(".so"):
            return ModuleSpec(name, ExtensionFileLoader(name, source), origin=source)
        package = not source or source.endswith("/__init__.py")
        spec = ModuleSpec(name, self, origin=source or None, is_package=package)  # type: ignore[arg-type]  # a loader need not be one of the library's
        spec.has_location = bool(source)
        return spec

    def create_module(self, _spec: object) -> None:
        """As the import system makes it."""

    def exec_module(self, module: object) -> None:
        """Run a module's code in it."""
        _, begin, end = self._index[module.__spec__.name]  # type: ignore[attr-defined]  # every module has one by now
        if begin < end:
            code = os.pread(self._file, end - begin, self._begin + begin)
            exec(marshal.loads(zlib.decompress(code)), vars(module))
