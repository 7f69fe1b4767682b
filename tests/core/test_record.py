"""Decision records and heartbeats: one text for one record, and nothing else is accepted."""

import base64
import uuid

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from broker.core.record import (
    FIELDS,
    MAX_RECORD_BYTES,
    MAX_SIGNED_BYTES,
    Record,
    RecordError,
    decode_value,
    encode_value,
    inputs_digest,
    parse_record,
    sign_heartbeat,
    sign_record,
    verify_heartbeat,
    verify_record,
)

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)

GRANT = Record(
    verdict="grant",
    seq=7,
    id="0d9f3a52-2b1c-4c8e-9a36-0a5b8f1f2c11",
    frontend=3,
    backend=0,
    device_class="vbd",
    device="51712",
    uuid="56b8d9d0-f417-45de-ab20-17715a9d5aab",
    nonce="00112233445566778899aabbccddeeff",
    inputs="ab" * 32,
    labels=("web_a", "SystemManagement"),
    resource="lun_red",
    policy="sha256:" + "cd" * 32,
    spec="sha256:" + "ef" * 32,
    reason="allow rule etc/policy.yaml:12:5",
)

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.()-]{0,20}", fullmatch=True)
digests = st.binary(min_size=32, max_size=32).map(lambda raw: "sha256:" + raw.hex())
records = st.builds(
    Record,
    verdict=st.sampled_from(["grant", "deny", "pending"]),
    seq=st.integers(0, 10**18),
    id=st.uuids().map(str),
    frontend=st.integers(0, 0x7FEF),
    backend=st.integers(0, 0x7FEF),
    device_class=st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True),
    device=st.integers(0, 2**32 - 1).map(str),
    uuid=st.none() | st.uuids().map(str),
    nonce=st.none() | st.binary(min_size=16, max_size=16).map(bytes.hex),
    inputs=st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex),
    labels=st.tuples(st.none() | names, st.none() | names),
    resource=st.none() | names,
    policy=st.none() | digests,
    spec=st.none() | digests,
    reason=st.text(max_size=3000),
)


def resign(unsigned: bytes) -> bytes:
    """A text signed properly by the broker's key, whatever it says."""
    template = sign_heartbeat(1, KEY)  # only to learn the form of a signature
    encoded = template.partition(b" sig=")[2]
    raw = KEY.sign(b"xpb-decision-v1\n" + unsigned)
    fresh = base64.urlsafe_b64encode(raw).rstrip(b"=")
    assert len(fresh) == len(encoded)
    return unsigned + b" sig=" + fresh


def test_the_text_is_the_one_the_contract_spells():
    text = sign_record(GRANT, KEY).decode()
    unsigned, _, signature = text.rpartition(" sig=")
    assert unsigned == (
        "grant seq=7 id=0d9f3a52-2b1c-4c8e-9a36-0a5b8f1f2c11 fe=3 be=0 class=vbd dev=51712 "
        "uuid=56b8d9d0-f417-45de-ab20-17715a9d5aab nonce=00112233445566778899aabbccddeeff "
        f"inputs={'ab' * 32} labels=web_a,SystemManagement resource=lun_red "
        f"policy=sha256:{'cd' * 32} spec=sha256:{'ef' * 32} "
        "reason=allow%20rule%20etc/policy.yaml:12:5"
    )
    assert len(signature) == 86
    assert [word.partition("=")[0] for word in unsigned.split(" ")[1:]] == list(FIELDS)


@given(records)
def test_a_signed_record_reads_back_and_fits_a_node(record):
    text = sign_record(record, KEY)
    assert len(text) <= MAX_SIGNED_BYTES < MAX_RECORD_BYTES
    read = verify_record(text, KEY.public_key())
    assert msgspec.structs.replace(read, reason="") == msgspec.structs.replace(record, reason="")
    assert record.reason.startswith(read.reason)


@given(records, st.data())
def test_any_changed_byte_is_refused(record, data):
    text = bytearray(sign_record(record, KEY))
    where = data.draw(st.integers(0, len(text) - 1))
    text[where] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RecordError):
        verify_record(bytes(text), KEY.public_key())


@given(records, st.data())
def test_any_truncation_is_refused(record, data):
    text = sign_record(record, KEY)
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(RecordError):
        verify_record(text[:cut], KEY.public_key())


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_a_record_error(garbage):
    with pytest.raises(RecordError):
        verify_record(garbage, KEY.public_key())


def test_another_key_is_refused():
    with pytest.raises(RecordError, match="signature is not good"):
        verify_record(sign_record(GRANT, OTHER_KEY), KEY.public_key())


UNSIGNED = sign_record(GRANT, KEY).rpartition(b" sig=")[0]


@pytest.mark.parametrize(
    ("what", "unsigned"),
    [
        ("a missing field", UNSIGNED.replace(b" resource=lun_red", b"")),
        ("a doubled field", UNSIGNED.replace(b" dev=51712", b" dev=51712 dev=51712")),
        ("an unknown field", UNSIGNED + b" colour=red"),
        ("fields out of order", UNSIGNED.replace(b"fe=3 be=0", b"be=0 fe=3")),
        ("two spaces", UNSIGNED.replace(b" fe=3", b"  fe=3")),
        ("a tab", UNSIGNED.replace(b" fe=3", b"\tfe=3")),
        ("a newline at the end", UNSIGNED + b"\n"),
        ("an unknown verdict", UNSIGNED.replace(b"grant ", b"permit ")),
        ("a verdict in capitals", UNSIGNED.replace(b"grant ", b"GRANT ")),
        ("a sign before a number", UNSIGNED.replace(b"fe=3", b"fe=+3")),
        ("a leading zero", UNSIGNED.replace(b"fe=3", b"fe=03")),
        ("an empty value", UNSIGNED.replace(b"resource=lun_red", b"resource=")),
        ("an absent frontend", UNSIGNED.replace(b"fe=3", b"fe=-")),
        ("an absent device", UNSIGNED.replace(b"dev=51712", b"dev=-")),
        ("a device that is no number", UNSIGNED.replace(b"dev=51712", b"dev=xvda")),
        ("a short nonce", UNSIGNED.replace(b"nonce=0011", b"nonce=00")),
        ("a nonce in capitals", UNSIGNED.replace(b"ccddeeff", b"CCDDEEFF")),
        ("a uuid in capitals", UNSIGNED.replace(b"56b8d9d0", b"56B8D9D0")),
        ("a digest of another form", UNSIGNED.replace(b"policy=sha256:", b"policy=sha1:")),
        ("one label only", UNSIGNED.replace(b"web_a,SystemManagement", b"web_a")),
        ("three labels", UNSIGNED.replace(b"web_a,", b"web_a,web_b,")),
        ("an escape of a plain letter", UNSIGNED.replace(b"lun_red", b"lun%5Fred")),
        ("an escape in lower case", UNSIGNED.replace(b"allow%20", b"allow%2f")),
        ("a half escape", UNSIGNED.replace(b"allow%20", b"allow%2")),
        ("bytes outside ASCII", UNSIGNED.replace(b"allow", b"all\xf6w")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_text_that_is_not_canonical_is_refused_even_when_well_signed(what, unsigned):
    assert unsigned != UNSIGNED, what
    with pytest.raises(RecordError):
        verify_record(resign(unsigned), KEY.public_key())


def test_a_signature_with_padding_or_other_alphabet_is_refused():
    text = sign_record(GRANT, KEY)
    for bad in (text + b"==", text + b"=", text.rpartition(b"=")[0] + b"=" + b"*" * 86):
        with pytest.raises(RecordError):
            verify_record(bad, KEY.public_key())


def test_a_record_signature_is_not_a_heartbeat_signature():
    beat = sign_heartbeat(9, KEY)
    with pytest.raises(RecordError):
        verify_record(beat, KEY.public_key())
    forged = b"9 sig=" + resign(b"9").rpartition(b" sig=")[2]
    with pytest.raises(RecordError, match="signature is not good"):
        verify_heartbeat(forged, KEY.public_key())


def test_a_heartbeat_reads_back():
    assert verify_heartbeat(sign_heartbeat(12345, KEY), KEY.public_key()) == 12345


@pytest.mark.parametrize("text", [b"", b"1", b"-1 sig=x", b"01 sig=x", b"x sig=y", b"1 sig="])
def test_a_malformed_heartbeat_is_refused(text):
    with pytest.raises(RecordError):
        verify_heartbeat(text, KEY.public_key())


@given(st.none() | st.text(min_size=1))
def test_every_value_has_one_encoding(value):
    assert decode_value(encode_value(value)) == value


def test_a_lone_dash_is_not_the_absent_value():
    assert encode_value("-") == "%2D"
    assert decode_value("%2D") == "-"
    assert decode_value("-") is None


@given(st.dictionaries(st.sampled_from(["params", "mode", "mac", "state"]), st.binary(max_size=40)))
def test_inputs_digest_depends_on_every_input_key_and_on_no_other(device):
    digest = inputs_digest(device)
    assert digest == inputs_digest({**device, "state": b"anything"})
    for key in ("params", "mode", "mac", "ip"):
        changed = {**device, key: device.get(key, b"") + b"x"}
        assert inputs_digest(changed) != digest


def test_an_absent_an_empty_and_a_dash_input_differ():
    digests = {inputs_digest({}), inputs_digest({"mac": b""}), inputs_digest({"mac": b"-"})}
    assert len(digests) == 3


def test_a_value_cannot_pretend_to_be_two_inputs():
    assert inputs_digest({"params": b"/a\nmode=w"}) != inputs_digest(
        {"params": b"/a", "mode": b"w"}
    )


def test_an_oversized_record_is_refused_rather_than_cut():
    with pytest.raises(RecordError, match="exceed"):
        sign_record(msgspec.structs.replace(GRANT, resource="r" * 2100), KEY)


def test_ids_are_uuids():
    assert uuid.UUID(parse_record(sign_record(GRANT, KEY)).id)


def test_the_longest_names_leave_room_for_a_record():
    longest = "(" * 128
    record = msgspec.structs.replace(
        GRANT, labels=(longest, longest), resource=longest, device_class="c" * 32, seq=10**18
    )
    assert verify_record(sign_record(record, KEY), KEY.public_key()).labels == (longest, longest)
