"""One target in this process: python -m tools.fuzz.one NAME CORPUS [libFuzzer's options]."""

from __future__ import annotations

import hashlib
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

from tools.fuzz.names import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable


def main() -> None:
    """Write the seeds and the dictionary, then fuzz until libFuzzer ends the process."""
    name, corpus, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["broker"]):
        target = import_module(TARGETS[name])
    for seed in target.seeds():
        (Path(corpus) / hashlib.sha256(seed).hexdigest()).write_bytes(seed)
    Path(f"{corpus}.dict").write_text(_dictionary(target.words()))
    atheris.Setup([sys.argv[0], corpus, *options], target.run)
    atheris.Fuzz()


def _dictionary(words: Iterable[bytes]) -> str:
    """In libFuzzer's form: a quoted word a line."""
    lines = {"".join(f"\\x{byte:02x}" for byte in word) for word in words if word}
    return "".join(f'"{line}"\n' for line in sorted(lines))


if __name__ == "__main__":
    main()
