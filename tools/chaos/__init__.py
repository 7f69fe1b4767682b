"""tests/support/chaos.py against real processes, as long as one likes: `python -m tools.chaos`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
