from __future__ import annotations

import msgspec
import pytest

from broker.rpc.admin import Admin
from broker.rpc.admin_filters import FilterAdmin
from broker.rpc.catalogue import METHODS
from broker.rpc.decode import decode_arguments
from broker.rpc.errors import CODES, HTTP_STATUS, RpcError
from broker.rpc.methods import ChannelSelector, LabelSet, Nothing
from broker.rpc.table import Method, Table

LABEL_SET = METHODS["label.set"]


def test_every_method_has_one_handler_in_admin_and_no_handler_is_without_a_method():
    handlers = {name for name in (*vars(Admin), *vars(FilterAdmin)) if not name.startswith("_")}
    assert {method.handler for method in METHODS} == handlers - {"authorize", "turned_away"}


def test_the_methods_that_write_are_these():
    assert {m.name for m in METHODS if m.writes} == {
        *("label.set", "label.rm", "label.export", "label.import", "audit.checkpoint"),
        *("channel.connect", "channel.disconnect", "channel.reset"),
        *("policy.load", "policy.approve", "policy.reject", "policy.withdraw"),
        *("filter.create", "filter.update", "filter.destroy", "filter.attach", "filter.detach"),
    }


def test_a_verb_is_an_object_and_an_action():
    for method in METHODS:
        assert method.verb.partition(".")[0] == method.name.partition(".")[0]


def test_every_code_has_a_status():
    assert set(HTTP_STATUS) == CODES


@pytest.mark.parametrize("names", [["label"] * 2, ["Label"], ["a.b.c"], [""], ["a/b"], ["a\n"]])
def test_a_table_with_a_bad_or_doubled_name_is_refused(names):
    with pytest.raises(ValueError, match="malformed or given twice"):
        Table([msgspec.structs.replace(LABEL_SET, name=name) for name in names])


def test_a_table_finds_its_methods_by_name():
    table = Table([LABEL_SET])
    assert table.find("label.set") is LABEL_SET
    assert table.find("label.get") is None
    assert isinstance(next(iter(table)), Method)


def test_good_arguments_are_read():
    body = b'{"domain": "web1", "label": "web_a"}'
    assert decode_arguments(LABEL_SET, body) == LabelSet(domain="web1", label="web_a")
    body = b'{"class": "vif", "frontend": "3", "device": "0"}'
    assert decode_arguments(METHODS["channel.explain"], body) == ChannelSelector(
        device_class="vif", frontend="3", device="0"
    )


def test_an_empty_body_is_no_arguments():
    assert decode_arguments(METHODS["status"], b"") == Nothing()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"domain": "a", "domain": "b", "label": "c"}', "given twice: 'domain'"),
        (b'{"domain": "a", "label": "c", "x": {"y": 1, "y": 2}}', "given twice: 'y'"),
        (b'{"domain": "a", "label": "b", "force": true}', "unknown field `force`"),
        (b'{"domain": "a", "label": "b", "\x7f\\u001b[2J": 1}', r"unknown field `\x7f\x1b[2J`"),
        (b'{"domain": "a"}', "missing required field `label`"),
        (b'{"domain": 1, "label": "b"}', "Expected `str`, got `int`"),
        (b'{"domain": "", "label": "b"}', "length >= 1"),
        (b'{"domain": "%b", "label": "b"}' % (b"x" * 301), "length <= 300"),
        (b"[]", "Expected `object`"),
        (b"{", "it takes a JSON object of: domain, label"),
        (b'{"domain": NaN, "label": "b"}', "NaN is not JSON"),
        (b'{"domain": "\\ud800", "label": "b"}', "it takes"),
        (b'{"domain": "a\xff", "label": "b"}', "not UTF-8 (byte 13)"),
        (b"[" * 200_000, "nested too deep"),
        (b"9" * 100_000, "it takes"),
        (b'{"domain": "a", "label": "b"} {}', "it takes"),
        (b'\xef\xbb\xbf{"domain": "a", "label": "b"}', "it takes"),
    ],
)
def test_a_body_with_any_doubt_is_refused_and_says_why(body, says):
    with pytest.raises(RpcError) as caught:
        decode_arguments(LABEL_SET, body)
    assert caught.value.code == "bad_request"
    assert says in caught.value.message
    assert len(caught.value.message) < 500
    assert caught.value.message.isascii() and caught.value.message.isprintable()


@pytest.mark.parametrize(
    "wrong",
    [
        {"device": "00"},
        {"device": "0\n"},
        {"device": "../0"},
        {"class": "vif/3"},
        {"class": "vif\n"},
        {"class": ""},
        {"backend": True},
        {"backend": "0"},
    ],
)
def test_a_channel_is_named_canonically(wrong):
    good = {"class": "vif", "frontend": "3", "device": "0"}
    with pytest.raises(RpcError):
        decode_arguments(METHODS["channel.explain"], msgspec.json.encode(good | wrong))
