"""Untrusted text, shown."""

from hypothesis import given
from hypothesis import strategies as st

from broker.text.escape import escape, printable, readable


def test_printable_ascii_stays_and_all_else_is_hexadecimal():
    assert escape("plain text!") == "plain text!"
    assert escape("\x1b[2J\n\u202e") == "\\x1b[2J\\x0a\\xe2\\x80\\xae"
    assert escape(b"\xff\\") == "\\xff\\x5c"


def test_long_values_are_cut_and_say_so():
    assert escape(b"a" * 5, 3) == "aaa...(5 bytes)"


@given(st.binary() | st.text(alphabet=st.characters()), st.integers(0, 50))
def test_whatever_it_is_the_result_is_printable_and_bounded(value, limit):
    shown = escape(value, limit)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 4 * limit + 30


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_two_values_never_look_alike(one, other):
    assert (escape(one) == escape(other)) == (one == other)


@given(st.binary() | st.text(alphabet=st.characters()), st.integers(0, 50))
def test_what_is_escaped_already_is_printed_as_it_is(value, limit):
    shown = escape(value, limit)
    assert printable(shown, 300) == shown
    assert printable(value, limit).replace("\\", "") == shown.replace("\\x5c", "").replace("\\", "")


def test_readable_text_stays_as_it_is_but_for_what_is_no_utf8():
    assert readable("str\x1bay \u202e\\".encode()) == "str\x1bay \u202e\\"
    assert readable(b"a\xffb") == "a\\xffb"
    assert readable("a\udcffb") == "a\\xffb"


@given(st.binary() | st.text(alphabet=st.characters()))
def test_readable_text_is_valid_unicode(value):
    readable(value).encode("utf-8")
