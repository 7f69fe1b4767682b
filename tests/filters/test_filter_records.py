"""What agents are told of filters: one text for one record, signed, and bounded."""

from __future__ import annotations

import base64
import zlib

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from broker.core.filter_record import (
    CHUNK_BYTES,
    MAX_CHUNKS,
    MAX_PROFILES_BYTES,
    FilterRecord,
    ProfilesHead,
    head_number,
    pack_profiles,
    parse_filter,
    sign_filter,
    sign_head,
    unpack_profiles,
    verify_filter,
    verify_head,
)
from broker.core.record import MAX_SIGNED_BYTES, RecordError, sign_line

KEY = Ed25519PrivateKey.generate()
UUID = "6f7c1c6e-0a3f-4d3e-9d2e-0f1c2d3e4f50"
RECORD = FilterRecord(
    seq=9,
    frontend=3,
    backend=0,
    device_class="vif",
    device="0",
    uuid=UUID,
    nonce="ab" * 16,
    head=8,
    profiles=("clean-traffic", "isolated"),
    variables={"MAC": ("00:16:3e:00:00:05",), "IP": ("10.0.0.5", "10.0.0.0/8"), "E": ()},
)
TEXT = (
    b"filter seq=9 fe=3 be=0 class=vif dev=0 uuid=6f7c1c6e-0a3f-4d3e-9d2e-0f1c2d3e4f50 "
    b"nonce=abababababababababababababababab head=8 profiles=clean-traffic,isolated "
    b"variables=E@+IP@10.0.0.5,10.0.0.0/8+MAC@00:16:3e:00:00:05"
)


def test_a_record_is_one_line():
    signed = sign_filter(RECORD, KEY)
    assert signed.rpartition(b" sig=")[0] == TEXT
    assert verify_filter(signed, KEY.public_key()) == RECORD


def test_a_vif_without_filters_is_told_so():
    bare = msgspec.structs.replace(RECORD, profiles=(), variables={}, uuid=None, nonce=None)
    assert verify_filter(sign_filter(bare, KEY), KEY.public_key()) == bare


def test_only_the_brokers_signature_counts_and_only_of_this_kind_of_line():
    other = Ed25519PrivateKey.generate()
    with pytest.raises(RecordError, match="signature"):
        verify_filter(sign_filter(RECORD, KEY), other.public_key())
    with pytest.raises(RecordError, match="signature"):
        verify_filter(sign_line(TEXT.decode(), b"xpb-decision-v1\n", KEY), KEY.public_key())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"filter seq", b"grant seq"),
        (b"seq=9", b"seq=09"),
        (b"profiles=clean-traffic,isolated", b"profiles=Clean"),
        (b"profiles=clean-traffic,isolated", b"profiles=a," + b",".join([b"b"] * 16)),
        (b"profiles=clean-traffic,isolated", b"profiles=a,,b"),
        (b"E@+IP@", b"IP@1+IP@"),
        (b"E@+IP@10", b"IP@10.0.0.5,10.0.0.0/8+E@+X@10"),
        (b"10.0.0.5,", b"10.0.0.5%20,"),
        (b"variables=E@+", b"variables=e@+"),
        (b" dev=0", b""),
        (b" dev=0", b" dev=0 dev=0"),
        (b"uuid=6f7c", b"uuid=XXXX"),
        (b"nonce=ab", b"nonce=AB"),
    ],
)
def test_any_other_text_is_refused_whoever_signed_it(old, new):
    assert TEXT.count(old) == 1
    signed = sign_line(TEXT.replace(old, new).decode(), b"xpb-filter-v1\n", KEY)
    with pytest.raises(RecordError):
        verify_filter(signed, KEY.public_key())


def test_a_record_that_does_not_fit_is_not_made():
    many = {"IP": tuple(f"10.0.{n}.5" for n in range(250))}
    with pytest.raises(RecordError, match="give networks or ranges"):
        sign_filter(msgspec.structs.replace(RECORD, variables=many), KEY)
    for bad in ({"ip": ("a",)}, {"IP": ("a b",)}, {"IP": ("",)}, {"IP": ("a+b",)}):
        with pytest.raises(RecordError):
            sign_filter(msgspec.structs.replace(RECORD, variables=bad), KEY)


NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True)
VALUES = st.from_regex(r"[A-Za-z0-9.:/-]{1,12}", fullmatch=True)


@given(
    st.dictionaries(NAMES, st.lists(VALUES, max_size=4).map(tuple), max_size=5),
    st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True), max_size=4).map(tuple),
)
def test_what_is_signed_reads_back(variables, profiles):
    record = msgspec.structs.replace(RECORD, variables=variables, profiles=profiles)
    signed = sign_filter(record, KEY)
    assert len(signed) <= MAX_SIGNED_BYTES
    assert verify_filter(signed, KEY.public_key()) == record
    assert parse_filter(signed) == record


@given(st.binary(max_size=200))
def test_no_bytes_but_a_record_are_one(data):
    with pytest.raises(RecordError):
        verify_filter(data, KEY.public_key())
    with pytest.raises(RecordError):
        verify_head(data, KEY.public_key())


TEXTS = {"b.yaml": b"profile: b\n" * 500, "a.yaml": "profile: caf\xe9\n".encode()}


def told(texts):
    digest, size, chunks = pack_profiles(texts)
    return ProfilesHead(seq=4, digest=digest, bytes=size, chunks=len(chunks)), chunks


def test_profiles_are_found_again_by_their_signed_head():
    head, chunks = told(TEXTS)
    signed = sign_head(head, KEY)
    assert verify_head(signed, KEY.public_key()) == head
    assert head_number(signed) == 4
    assert unpack_profiles(head, chunks) == TEXTS
    assert unpack_profiles(head, [*chunks, b"what is left of the one before"]) == TEXTS
    assert pack_profiles(dict(reversed(TEXTS.items())))[0] == head.digest


def test_chunks_of_another_head_are_not_taken():
    head, chunks = told(TEXTS)
    other, others = told({"a.yaml": b"else"})
    for wrong in ([], [b"not base64!"], [base64.b64encode(b"not zlib")], others, [chunks[0][:-16]]):
        with pytest.raises(RecordError):
            unpack_profiles(head, wrong)
    with pytest.raises(RecordError, match="not those"):
        unpack_profiles(msgspec.structs.replace(other, digest=head.digest), others)


def test_what_unpacks_to_more_than_was_signed_is_not_unpacked():
    bomb = base64.b64encode(zlib.compress(bytes(50 << 20)))
    with pytest.raises(RecordError, match="not those"):
        unpack_profiles(msgspec.structs.replace(told(TEXTS)[0], bytes=9), [bomb])


def test_profiles_that_do_not_fit_are_not_told():
    noise = {f"{n}.yaml": bytes((n * k * k) % 89 + 32 for k in range(4000)) for n in range(40)}
    noise |= {"x.yaml": b"".join(b"%d," % (k**5 % 999983) for k in range(20000))}
    with pytest.raises(RecordError, match="can be told to agents"):
        pack_profiles(noise)
    with pytest.raises(RecordError):
        pack_profiles({"a.yaml": b"a" * (MAX_PROFILES_BYTES + 1)})


@pytest.mark.parametrize("change", [{"chunks": MAX_CHUNKS + 1}, {"bytes": MAX_PROFILES_BYTES + 1}])
def test_a_head_of_more_than_there_can_be_is_refused(change):
    head = msgspec.structs.replace(told(TEXTS)[0], **change)
    with pytest.raises(RecordError, match="more profiles than can be"):
        verify_head(sign_head(head, KEY), KEY.public_key())


def test_chunks_fit_into_nodes():
    _, chunks = told({"x.yaml": b"".join(b"%d," % (k**5 % 999983) for k in range(3000))})
    assert len(chunks) > 1
    assert max(map(len, chunks)) == CHUNK_BYTES < 2048
