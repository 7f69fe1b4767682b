"""YAML with marks: strict, everything at once, and never another exception."""

# ruff: noqa: E501 - tables, a case a line

from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.text.marked_yaml import Marked, Text, load_struct
from broker.text.problems import ProblemsError
from broker.text.yaml_tree import MAX_BYTES, MAX_DEPTH


class Inner(Marked):
    number: int
    names: Text | tuple[Text, ...] = ()
    texts: dict[str, str] | None = msgspec.field(name="from", default=None)
    inner: tuple["Inner", ...] = ()


class Outer(msgspec.Struct):
    a: Annotated[int, msgspec.Meta(ge=1)]
    b: list[Inner] = []
    c: Literal["q", "w"] = "q"
    d: bool = False
    e: float = 0.0
    f: object = None
    g: str = ""


def problems(text):
    with pytest.raises(ProblemsError) as caught:
        load_struct(text if isinstance(text, bytes) else text.encode(), "F", Outer)
    return [str(problem) for problem in caught.value.problems]


def test_a_good_file_becomes_the_struct_with_marks():
    text = "a: 1\nb:\n  - {number: -3, names: [no, 012], from: {1:30: 1.4}}\nd: true\ne: 2.5\nf: {x: [y]}\n"
    outer = load_struct(text.encode(), "F", Outer)
    inner = outer.b[0]
    assert (outer.a, outer.c, outer.d, outer.e, outer.f) == (1, "q", True, 2.5, {"x": ["y"]})
    assert (inner.line, inner.column, inner.number) == (3, 5, -3)
    assert inner.texts == {"1:30": "1.4"}
    assert [(name, name.line, name.column) for name in inner.names] == [
        ("no", 3, 26),
        ("012", 3, 30),
    ]


def test_a_text_that_is_quoted_may_be_empty():
    assert load_struct(b'a: 1\ng: ""\n', "F", Outer).g == ""


REFUSED = [
    ("", ["F:1:1: the file is empty"]),
    ("# nothing\n", ["F:1:1: the file is empty"]),
    ("a: 0", ["F:1:4: Expected `int` >= 1"]),
    ("a: 012", ["F:1:4: expected an integer in decimal, not '012'"]),
    ("a: 1_0", ["F:1:4: expected an integer in decimal, not '1_0'"]),
    ("a: " + "9" * 5000, [f"F:1:4: expected an integer in decimal, not '{'9' * 60}...(5000 bytes)'"]),
    ("a: 1\nd: no", ["F:2:4: expected true or false, not 'no'"]),
    ("a: 1\ne: 1e5", ["F:2:4: expected a decimal number, not '1e5'"]),
    ("a: 1\nc: x", ["F:2:4: expected q or w, not 'x'"]),
    ("a: 1\ng:", ['F:2:3: expected a text, found nothing (an empty text is written "")']),
    ("a: 1\ng: []", ["F:2:4: expected a text, not a list"]),
    ("a: 1\nb: {}", ["F:2:4: expected a list, not a mapping"]),
    ("a: 1\nb: [x]", ["F:2:5: expected a mapping, not a text"]),
    ("a: 1\nb: [{number: 1, names: {}}]", ["F:2:24: expected a text or a list, not a mapping"]),
    ("a: 1\nb: [{number: 1, from: []}]", ["F:2:23: expected a mapping, not a list"]),
    ("a: 1\nb: [{}]", ["F:2:5: 'number' is missing"]),
    ("a: 1\nbb: 1", ["F:2:1: unknown key 'bb'; did you mean 'b'?"]),
    ("a: 1\nzzz: 1", ["F:2:1: unknown key 'zzz'; known here: a, b, c, d, e, f, g"]),
    ("a: 1\nline: 1", ["F:2:1: unknown key 'line'; known here: a, b, c, d, e, f, g"]),
    ("a: 1\nb: [{number: 1, line: 2}]", ["F:2:17: unknown key 'line'; did you mean 'inner'?"]),
    ("a: 1\na: 1", ["F:2:1: key 'a' was given already, on line 1"]),
    ("a: 1\nf: {x: 1, x: 2}", ["F:2:11: key 'x' was given already, on line 2"]),
    ("a: &x 1", ["F:1:4: anchors are refused: &x"]),
    ("a: 1\nf: &x {}", ["F:2:4: anchors are refused: &x"]),
    ("a: 1\nf: *x", ["F:2:4: aliases are refused: write the value out"]),
    ("a: !!int 1", ["F:1:4: tags are refused: tag:yaml.org,2002:int"]),
    ("a: ! 1", ["F:1:4: tags are refused: !"]),
    ("a: 1\nf: !!map {}", ["F:2:4: tags are refused: tag:yaml.org,2002:map"]),
    ("a: 1\n<<: {b: []}", ["F:2:1: merge keys are refused: write the keys out"]),
    ("a: 1\n? [x]\n: 1", ["F:2:3: a key must be a plain word, not a list or mapping"]),
    ("a: 1\n---\na: 1", ["F:2:1: a second document; a file holds one"]),
    ("%YAML 1.1\n---\na: 1", ["F:1:1: YAML directives are refused"]),
    ("%TAG ! tag:x,2000:\n---\na: 1", ["F:1:1: YAML directives are refused"]),
    ("a: [1", ["F:2:1: not YAML: did not find expected ',' or ']'"]),
    ("a: 1\nb: \0", ["F:2:4: not YAML: control characters are not allowed"]),
    (b"a: 1\ng: \xff", ["F:2:4: byte 0xff is not UTF-8"]),
    ("- 1", ["F:1:1: expected a mapping, not a list"]),
    ("[" * (MAX_DEPTH + 1), [f"F:1:{MAX_DEPTH + 1}: nested more than {MAX_DEPTH} deep"]),
    ("[" * 100_000, [f"F:1:{MAX_DEPTH + 1}: nested more than {MAX_DEPTH} deep"]),
    (b"#" * (MAX_BYTES + 1), [f"F:1:1: the file has {MAX_BYTES + 1} bytes; at most {MAX_BYTES} are read"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), REFUSED, ids=lambda it: repr(it)[:40])
def test_what_is_refused_and_where(text, wanted):
    assert problems(text) == wanted


def test_everything_is_said_at_once_in_the_order_of_the_file():
    text = "d: no\na: x\nq: 1\nb:\n  - {number: z, names: *n}\n  - {}\n"
    assert [said.split(": ")[0] for said in problems(text)] == [
        "F:1:4", "F:2:4", "F:3:1", "F:5:14", "F:5:24", "F:6:5",
    ]  # fmt: skip


def test_an_alias_bomb_is_refused_without_being_built():
    bomb = "a: 1\nf:\n" + "".join(
        f"  - &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]\n" for level in range(1, 10)
    )
    assert len(problems(bomb)) == 9 + 81


def test_untrusted_text_is_escaped_in_messages():
    assert problems('a: 1\n"\\e[2J\\x85": 1')[0].startswith(
        "F:2:1: unknown key '\\x1b[2J\\xc2\\x85'"
    )


def test_an_annotation_it_does_not_know_is_a_fault_of_the_program():
    class Odd(msgspec.Struct):
        x: complex

    with pytest.raises(TypeError):
        load_struct(b"x: 1", "F", Odd)


@settings(max_examples=500, deadline=None)
@given(
    st.binary(max_size=200) | st.text(max_size=200).map(lambda it: it.encode("utf-8", "replace"))
)
def test_arbitrary_bytes_are_refused_and_nothing_else(data):
    try:
        load_struct(data, "F", Outer)
    except ProblemsError as error:
        assert error.problems
        assert all(it.line >= 1 and it.column >= 1 for it in error.problems)


SNIPPETS = ("a: 1\n", "b:\n", "  - number: 2\n", "    inner: [{number: 3}]\n", "? ", "- ", "{", "}",
            "[", "]", "&x ", "*x", "!!str ", "|\n", ">-\n", "'", '"', "\\u0000", "\\ud800", "---\n",
            "...\n", "%YAML 1.2\n", "<<: ", "\t", "\r\n", "#", "\ufeff", "\x85", "\u2028", ",", ": ",
            "c: q\n", "f: ", "\x7f", "é")  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(SNIPPETS), max_size=20))
def test_pieces_of_yaml_are_read_or_refused_and_nothing_else(pieces):
    try:
        load_struct("".join(pieces).encode(), "F", Outer)
    except ProblemsError as error:
        assert error.problems
