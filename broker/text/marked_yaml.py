"""YAML files into msgspec structs: strict, and with every problem at its file:line:column.

    settings = load_struct(data, "etc/broker.yaml", Settings)

Annotations understood: `str`, `Text` (a `str` that remembers its mark), `int`, `bool`,
`float`, `Literal` of texts, `Annotated[..., msgspec.Meta(...)]`, structs, `dict`, `list`,
`tuple[X, ...]`, `X | None`, a union of at most one of text, list, mapping each, and `object`
(whatever stands there, with `Text` for scalars). A struct that derives from `Marked` learns
where it stood. A field is named as the struct's encoded name says
(`msgspec.field(name="from")`).
"""

from __future__ import annotations

import difflib
import functools
import re
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

import msgspec

from broker.text.escape import escape
from broker.text.problems import Problem, ProblemsError
from broker.text.yaml_tree import Mapping, Node, Scalar, Sequence, read_tree

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,18})?")
_BAD: Final = object()
"""What a converter returns after it noted a problem."""


class Text(str):
    """A `str` that remembers where it stood; `line` and `column` count from 1, 0 is nowhere."""

    __slots__ = ("column", "line")

    line: int
    column: int

    def __new__(cls, value: str, line: int = 0, column: int = 0) -> Text:  # noqa: PYI034 - no Self: str.__new__ is not generic over it
        """Mark `value`."""
        text = super().__new__(cls, value)
        text.line = line
        text.column = column
        return text


class Marked(msgspec.Struct, kw_only=True):
    """A struct that learns where it stood; the fields are not keys of the file.

    `partial` is true where something in it was bad or unknown and has been left out
    (`load_partial`).
    """

    line: int = 0
    column: int = 0
    partial: bool = False


_NOT_KEYS: Final = Marked.__struct_fields__


class _Notes:
    """The problems of one file, as they are found."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = problems

    def bad(self, node: Node, message: str) -> object:
        self.problems.append(Problem(self.source, node.line, node.column, message))
        return _BAD


if TYPE_CHECKING:
    _Converter = Callable[[Node, _Notes], Any]


def load_struct(data: bytes, source: str, type: type[T]) -> T:  # noqa: A002 - reads as msgspec's own
    """Read `data`, one YAML document, as a `type`; `source` is the file's name in problems.

    Raises:
        ProblemsError: with everything that is wrong; no other exception, whatever the bytes.
        TypeError: `type` uses an annotation this module does not understand.
    """
    value, problems = load_partial(data, source, type)
    if problems or value is None:
        raise ProblemsError(problems)
    return value


def load_partial(data: bytes, source: str, type: type[T]) -> tuple[T | None, list[Problem]]:  # noqa: A002 - as above
    """Like `load_struct`, but for who wants to look for more problems in what is good.

    What is bad is left out: of lists, of mappings, and of structs where the field has a
    default. None if nothing is left.

    Raises:
        ProblemsError: there is no tree to look at: no UTF-8, no YAML, no document.
        TypeError: as `load_struct`.
    """
    convert = _converter(typing.cast("Any", type))
    root, problems = read_tree(data, source)
    value = convert(root, _Notes(source, problems))
    return (None if value is _BAD else typing.cast("T", value)), problems


@functools.cache  # a few dozen annotations, for the life of the process
def _converter(annotation: Any) -> _Converter:  # noqa: ANN401 - annotations have no common type
    """How to read a node as `annotation`; built once for each."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _constrained(annotation)
    if origin is Literal:
        return _literal(typing.get_args(annotation))
    if origin is typing.Union or origin is types.UnionType:
        return _union(typing.get_args(annotation))
    if origin in (list, tuple):
        return _sequence(origin, typing.get_args(annotation)[0])
    if origin is dict:
        return _dict(*typing.get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return _StructReader(annotation)
    if annotation in _LEAVES:
        return _LEAVES[annotation]
    raise TypeError(f"no reading of {annotation!r} from YAML")


def _scalar_text(node: Node, notes: _Notes, wanted: str) -> str | None:
    if not isinstance(node, Scalar):
        notes.bad(node, f"expected {wanted}, not a {_kind(node)}")
        return None
    if node.plain and not node.value:
        notes.bad(node, f'expected {wanted}, found nothing (an empty text is written "")')
        return None
    return node.value


def _kind(node: Node) -> str:
    if isinstance(node, Scalar):
        return "text"
    return "list" if isinstance(node, Sequence) else "mapping"


def _string(node: Node, notes: _Notes) -> object:
    text = _scalar_text(node, notes, "a text")
    return _BAD if text is None else text


def _text(node: Node, notes: _Notes) -> object:
    text = _scalar_text(node, notes, "a text")
    return _BAD if text is None else Text(text, node.line, node.column)


def _integer(node: Node, notes: _Notes) -> object:
    text = _scalar_text(node, notes, "an integer")
    if text is None:
        return _BAD
    if not _INTEGER.fullmatch(text):
        return notes.bad(node, f"expected an integer in decimal, not '{escape(text, 60)}'")
    return int(text)


def _float(node: Node, notes: _Notes) -> object:
    text = _scalar_text(node, notes, "a number")
    if text is None:
        return _BAD
    if not _DECIMAL.fullmatch(text):
        return notes.bad(node, f"expected a decimal number, not '{escape(text, 60)}'")
    return float(text)


def _boolean(node: Node, notes: _Notes) -> object:
    text = _scalar_text(node, notes, "true or false")
    if text is None:
        return _BAD
    if text not in ("true", "false"):
        return notes.bad(node, f"expected true or false, not '{escape(text, 60)}'")
    return text == "true"


def _anything(node: Node, notes: _Notes) -> object:
    if isinstance(node, Scalar):
        return Text(node.value, node.line, node.column)
    if isinstance(node, Sequence):
        return [_anything(item, notes) for item in node.items]
    return dict(_pairs(node, _text, _anything, notes))


_LEAVES: Final[dict[Any, _Converter]] = {
    str: _string,
    Text: _text,
    int: _integer,
    bool: _boolean,
    float: _float,
    object: _anything,
    Any: _anything,
}


def _constrained(annotation: Any) -> _Converter:  # noqa: ANN401 - as above
    inner = _converter(typing.get_args(annotation)[0])

    def convert(node: Node, notes: _Notes) -> object:
        value = inner(node, notes)
        if value is _BAD:
            return _BAD
        try:
            msgspec.convert(value, annotation)
        except msgspec.ValidationError as error:
            return notes.bad(node, escape(str(error)))
        return value

    return convert


def _literal(values: tuple[Any, ...]) -> _Converter:
    wanted = " or ".join(str(value) for value in values)

    def convert(node: Node, notes: _Notes) -> object:
        text = _scalar_text(node, notes, wanted)
        if text is None:
            return _BAD
        if text not in values:
            return notes.bad(node, f"expected {wanted}, not '{escape(text, 60)}'")
        return text

    return convert


def _union(members: tuple[Any, ...]) -> _Converter:
    by_kind: dict[str, _Converter] = {}
    for member in members:
        if member is types.NoneType:
            continue
        kind = _kind_read(member)
        if kind in by_kind:
            raise TypeError(f"a union with two readings of a {kind}: {members!r}")
        by_kind[kind] = _converter(member)
    wanted = " or ".join(f"a {kind}" for kind in by_kind)

    def convert(node: Node, notes: _Notes) -> object:
        reading = by_kind.get(_kind(node))
        if reading is None:
            return notes.bad(node, f"expected {wanted}, not a {_kind(node)}")
        return reading(node, notes)

    return convert if len(by_kind) > 1 else next(iter(by_kind.values()))


def _kind_read(annotation: Any) -> str:  # noqa: ANN401 - as above
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _kind_read(typing.get_args(annotation)[0])
    if origin in (list, tuple):
        return "list"
    is_struct = isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)
    return "mapping" if origin is dict or is_struct else "text"


def _sequence(container: Callable[[list[Any]], Any], item_type: Any) -> _Converter:  # noqa: ANN401 - as above
    read_item = _converter(item_type)

    def convert(node: Node, notes: _Notes) -> object:
        if not isinstance(node, Sequence):
            return notes.bad(node, f"expected a list, not a {_kind(node)}")
        items = [read_item(item, notes) for item in node.items]
        return container([item for item in items if item is not _BAD])

    return convert


def _pairs(
    node: Mapping, read_key: _Converter, read_value: _Converter, notes: _Notes
) -> list[tuple[Any, Any]]:
    first: dict[str, Scalar] = {}
    pairs = []
    for key, value_node in node.pairs:
        value = read_value(value_node, notes)
        if _is_double(key, first, notes):
            continue
        pairs.append((read_key(key, notes), value))
    return [(key, value) for key, value in pairs if key is not _BAD and value is not _BAD]


def _is_double(key: Scalar, first: dict[str, Scalar], notes: _Notes) -> bool:
    before = first.setdefault(key.value, key)
    if before is key:
        return False
    notes.bad(key, f"key '{escape(key.value, 60)}' was given already, on line {before.line}")
    return True


def _dict(key_type: Any, value_type: Any) -> _Converter:  # noqa: ANN401 - as above
    read_key, read_value = _converter(key_type), _converter(value_type)

    def convert(node: Node, notes: _Notes) -> object:
        if not isinstance(node, Mapping):
            return notes.bad(node, f"expected a mapping, not a {_kind(node)}")
        return dict(_pairs(node, read_key, read_value, notes))

    return convert


class _StructReader:
    """Reads mappings as one struct type."""

    def __init__(self, struct: type[msgspec.Struct]) -> None:
        self.struct = struct
        self.marked = issubclass(struct, Marked)
        self.fields = {
            field.encode_name: field
            for field in msgspec.structs.fields(struct)
            if not (self.marked and field.name in _NOT_KEYS)
        }
        # Made when the first such mapping is met: a struct may hold itself.
        self.readings: dict[str, _Converter] = {}

    def __call__(self, node: Node, notes: _Notes) -> object:
        if not isinstance(node, Mapping):
            return notes.bad(node, f"expected a mapping, not a {_kind(node)}")
        values: dict[str, Any] = {}
        first: dict[str, Scalar] = {}
        if not self.readings:
            self.readings = {name: _converter(field.type) for name, field in self.fields.items()}
        for key, value_node in node.pairs:
            reading = self.readings.get(key.value)
            if reading is None:
                values[""] = notes.bad(key, _unknown(key.value, list(self.fields)))
            elif not _is_double(key, first, notes):
                values[self.fields[key.value].name] = reading(value_node, notes)
        return self._struct(node, notes, first, values)

    def _struct(
        self, node: Mapping, notes: _Notes, given: dict[str, Scalar], values: dict[str, Any]
    ) -> object:
        whole = True
        for name, field in self.fields.items():
            if field.required and name not in given:
                notes.bad(node, f"'{name}' is missing")
            if field.required and values.get(field.name, _BAD) is _BAD:
                whole = False
        if not whole:
            return _BAD
        good = {name: value for name, value in values.items() if value is not _BAD}
        if self.marked:
            partial = len(good) < len(values)
            good.update(line=node.line, column=node.column, partial=partial)
        return self.struct(**good)


def _unknown(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key[:60], known, 1)
    hint = f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(known)}"
    return f"unknown key '{escape(key, 60)}'; {hint}"
