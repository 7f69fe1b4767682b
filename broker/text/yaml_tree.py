"""YAML text to a small tree with marks; everything that hides meaning is refused.

Built from libyaml's events, not its nodes: only events show anchors, and a tree built here
can be bounded and needs no recursion. Scalars stay the text they are (`no`, `012`, `1:30`).
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

import yaml

from broker.text.escape import escape
from broker.text.problems import Problem, ProblemsError

MAX_BYTES: Final = 16 * 2**20
MAX_DEPTH: Final = 32

_STARTS: Final = frozenset(
    {yaml.ScalarEvent, yaml.AliasEvent, yaml.MappingStartEvent, yaml.SequenceStartEvent}
)
_ENDS: Final = frozenset({yaml.MappingEndEvent, yaml.SequenceEndEvent})


class Scalar:
    """A piece of text; `plain` when it was written without quotes."""

    __slots__ = ("column", "line", "plain", "value")

    def __init__(self, value: str, *, plain: bool, line: int, column: int) -> None:
        self.value = value
        self.plain = plain
        self.line = line
        self.column = column


class Sequence:
    """A list."""

    __slots__ = ("column", "items", "line")

    def __init__(self, line: int, column: int) -> None:
        self.items: list[Node] = []
        self.line = line
        self.column = column


class Mapping:
    """Keys with values, in the order of the file; keys may be doubled: the reader judges."""

    __slots__ = ("column", "line", "pairs", "waiting")

    def __init__(self, line: int, column: int) -> None:
        self.pairs: list[tuple[Scalar, Node]] = []
        self.waiting: Scalar | None = None
        """A key whose value has not been read yet."""
        self.line = line
        self.column = column


Node = Scalar | Sequence | Mapping

_REFUSED: Final = Scalar("", plain=False, line=0, column=0)
"""Stands for a key already complained about; its value is read and dropped."""


class _Stop(Exception):  # noqa: N818 - control flow: what follows in the file cannot be read
    """Nothing after this place can be made sense of."""


def read_tree(data: bytes, source: str) -> tuple[Node, list[Problem]]:
    """The one document in `data`, and what was wrong that did not hinder reading on.

    Raises:
        ProblemsError: there is nothing to go on with: no UTF-8, no YAML, no document.
    """
    reader = _Reader(source)
    try:
        root = reader.read(_decode(data, reader))
    except _Stop:
        raise ProblemsError(reader.problems) from None
    return root, reader.problems


def _decode(data: bytes, reader: _Reader) -> str:
    if len(data) > MAX_BYTES:
        reader.stop(1, 1, f"the file has {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        line, column = _place(before, len(before))
        reader.stop(line, column, f"byte 0x{data[error.start]:02x} is not UTF-8")
    return text


def _place(text: str, offset: int) -> tuple[int, int]:
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


class _Reader:
    """Reads events into a tree, keeping the open containers on a list of its own."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []

    def note(self, line: int, column: int, message: str) -> None:
        self.problems.append(Problem(self.source, line, column, message))

    def stop(self, line: int, column: int, message: str) -> NoReturn:
        self.note(line, column, message)
        raise _Stop

    def read(self, text: str) -> Node:
        try:
            return self._read(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            said = escape(str(error.problem or error.context or "unreadable"))
            self.note(line, column, f"not YAML: {said}")
        except yaml.reader.ReaderError as error:
            line, column = _place(text, int(error.position))
            self.note(line, column, f"not YAML: {escape(str(error.reason))}")
        except yaml.YAMLError as error:
            self.note(1, 1, f"not YAML: {escape(str(error))}")
        raise _Stop

    def _read(self, text: str) -> Node:
        loader = yaml.CSafeLoader(text)
        root: Node | None = None
        open_containers: list[Sequence | Mapping] = []
        while True:
            event: Any = loader.get_event()
            kind = event.__class__
            if kind in _STARTS:
                node = self._node(event, len(open_containers))
                if open_containers:
                    self._put(open_containers[-1], node)
                else:
                    root = node
                if not isinstance(node, Scalar):
                    open_containers.append(node)
            elif kind in _ENDS:
                open_containers.pop()
            elif kind is yaml.DocumentStartEvent:
                self._document(event, root)
            elif kind is yaml.StreamEndEvent:
                break
        if root is None:
            self.stop(1, 1, "the file is empty")
        return root

    def _document(self, event: Any, root: Node | None) -> None:  # noqa: ANN401 - see `_node`
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if root is not None:
            self.stop(line, column, "a second document; a file holds one")
        if event.version or event.tags:
            self.note(line, column, "YAML directives are refused")

    def _node(self, event: Any, depth: int) -> Node:  # noqa: ANN401 - one of four event classes
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        kind = event.__class__
        if kind is yaml.AliasEvent:
            self.note(line, column, "aliases are refused: write the value out")
            return Scalar("alias", plain=False, line=line, column=column)
        if event.anchor is not None:
            self.note(line, column, f"anchors are refused: &{escape(str(event.anchor), 40)}")
        if event.tag is not None:
            self.note(line, column, f"tags are refused: {escape(str(event.tag), 40)}")
        if kind is yaml.ScalarEvent:
            return Scalar(event.value, plain=not event.style, line=line, column=column)
        if depth >= MAX_DEPTH:
            self.stop(line, column, f"nested more than {MAX_DEPTH} deep")
        return Mapping(line, column) if kind is yaml.MappingStartEvent else Sequence(line, column)

    def _put(self, container: Sequence | Mapping, node: Node) -> None:
        if isinstance(container, Sequence):
            container.items.append(node)
        elif container.waiting is not None:
            if container.waiting is not _REFUSED:
                container.pairs.append((container.waiting, node))
            container.waiting = None
        elif not isinstance(node, Scalar):
            self.note(node.line, node.column, "a key must be a plain word, not a list or mapping")
            container.waiting = _REFUSED
        elif node.plain and node.value == "<<":
            self.note(node.line, node.column, "merge keys are refused: write the keys out")
            container.waiting = _REFUSED
        else:
            container.waiting = node
