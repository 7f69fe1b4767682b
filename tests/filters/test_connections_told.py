"""What a frame is to the connections of a vif, by the plain reading."""

from __future__ import annotations

import pytest
from filter_frames_by_hand import ether, ipv4, ipv6, tcp, udp
from hypothesis import example, given
from hypothesis import strategies as st

from broker.filters.connections import connection_of
from broker.filters.fields import CT_STATES
from broker.filters.frame import Frame


@given(st.binary(max_size=120), st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x08\x06", b""]))
@example(b"", b"\x08\x00")
def test_any_bytes_have_a_state(payload, ethertype):
    found = connection_of(Frame(bytes(12) + ethertype + payload))
    assert set(found.states) <= set(CT_STATES)
    assert (found.answers is None) == (len(found.states) == 1)


def states(payload, ethertype=0x0800):
    return connection_of(Frame(ether(payload, ethertype))).states


@pytest.mark.parametrize(
    ("frame", "wanted"),
    [
        (ipv4(udp(), 17), ("new", "established")),
        (ipv4(udp(), 17, more=True), ("untracked",)),
        (ipv4(b"\x08\0" + bytes(6), 1), ("new",)),
        (ipv4(b"\x00\0" + bytes(6), 1), ("invalid", "established")),
        (ipv4(b"\x05\0" + bytes(6), 1), ("untracked",)),
        (ipv4(b"\x03\0" + bytes(6), 1), ("invalid",)),
        (ipv4(b"\x03\0" + bytes(6) + ipv4(udp(), 17), 1), ("invalid", "related")),
        (ipv4(bytes(20), 47), ("untracked",)),
    ],
)
def test_what_a_frame_may_be(frame, wanted):
    assert states(frame) == wanted


def test_tcp_is_told_by_its_flags():
    assert len(states(ipv4(tcp(), 6))) in (1, 2)
    assert states(ipv6(udp(), 17), 0x86DD) == ("new", "established")
    for flags, wanted in (
        (0x02, ("new",)), (0xC2, ("new",)), (0x10, ("new", "established")),
        (0x18, ("new", "established")), (0x12, ("invalid", "established")),
        (0x04, ("invalid", "established")), (0x11, ("invalid", "established")),
        (0x03, ("invalid", "established")), (0x00, ("invalid", "established")),
    ):  # fmt: skip
        header = bytearray(tcp().ljust(20, b"\0"))
        header[13] = flags
        assert states(ipv4(bytes(header), 6)) == wanted, flags
