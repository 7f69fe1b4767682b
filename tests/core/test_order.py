"""Orders and their results: one canonical text each, and nothing else is read."""

from __future__ import annotations

import uuid

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from broker.core.order import (
    DETAILS,
    MAX_REASON,
    Order,
    Result,
    encode_result,
    parse_result,
    sign_order,
    verify_order,
)
from broker.core.record import MAX_SIGNED_BYTES, RecordError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PUBLIC = KEY.public_key()
UUID = "56b8d9d0-f417-45de-ab20-17715a9d5aab"
ID = "11111111-2222-4333-8444-555555555555"
CONNECT = Order(
    kind="connect",
    seq=9,
    id=ID,
    until=412,
    frontend=3,
    uuid=UUID,
    backend=0,
    device_class="vbd",
    device="51728",
    details={"params": "/dev/vg/a disk", "mode": "r"},
    reason="alice asked",
)
RESET = msgspec.structs.replace(CONNECT, kind="reset", details={})
DESTROY = msgspec.structs.replace(
    RESET, kind="destroy", backend=None, device_class=None, device=None
)

numbers = st.integers(0, 2**60)
words = st.text(st.characters(codec="utf-8"), max_size=40)
uuids = st.uuids().map(str)


@st.composite
def orders(draw):
    kind = draw(st.sampled_from(["connect", "disconnect", "reset", "destroy"]))
    about = {"backend": None, "device_class": None, "device": None}
    if kind != "destroy":
        about = {
            "backend": draw(st.integers(0, 0x7FEF)),
            "device_class": draw(st.sampled_from(["vif", "vbd", "9pfs"])),
            "device": str(draw(st.integers(0, 2**31))),
        }
    details = {}
    if kind == "connect":
        chosen = draw(st.lists(st.sampled_from(DETAILS), unique=True))
        details = {name: draw(words.filter(bool)) for name in chosen}
    return Order(
        kind=kind,
        seq=draw(numbers),
        id=draw(uuids),
        until=draw(numbers),
        frontend=draw(st.integers(0, 0x7FEF)),
        uuid=draw(uuids),
        details=details,
        force=kind == "disconnect" and draw(st.booleans()),
        reason=draw(words),
        **about,
    )


@given(orders())
def test_an_order_is_read_as_it_was_signed(order):
    assert verify_order(sign_order(order, KEY), PUBLIC) == order


@given(orders(), st.data())
def test_no_other_text_is_the_same_order(order, data):
    text = sign_order(order, KEY)
    at = data.draw(st.integers(0, len(text) - 1))
    byte = data.draw(st.integers(0, 255))
    mutated = text[:at] + bytes([byte]) + text[at + 1 :]
    if mutated != text:
        with pytest.raises(RecordError):
            verify_order(mutated, PUBLIC)


@given(st.binary(max_size=300))
def test_whatever_else_is_in_the_node_is_refused(text):
    with pytest.raises(RecordError):
        verify_order(text, PUBLIC)
    with pytest.raises(RecordError):
        parse_result(text)


def test_only_the_brokers_key_orders():
    with pytest.raises(RecordError, match="signature"):
        verify_order(sign_order(CONNECT, OTHER), PUBLIC)


@pytest.mark.parametrize(
    ("order", "changes"),
    [
        (DESTROY, {"device": "0"}),
        (DESTROY, {"device_class": "vif"}),
        (DESTROY, {"backend": 0}),
        (RESET, {"backend": None}),
        (RESET, {"device_class": None}),
        (RESET, {"device_class": ""}),
        (RESET, {"device": None}),
        (RESET, {"details": {"params": "/dev/vg/a"}}),
        (RESET, {"force": True}),
        (CONNECT, {"force": True}),
        (CONNECT, {"details": {"script": "/tmp/x"}}),
        (CONNECT, {"details": {"params": ""}}),
    ],
    ids=str,
)
def test_what_an_order_of_its_kind_cannot_say_is_neither_signed_nor_read(order, changes):
    with pytest.raises(RecordError):
        sign_order(msgspec.structs.replace(order, **changes), KEY)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b" force=-", b" force=0"),
        (b" force=-", b""),
        (b" seq=9", b" seq=09"),
        (b" seq=9", b" seq=-"),
        (b" seq=9", b" seq=9 seq=9"),
        (b"connect ", b"Connect "),
        (b"connect ", b"grant "),
        (b" mode=r", b" mode=%72"),
        (b" uuid=" + UUID.encode(), b" uuid=-"),
        (b" reason=", b"  reason="),
    ],
    ids=str,
)
def test_there_is_one_text_only(old, new):
    text = sign_order(CONNECT, KEY)
    assert old in text
    with pytest.raises(RecordError):
        verify_order(text.replace(old, new, 1), PUBLIC)


def test_an_order_fits_into_a_node_or_is_none():
    long = msgspec.structs.replace(CONNECT, details={"params": "/" + "x" * 1800})
    with pytest.raises(RecordError, match="exceeds"):
        sign_order(long, KEY)
    longest = msgspec.structs.replace(CONNECT, reason="é" * 1000, details={"params": "/dev/a"})
    with pytest.raises(RecordError):
        sign_order(longest, KEY)
    fits = msgspec.structs.replace(CONNECT, reason="e" * 1000)
    text = sign_order(fits, KEY)
    assert len(text) <= MAX_SIGNED_BYTES
    assert verify_order(text, PUBLIC).reason == "e" * MAX_REASON


@given(st.booleans(), numbers, uuids, words)
def test_a_result_is_read_as_it_was_written(ok, seq, its_id, reason):
    result = Result(ok=ok, seq=seq, id=its_id, reason=reason)
    assert parse_result(encode_result(result)) == result


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"ok",
        f"done seq=1 id={ID} reason=-".encode(),
        f"ok seq=x id={ID} reason=-".encode(),
        b"ok seq=1 id=1 reason=-",
        f"ok seq=1 id={ID} reason=a b".encode(),
        f"ok seq=1 id={ID} reason=- more=1".encode(),
        f"ok seq=1 id={ID} reason=".encode() + b"a" * 2000,
        f"ok id={ID} seq=1 reason=-".encode(),
    ],
    ids=str,
)
def test_what_is_no_result_is_refused(text):
    with pytest.raises(RecordError):
        parse_result(text)


def test_ids_are_uuids():
    with pytest.raises(RecordError):
        verify_order(sign_order(msgspec.structs.replace(CONNECT, id="1"), KEY), PUBLIC)
    assert str(uuid.UUID(ID)) == ID
