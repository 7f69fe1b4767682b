"""A pytest plugin: examples as the tests ask for them, without deadlines, the same each time.

In place of tests/conftest.py, which brings stores and a reactor: what is mutated needs neither, and
mutmut runs the tests many times in one process.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings

sys.path.insert(0, str(Path("tests").absolute()))
settings.register_profile(
    "mutation",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=30,
    phases=[Phase.explicit, Phase.generate],  # which example fails is no matter here
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("mutation")
