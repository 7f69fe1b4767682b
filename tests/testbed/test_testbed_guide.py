"""The guide as the test bed reads it: which blocks are typed, which are put into files."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tools.testbed.scenarios.guide import blocks

GUIDE = Path(__file__).parents[2] / "docs" / "real-host.md"


def test_every_step_has_its_blocks_in_order():
    found = [(step, kind) for step, kind, _ in blocks(GUIDE.read_text())]
    assert [step for step, _ in found] == sorted(step for step, _ in found)
    assert [step for step, kind in found if kind == "yaml"] == ["3", "4"]
    assert {step for step, _ in found} == set("12345678")


def test_blocks_outside_numbered_steps_are_left_alone():
    text = "## 1. One\n```\necho one\n```\n## Otherwise\n```\necho two\n```\n"
    assert list(blocks(text)) == [("1", "shell", "echo one")]
