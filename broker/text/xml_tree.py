"""XML to a small tree with marks. What can grow or hide is refused: DTDs, entities, huge files.

Only what policies and filters use is understood: elements of one namespace, attributes, text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn
from xml.parsers import expat

from broker.text.escape import escape
from broker.text.marked_yaml import Text
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from xml.parsers.expat import XMLParserType

MAX_BYTES: Final = 16 * 2**20
MAX_DEPTH: Final = 16
MAX_ELEMENTS: Final = 500_000
_SCHEMA_INSTANCE: Final = "http://www.w3.org/2001/XMLSchema-instance"
_ENCODINGS: Final = frozenset({"utf-8", "us-ascii", "ascii", "iso-8859-1", "latin-1"})
_SEPARATOR: Final = " "


class Element:
    """An element; `text` has no white space around it.

    `comments` are those just before it, and those behind it on its last line.
    """

    __slots__ = ("attributes", "children", "column", "comments", "line", "name", "text")

    def __init__(self, name: str, attributes: dict[str, Text], line: int, column: int) -> None:
        self.name = name
        self.attributes = attributes
        self.children: list[Element] = []
        self.comments: list[str] = []
        self.text = Text("", line, column)
        self.line = line
        self.column = column


class _Stop(Exception):  # noqa: N818 - control flow: nothing after this place is looked at
    """A problem has been noted, and reading ends."""


def read_xml(data: bytes, source: str, namespace: str, whose: str) -> Element:
    """The root element of `data`; `source` is the file's name in messages.

    Every element has to be of `namespace`, as `whose` files are.

    Raises:
        ProblemsError: it is not XML, or has what is refused.
    """
    reader = _Reader(source, namespace, whose)
    if len(data) > MAX_BYTES:
        said = f"the file has {len(data)} bytes; at most {MAX_BYTES} are read"
        raise ProblemsError([Problem(source, 1, 1, said)])
    try:
        reader.parser.Parse(data, True)  # noqa: FBT003 - expat's parameter has no name
    except _Stop:
        raise ProblemsError(reader.problems) from None
    except expat.ExpatError as error:
        said = f"not XML: {expat.ErrorString(error.code)}"
        raise ProblemsError([Problem(source, error.lineno, error.offset + 1, said)]) from None
    except (LookupError, ValueError):
        # What an unknown or multi-byte encoding in the XML declaration makes of it.
        raise ProblemsError([Problem(source, 1, 1, "not in UTF-8, as XML's default is")]) from None
    if reader.root is None:
        raise ProblemsError([Problem(source, 1, 1, "the file is empty")])
    return reader.root


class _Reader:
    """Builds the tree from expat's events."""

    def __init__(self, source: str, namespace: str, whose: str) -> None:
        self.source = source
        self._namespace = namespace
        self._whose = whose
        self.problems: list[Problem] = []
        self.root: Element | None = None
        self._open: list[Element] = []
        self._texts: list[list[str]] = []
        self._count = 0
        self._comments: list[str] = []
        """Comments whose element is still to come."""
        self._closed: tuple[Element, int] | None = None
        """The element that ended last, and its last line."""
        self.parser: XMLParserType = expat.ParserCreate(namespace_separator=_SEPARATOR)
        self.parser.buffer_text = True
        self.parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        self.parser.XmlDeclHandler = self._declaration
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.EntityDeclHandler = self._entity
        self.parser.CommentHandler = self._comment
        self.parser.ProcessingInstructionHandler = self._instruction

    def _stop(self, message: str) -> NoReturn:
        line, column = self.parser.CurrentLineNumber, self.parser.CurrentColumnNumber + 1
        self.problems.append(Problem(self.source, line, column, message))
        raise _Stop

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            self._stop(f"encoding {escape(encoding, 40)} is not read; convert the file to UTF-8")

    def _doctype(self, *_: object) -> None:
        self._stop("a document type declaration is refused: entities can hide or grow text")

    def _entity(self, *_: object) -> None:
        self._stop("entities are refused")

    def _instruction(self, target: str, _data: str) -> None:
        self._stop(f"processing instructions are refused: {escape(target, 40)}")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        line, column = self.parser.CurrentLineNumber, self.parser.CurrentColumnNumber + 1
        self._count += 1
        if self._count > MAX_ELEMENTS:
            self._stop(f"more than {MAX_ELEMENTS} elements")
        if len(self._open) >= MAX_DEPTH:
            self._stop(f"nested more than {MAX_DEPTH} deep")
        namespace, _, local = name.rpartition(_SEPARATOR)
        if namespace != self._namespace:
            said = f"namespace '{escape(namespace, 80)}'" if namespace else "no namespace"
            wanted = f'xmlns="{self._namespace}"' if self._namespace else "none"
            self._stop(f"element {escape(local, 60)} has {said}; {self._whose} have {wanted}")
        own = {
            key: Text(value, line, column)
            for key, value in attributes.items()
            if not key.startswith(f"{_SCHEMA_INSTANCE}{_SEPARATOR}")
        }
        element = Element(local, own, line, column)
        element.comments, self._comments = self._comments, []
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)
        self._texts.append([])

    def _end(self, _name: str) -> None:
        element = self._open.pop()
        text = "".join(self._texts.pop()).strip()
        element.text = Text(text, element.line, element.column)
        self._closed = element, self.parser.CurrentLineNumber
        self._comments = []

    def _comment(self, text: str) -> None:
        if self._closed is not None and self._closed[1] == self.parser.CurrentLineNumber:
            self._closed[0].comments.append(text)
        else:
            self._comments.append(text)

    def _characters(self, text: str) -> None:
        self._texts[-1].append(text)
