"""Each claim of docs/threat-model.md leads to tests that there are."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "threat-model.md").read_text()
TESTS = re.findall(r"^- `(tests/[a-z_/0-9]+\.py)::(test_[a-z_0-9]+)`$", TEXT, re.MULTILINE)


def functions_of(path):
    return {
        node.name
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("path", sorted({path for path, _ in TESTS}))
def test_every_test_that_is_named_is_there(path):
    named = {name for other, name in TESTS if other == path}
    assert named - functions_of(path) == set()


def test_every_line_that_speaks_of_a_test_is_understood():
    assert TEXT.count("`tests/") == len(TESTS)


def test_every_claim_has_a_test():
    body = TEXT[TEXT.index("## A hostile guest") :]
    claims = re.split(r"\n\n(?=\*\*)", body)[1:]
    assert [claim.splitlines()[0] for claim in claims if "- `tests/" not in claim] == []
