"""Writes the manual pages and the shells' completions: python -m tools.manual DIRECTORY.

Below DIRECTORY: `man/NAME.SECTION`, `completions/brokerctl` (bash), `completions/_brokerctl` (zsh).
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

from broker.cli.main import main as brokerctl
from tools.manual.pages import pages


def main(directory: Path) -> None:
    """Write everything."""
    manual, completions = directory / "man", directory / "completions"
    for place in (manual, completions):
        place.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (manual / name).write_text(text, encoding="ascii")
    for shell, name in (("bash", "brokerctl"), ("zsh", "_brokerctl")):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            brokerctl(["completion", shell])
        (completions / name).write_text(said.getvalue(), encoding="ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
