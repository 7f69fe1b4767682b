"""What the mini-domain's Python is compiled to: runs as its source does, and has no docstring."""

import ast
import marshal
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).parents[2] / "tools" / "minidomain"
SOURCE = '''"""A module's."""
from __future__ import annotations

class Bare:
    """Nothing else in it."""

def bare():
    """Nothing else in it."""

async def asked(value: int) -> int:
    """Before a body."""
    return value

def text():
    return """not one"""

checked = "no"
try:
    assert False
except AssertionError:
    checked = "yes"
'''


def compiler():
    """The program that is run in the tree, from where it is written."""
    tree = ast.parse((TOOLS / "build.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "COMPILER":
            return ast.literal_eval(node.value)
    raise LookupError("COMPILER")


def compiled():
    """The code that the program makes of a file."""
    done = subprocess.run(
        [sys.executable, "-c", compiler()],
        input=marshal.dumps({"source.py": SOURCE.encode()}),
        capture_output=True,
        check=True,
    )
    return marshal.loads(marshal.loads(done.stdout)["source.py"][16:])


def test_docstrings_are_left_out_and_nothing_else():
    names = {}
    exec(compiled(), names)
    documented = [names["Bare"], names["bare"], names["asked"]]
    assert [it.__doc__ for it in documented] == [None] * 3
    assert names.get("__doc__") is None
    assert names["text"]() == "not one"
    assert names["checked"] == "yes"
    assert names["asked"].__annotations__ == {"value": "int", "return": "int"}


def test_lines_are_numbered_as_in_the_source():
    names = {}
    exec(compiled(), names)
    line = SOURCE.splitlines().index("def text():") + 1
    assert names["text"].__code__.co_firstlineno == line
