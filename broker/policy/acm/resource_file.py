"""xend's `resource_labels` file: a Python source that xend executed; here it is only parsed.

`resources = {'phy:/dev/x': ('ACM', 'policy', 'label'), 'file:/a': (...), ...}`; the oldest files
have pairs (policy, label).
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

import msgspec

from broker.core import glob
from broker.policy.acm.label_text import label_of
from broker.text.escape import escape
from broker.text.marked_yaml import Text
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_BYTES: Final = 4 * 2**20
_NAME: Final = "resources"
INACCESSIBLE: Final = "__INACCESSIBLE__"


class LabelledResource(msgspec.Struct, frozen=True):
    """A resource as xend named it, the path it is, and its label (in the ACM policy's spelling)."""

    key: Text
    path: str
    label: str


class ResourceFile(msgspec.Struct, frozen=True):
    """What can be matched, and remarks on what cannot."""

    resources: tuple[LabelledResource, ...]
    notes: tuple[Problem, ...]


def read_resources(data: bytes, source: str, policy: str) -> ResourceFile:
    """The labelled resources in `data`, all of `policy`.

    Raises:
        ProblemsError: with everything that is not an entry, or is of another policy.
    """
    reader = _Reader(source, policy)
    for key, value in reader.entries(data):
        reader.entry(key, value)
    if reader.problems:
        raise ProblemsError(reader.problems)
    return ResourceFile(tuple(reader.found), tuple(reader.notes))


class _Reader:
    """Reads the entries, without running anything."""

    def __init__(self, source: str, policy: str) -> None:
        self.source = source
        self.policy = policy
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self.found: list[LabelledResource] = []
        self._paths: set[str] = set()

    def _problem(self, node: ast.AST, message: str) -> Problem:
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1
        return Problem(self.source, line, column, message)

    def _bad(self, node: ast.AST, message: str) -> None:
        self.problems.append(self._problem(node, message))

    def entries(self, data: bytes) -> Iterable[tuple[ast.expr | None, ast.expr]]:
        """The pairs of the one dictionary that the file assigns."""
        if len(data) > _MAX_BYTES:
            said = f"the file has {len(data)} bytes; at most {_MAX_BYTES} are read"
            raise ProblemsError([Problem(self.source, 1, 1, said)])
        try:
            tree = ast.parse(data)
        except SyntaxError as error:
            said = f"not Python: {escape(error.msg)}"
            place = error.lineno or 1, max(1, error.offset or 1)
            raise ProblemsError([Problem(self.source, *place, said)]) from None
        except (ValueError, RecursionError, MemoryError):
            said = "not Python that can be parsed"
            raise ProblemsError([Problem(self.source, 1, 1, said)]) from None
        pairs: list[tuple[ast.expr | None, ast.expr]] = []
        for statement in tree.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict() as value) if (
                    name == _NAME
                ):
                    pairs += zip(value.keys, value.values, strict=True)
                case _:
                    said = f"only '{_NAME} = {{...}}' is read; nothing here is run"
                    self._bad(statement, said)
        return pairs

    def entry(self, key: ast.expr | None, value: ast.expr) -> None:
        """One `'phy:/dev/x': (type, policy, label)`."""
        name = _text(key)
        if key is None or name is None:
            self._bad(key or value, "a resource is named by a text")
            return
        words = [_text(item) for item in value.elts] if isinstance(value, ast.Tuple) else []
        parts = [word for word in words if word is not None]
        if len(parts) != len(words) or len(parts) not in (2, 3):
            self._bad(value, "a label is ('ACM', 'policy', 'label'), or ('policy', 'label')")
            return
        kind, policy, label = ("ACM", *parts) if len(parts) == 2 else parts
        shown = f"resource '{escape(name, 80)}'"
        if label == INACCESSIBLE:
            # Nothing matches it, and what matches nothing is denied.
            self.notes.append(self._problem(key, f"{shown} is nobody's: left out, so denied"))
            return
        try:
            parsed = label_of(kind, policy, label)
        except ValueError as error:
            self._bad(value, str(error))
            return
        if parsed.invalid:
            said = f"{shown} has an invalidated label: left out, so denied"
            self.notes.append(self._problem(key, said))
        elif parsed.policy != self.policy:
            said = f"{shown} is labelled under policy '{escape(parsed.policy, 60)}'"
            self._bad(value, f"{said}, not '{escape(self.policy, 60)}'")
        else:
            self._match(key, name, parsed.label)

    def _match(self, key: ast.expr, name: str, label: str) -> None:
        kind, _, rest = name.partition(":")
        shown = f"resource '{escape(name, 80)}'"
        path = _path(kind, rest)
        if path is None:
            said = f"{shown} is no disk: left out; label it by hand"
            self.notes.append(self._problem(key, said))
        elif glob.is_glob(path) or glob.climbs(path) or not path.isprintable():
            self._bad(
                key, f"{shown}: a path with '*', '..' or control characters cannot be matched"
            )
        elif path in self._paths:
            self._bad(key, f"{shown}: {escape(path, 80)} has a label already")
        else:
            self._paths.add(path)
            place = Text(name, key.lineno, key.col_offset + 1)
            self.found.append(LabelledResource(place, path, label))


def _path(kind: str, rest: str) -> str | None:
    """The path in a disk's `params`; None where this is no disk."""
    if kind == "phy" and rest:
        return rest if rest.startswith("/") else f"/dev/{rest}"
    if kind == "file" and rest.startswith("/"):
        return rest
    if kind in ("tap", "tap2"):
        path = rest.partition(":")[2]
        return path if path.startswith("/") else None
    return None


def _text(node: ast.expr | None) -> str | None:
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, str) else None
