"""Records the demo into docs/images/demo.cast and draws docs/images/demo.svg from it.

python -m tools.recording            record, then draw
python -m tools.recording --draw     draw what was recorded
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools.recording.cast import record, written
from tools.recording.picture import picture

IMAGES = Path(__file__).parents[2] / "docs/images"


def main() -> None:
    """Both files."""
    cast = IMAGES / "demo.cast"
    if sys.argv[1:] != ["--draw"]:
        command = [sys.executable, "-m", "broker.sim.demo"]
        cast.write_text(written(record(command), title="make demo"), encoding="utf-8")
    text = cast.read_text(encoding="utf-8")
    (IMAGES / "demo.svg").write_text(picture(text), encoding="utf-8")


if __name__ == "__main__":
    main()
