"""Measurements beside a floor or a peer taken in the same run; the stores are the tests' own."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
