"""The machine of tests/faults, as long as one likes: `python -m tools.faults`."""

from __future__ import annotations

import sys
from pathlib import Path

_TESTS = Path(__file__).parents[2] / "tests"
sys.path[:0] = [str(_TESTS), str(_TESTS / "faults")]
