"""Coverage-guided fuzzing of what reads untrusted or handwritten bytes: make fuzz [TIME=seconds].

The shipped descriptions and the traffic of the tests are what it begins from.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
