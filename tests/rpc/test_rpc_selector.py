from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.rpc.selector import Selector, parse_selector

UUID = "6f7c1c6e-0a3f-4d3e-9d2e-0f1c2d3e4f50"


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("3", Selector("domid", "3")),
        ("domid:3", Selector("domid", "3")),
        (UUID.upper(), Selector("uuid", UUID)),
        (f"uuid:{UUID}", Selector("uuid", UUID)),
        ("web1", Selector("name", "web1")),
        ("name:3", Selector("name", "3")),
        ("name:uuid:x", Selector("name", "uuid:x")),
        ("a:b", Selector("name", "a:b")),
        ("-1", Selector("name", "-1")),
    ],
)
def test_a_selector_is_a_domid_a_uuid_or_a_name(text, selector):
    assert parse_selector(text) == selector
    assert selector.domid == (3 if selector.kind == "domid" else None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("32752", "not a domid"),
        ("007", "not a domid"),
        ("domid:x", "not a domid"),
        ("domid:", "not a domid"),
        ("uuid:x", "not a uuid"),
        ("", "name"),
        ("name:", "name"),
        ("a\nb", "name"),
        ("a\x1b[2J", "name"),
        ("x" * 256, "name"),
    ],
)
def test_what_can_be_none_of_them_is_refused(text, says):
    with pytest.raises(ValueError, match=says) as caught:
        parse_selector(text)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@given(st.text(max_size=300))
def test_a_selector_parses_to_what_parses_to_itself(text):
    try:
        found = parse_selector(text)
    except ValueError:
        return
    assert parse_selector(f"{found.kind}:{found.value}") == found
