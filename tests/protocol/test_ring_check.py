"""What is wrong with a `ring:` section is said with its place; expressions are read as written."""

# ruff: noqa: E501 - tables, a case a line

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol import ring_expression
from broker.protocol.ring_check import read_rings
from broker.protocol.ring_expression import ExpressionError, as_c, parse, reckoner, written
from broker.protocol.ring_form import RingForm
from broker.text.marked_yaml import load_struct
from broker.text.problems import ProblemsError

GOOD = """\
abis: [x86_64-abi, x86_32-abi]
given:
  most: {key: backend/most, min: 1, max: 9}
rings:
  io:
    slots: 8
    in-flight: by-id
    requests:
      size: [32, 28]
      places:
        start:
          select: {type: u8, at: 0}
          messages:
            ask:
              values: [1]
              fields:
                kind: {type: u8, at: 0}
                many: {type: u8, at: 1, min: 1, max: 4}
                id: {type: u32, at: [4, 2]}
              rules:
                few: many <= most
              lists:
                part:
                  at: [8, 6]
                  item: 4
                  count: many
                  most: 4
                  fields: {page: {type: u32, at: 0, min: 1}}
                  distinct: [page]
                  sums: {pages: page}
                  whole: {small: pages <= 99}
                far:
                  item: 2
                  count: many
                  fields: {value: {type: u16, at: 0}}
              id: id
              remember: kind
              keep: {seen: many}
              next: {start: kind & 2}
    responses:
      size: 8
      places:
        any:
          messages:
            told:
              fields:
                id: {type: u32, at: 0}
                status: {type: s16, at: 4, one-of: [0, -1]}
              id: id
              rules: {same: asked == 1}
"""


def problems(text):
    """The tables of `text`, and what is wrong with it."""
    try:
        form = load_struct(text.encode(), "F", RingForm)
    except ProblemsError as error:
        return [str(one) for one in error.problems]
    return [str(one) for one in sorted(read_rings(form, "F")[1])]


def test_a_good_section_has_no_problems():
    assert problems(GOOD) == []


CASES = [
    ("abis: [x86_64-abi, x86_32-abi]", "abis: []", "F:1:1: 'abis' has 1 to 4 names"),
    ("x86_32-abi]", "X]", "F:1:20: an ABI is named as the key 'protocol' says it, like x86_64-abi"),
    ("x86_32-abi]", "x86-64-abi]", "F:1:20: 'x86-64-abi' is there already"),
    ("backend/most", "'backend most'", "F:3:15: 'key' is a path like backend/sector-size"),
    ("min: 1, max: 9", "min: 10, max: 9", "F:3:9: 'min' and 'max' of what is given: 0 <= min <= max"),
    ("  most: {", "  and: {", "F:3:3: 'and' is no name for a value, like nr_segments"),
    ("  io:", "  I/O:", "F:5:3: a ring's name is one word, and not given, abi or rule"),
    ("  io:", "  i-o:", "F:5:3: a ring's name is one word, and not given, abi or rule"),
    ("  io:", "  given:", "F:5:3: a ring's name is one word, and not given, abi or rule"),
    ("slots: 8", "slots: 9", "F:6:5: 'slots' is a power of two, at most 4096"),
    ("in-flight: by-id", "in-flight: by-luck", "F:7:16: expected by-id or in-order, not 'by-luck'"),
    ("size: [32, 28]", "size: [32]", "F:9:7: a list of bytes has one for each of 'abis', so 2"),
    ("size: 8", "size: 9999", "F:41:7: 'size' is from 1 to 4096 bytes"),
    ("select: {type: u8, at: 0}", "select: {type: u8, at: 40}", "F:12:19: does not lie within the 32 bytes"),
    ("          select: {type: u8, at: 0}\n", "", "F:14:15: a message has 'values' where its place has 'select'"),
    ("values: [1]", "values: [1, 1]", "F:15:15: value 1 means another message already"),
    ("values: [1]", "values: [300]", "F:15:15: 300 does not fit: the field holds 0 to 255"),
    ("              values: [1]\n", "", "F:15:15: a message has 'values' where its place has 'select'"),
    ("            ask:", "            told:", "F:45:13: 'told' is the name of something else on this ring"),
    ("        start:", "        st_art:", "F:11:9: 'st_art' is no name like read-write"),
    ("            ask:", "            request:", "F:14:13: 'request' is the name of something else on this ring"),
    ("kind: {type: u8, at: 0}", "kind: {type: u16, at: 0}", "F:18:23: lies over the field 'kind'"),
    ("min: 1, max: 4}", "min: 5, max: 4}", "F:18:23: 'min' is above 'max'"),
    ("min: 1, max: 4}", "min: 0, max: 4}", "F:18:23: says nothing: the field holds 0 to 255 anyway"),
    ("min: 1, max: 4}", "min: 1, max: 255}", "F:18:23: says nothing: the field holds 0 to 255 anyway"),
    ("min: 1, max: 4}", "bits: 256}", "F:18:23: 256 does not fit: the field holds 0 to 255"),
    ("min: 1, max: 4}", "one-of: []}", "F:18:23: 'one-of' has 1 to 64 numbers"),
    ("one-of: [0, -1]", "bits: 3", "F:48:25: 'bits' is for numbers without a sign"),
    ("many <= most", "many <= mots", "F:21:22: nothing here is called 'mots'"),
    ("many <= most", "many <= ", "F:21:22: something is missing at the end"),
    ("many <= most", "1 < many < 3", "F:21:22: comparisons cannot be chained: use 'and'"),
    ("many <= most", "8 / many", "F:21:22: divide by a number, or by what is given with 'min' above 0"),
    ("many <= most", "8 % 0", "F:21:22: divide by a number, or by what is given with 'min' above 0"),
    ("many <= most", "asked == 1", "F:21:22: nothing here is called 'asked'"),
    ("                few:", "                few_:", "F:21:17: 'few_' is no name like read-write"),
    ("at: [8, 6]", "at: [20, 6]", "F:24:19: does not lie within the 32 bytes"),
    ("at: [8, 6]", "at: [6, 6]", "F:24:19: lies over the field 'id'"),
    ("item: 4", "item: 0", "F:24:19: 'item' is from 1 to 64 bytes"),
    ("                  most: 4\n", "", "F:24:19: a list in the message has 'most', 1 to 512"),
    ("distinct: [page]", "distinct: [pages]", "F:29:30: the items have no unsigned field 'pages'"),
    ("sums: {pages: page}", "sums: {many: page}", "F:30:26: 'many' stands for something else already"),
    ("                part:", "                many:", "F:23:17: 'many' is a field already"),
    ("{page: {type: u32, at: 0, min: 1}}", "{page: {type: u32, at: 2, min: 1}}", "F:28:34: does not lie within the 4 bytes"),
    ("{page: {type: u32", "{many: {type: u32", "F:28:28: 'many' stands for something else already"),
    ("                  item: 2\n", "                  item: 2\n                  most: 4\n", "F:33:19: a list in granted pages has neither 'most' nor 'distinct'"),
    ("              id: id\n              remember", "              id: far\n              remember", "F:36:19: there is no field 'far' that could be an id"),
    ("next: {start: kind & 2}", "next: {stop: kind & 2}", "F:39:22: there is no place 'stop' here"),
    ("keep: {seen: many}", "keep: {most: many}", "F:38:22: 'most' stands for something else already"),
    ("              rules: {same", "              remember: id\n              rules: {same", "F:50:25: 'remember' belongs to a request"),
    ("rules: {same: asked == 1}", "lists: {all: {item: 1, count: '2', fields: {}}}", "F:46:15: a list in granted pages belongs to a request"),
    ("            told:", "            told: {fields: {}}\n            tell:", "F:44:11: a place without 'select' has one message; with it one or more"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "wanted"), CASES)
def test_what_is_wrong_is_said_with_its_place(old, new, wanted):
    assert GOOD.count(old) == 1
    assert wanted in problems(GOOD.replace(old, new))


def test_two_lists_in_granted_pages_are_one_too_many():
    far = GOOD[GOOD.index("                far:") : GOOD.index("              id: id\n")]
    text = GOOD.replace(far, far + far.replace("far:", "further:").replace("value:", "worth:"))
    assert "F:36:17: the list in granted pages is the last one" in problems(text)


def test_rules_whose_names_come_to_the_same_in_c_are_refused():
    text = GOOD.replace("few: many <= most", "few: many <= most\n                id: id > 0")
    assert problems(text) == []
    text = GOOD.replace("                part:", "                a-b:").replace(
        "whole: {small:", "rules: {min: page > 0}\n                  whole: {small:"
    )
    text = text.replace(
        "                kind: {type: u8, at: 0}",
        "                kind: {type: u8, at: 0}\n                a_b: {type: u8, at: 24, min: 1}",
    )
    assert problems(text) == ["F:1:1: two rules are called 'io.ask.a-b.min', or nearly so"]


READ = [
    ("1 + 2 * 3", 7),
    ("(1 + 2) * 3", 9),
    ("9 - 2 - 3", 4),
    ("2 - 3", 0),
    ("100 / 7 / 2", 7),
    ("7 % 4 * 2", 6),
    ("6 & 3 == 2", 1),
    ("6 & 1 + 1", 2),
    ("1 < 2 and 2 < 1 or 1 == 1", 1),
    ("1 == 1 or 1 == 1 and 1 == 2", 1),
    ("5 and 0", 0),
    ("0 or 7", 1),
    ("1 != 1", 0),
    ("3 >= 3", 1),
    ("3 > 3", 0),
    ("999999999999999999 * 999999999999999999", 2**64 - 1),
]


@pytest.mark.parametrize(("text", "wanted"), READ)
def test_expressions_mean_what_is_written(text, wanted):
    assert int(reckoner(parse(text))({})) == wanted


@pytest.mark.parametrize(
    "text",
    ["", "1 +", "+ 1", "(1", "1)", "1 2", "a b", "A", "1 ? 2", "1 = 1", "or 1", "1" * 19, "a*/b",
     "1 + " * 60 + "1", "(" * 30 + "1" + ")" * 30, "1 == 2 == 3", "\x00", "1 <= > 2", "é"],
)  # fmt: skip
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ExpressionError):
        parse(text)


expressions = st.recursive(
    st.one_of(
        st.builds(ring_expression.Number, st.integers(0, 10**17)),
        st.builds(ring_expression.Name, st.sampled_from(["a", "b", "long_name"])),
    ),
    lambda inner: st.builds(
        ring_expression.Binary,
        st.sampled_from(["or", "and", "<", "<=", ">", ">=", "==", "!=", "&", "+", "-", "*"]),
        inner,
        inner,
    ),
    max_leaves=8,
)
numbers = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1))


@given(expressions, numbers, numbers, numbers)
def test_what_is_written_is_read_as_the_same_and_stays_within_64_bits(tree, a, b, c):
    known = {"a": a, "b": b, "long_name": c}
    value = int(reckoner(tree)(known))
    assert 0 <= value < 2**64
    text = written(tree)
    assert "*/" not in text
    if len(text) <= 200:
        assert int(reckoner(parse(text))(known)) == value


def test_an_expression_in_c_uses_its_functions():
    tree = parse("a + 1 <= b and c")
    assert as_c(tree, {"a": "v_a", "b": "given->b", "c": "s_c"}) == (
        "(uint64_t)(xpb_le(xpb_add(v_a, UINT64_C(1)), given->b) != 0 && s_c != 0)"
    )


@given(st.text(max_size=60))
def test_no_text_makes_the_reader_fail_otherwise(text):
    try:
        parse(text)
    except ExpressionError as error:
        assert str(error).isascii()
