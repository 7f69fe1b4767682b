from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.xenstore import wire

words = st.integers(0, 0xFFFFFFFF)
messages = st.tuples(words, words, words, st.binary(max_size=300))


def chunks(data, cuts):
    """`data` split at the (sorted) positions of `cuts`."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def decode(decoder, pieces):
    """The messages decoded before a malformed frame, and whether there was one."""
    got = []
    try:
        for piece in pieces:
            for message in decoder.receive_data(piece):
                got.append(message)  # noqa: PERF402 - keeps those before the error
    except wire.FrameError:
        return got, True
    return got, False


@given(st.lists(messages, max_size=8), st.lists(st.integers(0, 5000), max_size=20))
def test_messages_survive_any_split(sent, cuts):
    stream = b"".join(wire.encode(*message) for message in sent)
    decoder = wire.Decoder(300)
    assert decode(decoder, chunks(stream, cuts)) == (sent, False)
    assert not decoder._partial


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=10))
def test_arbitrary_bytes_decode_alike_however_split(data, cuts):
    assert decode(wire.Decoder(64), [data]) == decode(wire.Decoder(64), chunks(data, cuts))


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=40))
def test_a_decoder_holds_one_frame_at_most(pieces):
    decoder = wire.Decoder(64)
    for piece in pieces:
        _, failed = decode(decoder, [piece])
        assert len(decoder._partial) < wire.HEADER_BYTES + 64
        if failed:
            break


def test_too_long_a_payload_is_refused_at_its_header_and_for_ever():
    decoder = wire.Decoder(100)
    good = wire.encode(wire.READ, 1, 0, b"ok")
    bad = wire.encode(wire.READ, 2, 0, bytes(101))[:16]
    assert decode(decoder, [good + bad]) == ([(wire.READ, 1, 0, b"ok")], True)
    with pytest.raises(wire.FrameError, match="after a malformed frame"):
        list(decoder.receive_data(good))


def test_operation_numbers_are_those_of_the_public_header():
    """xs_wire.h counts from XS_CONTROL 0; 20 is unused."""
    assert (wire.CONTROL, wire.READ, wire.WRITE, wire.WATCH_EVENT) == (0, 2, 11, 15)
    assert (wire.ERROR, wire.SET_TARGET, wire.RESET_WATCHES, wire.DIRECTORY_PART) == (
        16,
        19,
        21,
        22,
    )


def test_a_payload_is_never_empty():
    assert wire.join_strings([]) == b"\0"
    assert wire.join_strings([b"a", b""]) == b"a\0\0"


@given(st.lists(st.binary(max_size=20).filter(lambda it: b"\0" not in it), min_size=1))
def test_strings_survive_a_payload(strings):
    assert wire.split_strings(wire.join_strings(strings)) == strings


def test_a_last_string_may_lack_its_terminator():
    assert wire.split_strings(b"a\0b") == [b"a", b"b"]
    assert wire.split_strings(b"") == []


@pytest.mark.parametrize(
    "path", ["/", "/a", "a", "/local/domain/0/@x-_", "/" + "x" * 3071, "y" * 2048]
)
def test_paths_that_are_good(path):
    assert wire.check_path(path) == path.encode()


@pytest.mark.parametrize(
    "path",
    ["", "//", "/a/", "/a//b", "/a b", "/a\n", "/a\0", "/\xe9", "/" + "x" * 3072, "y" * 2049],
)
def test_paths_that_are_not(path):
    with pytest.raises(ValueError, match="path"):
        wire.check_path(path)


def test_special_names_to_watch():
    assert wire.check_watch_path("@releaseDomain") == b"@releaseDomain"
    with pytest.raises(ValueError, match="not a special watch"):
        wire.check_watch_path("@other")


@pytest.mark.parametrize("permissions", [(), ("n",), ("x0",), ("n0\n",), ("n00",), ("n-1",)])
def test_permissions_that_are_malformed(permissions):
    with pytest.raises(ValueError, match="permission"):
        wire.check_permissions(permissions)
