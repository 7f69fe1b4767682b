"""For every rule of every ring: traffic that is good but for its last message, which breaks it.

(rule, what is given otherwise than usual, messages as (operation, bytes) for a layout)
"""

# ruff: noqa: E501 - tables, a case a line

from support.ring_messages import (
    EXTRA,
    MORE,
    blk,
    blk_discard,
    blk_done,
    blk_indirect,
    ctrl,
    ctrl_done,
    gso,
    hashed,
    multicast,
    rx,
    rx_buffer,
    segments,
    tx,
    tx_done,
    xdp,
)

SLOTS = 32


def Q(*messages):
    """Requests."""
    return [("Q", message) for message in messages]


def S(*messages):
    """Responses."""
    return [("S", message) for message in messages]


def L(pages):
    """The list in the pages that the last request granted."""
    return [("L", pages)]


TWO = segments(2)
SAME = segments(1) + segments(1)

IO = [
    ("io.request.unknown", {}, lambda abi: Q(blk(abi, 4, 1, 0, TWO))),
    ("io.request.unknown", {}, lambda abi: Q(blk(abi, 255, 1, 0, TWO))),
    ("io.transfer.barrier-not-offered", {"barrier": 0}, lambda abi: Q(blk(abi, 2, 1, 0, TWO))),
    ("io.transfer.flush-not-offered", {"flush": 0}, lambda abi: Q(blk(abi, 3, 1))),
    ("io.transfer.read-only", {"read_only": 1}, lambda abi: Q(blk(abi, 1, 1, 0, TWO))),
    ("io.transfer.no-segments", {}, lambda abi: Q(blk(abi, 0, 1, 0))),
    ("io.transfer.no-segments", {}, lambda abi: Q(blk(abi, 1, 1, 0))),
    ("io.transfer.aligned", {"sector_size": 4096}, lambda abi: Q(blk(abi, 0, 1, 4, TWO))),
    ("io.transfer.seg.count", {}, lambda abi: Q(blk(abi, 0, 1, 0, segments(11), count=12))),
    ("io.transfer.seg.count", {}, lambda abi: Q(blk(abi, 1, 1, 0, segments(11), count=255))),
    ("io.transfer.seg.gref.min", {}, lambda abi: Q(blk(abi, 0, 1, 0, segments(2, gref=0)))),
    ("io.transfer.seg.gref.min", {}, lambda abi: Q(blk(abi, 0, 1, 0, TWO, count=3))),
    ("io.transfer.seg.last_sect.max", {}, lambda abi: Q(blk(abi, 0, 1, 0, segments(2, 0, 8)))),
    ("io.transfer.seg.order", {}, lambda abi: Q(blk(abi, 0, 1, 0, segments(1, 3, 2)))),
    ("io.transfer.seg.aligned", {"sector_size": 4096}, lambda abi: Q(blk(abi, 0, 1, 0, segments(1, 1, 7)))),
    ("io.transfer.seg.aligned", {"sector_size": 4096}, lambda abi: Q(blk(abi, 0, 1, 0, segments(1, 0, 6)))),
    ("io.transfer.seg.gref.distinct", {}, lambda abi: Q(blk(abi, 0, 1, 0, SAME))),
    ("io.transfer.seg.past-end", {}, lambda abi: Q(blk(abi, 0, 1, 4096 - 15, TWO))),
    ("io.transfer.seg.past-end", {}, lambda abi: Q(blk(abi, 0, 1, 2**64 - 8, TWO))),
    ("io.discard.flag.bits", {}, lambda abi: Q(blk_discard(abi, 1, 0, 8, 2))),
    ("io.discard.not-offered", {"discard": 0}, lambda abi: Q(blk_discard(abi, 1, 0, 8))),
    ("io.discard.read-only", {"read_only": 1}, lambda abi: Q(blk_discard(abi, 1, 0, 8))),
    ("io.discard.aligned", {"sector_size": 4096}, lambda abi: Q(blk_discard(abi, 1, 4, 8))),
    ("io.discard.aligned", {"sector_size": 4096}, lambda abi: Q(blk_discard(abi, 1, 0, 4))),
    ("io.discard.past-end", {}, lambda abi: Q(blk_discard(abi, 1, 4096, 1))),
    ("io.discard.past-end", {}, lambda abi: Q(blk_discard(abi, 1, 2**64 - 1, 2))),
    ("io.indirect.indirect_op.one-of", {}, lambda abi: Q(blk_indirect(abi, 2, 1, 0, 20))),
    ("io.indirect.nr_segments.min", {}, lambda abi: Q(blk_indirect(abi, 0, 1, 0, 0))),
    ("io.indirect.read-only", {"read_only": 1}, lambda abi: Q(blk_indirect(abi, 1, 1, 0, 20))),
    ("io.indirect.aligned", {"sector_size": 4096}, lambda abi: Q(blk_indirect(abi, 0, 1, 4, 20))),
    ("io.indirect.page.count", {}, lambda abi: Q(blk_indirect(abi, 0, 1, 0, 4097, grefs=range(1, 9)))),
    ("io.indirect.page.gref.min", {}, lambda abi: Q(blk_indirect(abi, 0, 1, 0, 513, grefs=[7, 0]))),
    ("io.indirect.page.gref.distinct", {}, lambda abi: Q(blk_indirect(abi, 0, 1, 0, 513, grefs=[7, 7]))),
    ("io.indirect.page.too-many-segments", {"max_indirect": 32}, lambda abi: Q(blk_indirect(abi, 0, 1, 0, 33))),
    ("io.indirect.page.too-many-segments", {"max_indirect": 0}, lambda abi: Q(blk_indirect(abi, 0, 1, 0, 1))),
    ("io.indirect.seg.gref.min", {}, lambda abi: Q(blk_indirect(abi, 0, 1, 0, 20)) + L(segments(20, gref=0))),
    ("io.indirect.seg.last_sect.max", {}, lambda abi: Q(blk_indirect(abi, 0, 1, 0, 20)) + L(segments(20, 0, 8))),
    ("io.indirect.seg.order", {}, lambda abi: Q(blk_indirect(abi, 0, 1, 0, 20)) + L(segments(20, 5, 4))),
    ("io.indirect.seg.aligned", {"sector_size": 4096}, lambda abi: Q(blk_indirect(abi, 0, 1, 0, 20)) + L(segments(20, 1, 7))),
    ("io.indirect.seg.past-end", {}, lambda abi: Q(blk_indirect(abi, 0, 1, 4096 - 159, 20)) + L(segments(20))),
    ("io.request.id-in-flight", {}, lambda abi: Q(blk(abi, 0, 1, 0, TWO), blk(abi, 0, 1, 8, TWO))),
    ("io.request.id-in-flight", {}, lambda abi: Q(blk(abi, 0, 2**64 - 1, 0, TWO), blk_discard(abi, 2**64 - 1, 8, 8))),
    ("io.request.too-many", {}, lambda abi: Q(*(blk(abi, 0, n, 0, TWO) for n in range(SLOTS + 1)))),
    ("io.done.status.one-of", {}, lambda abi: Q(blk(abi, 0, 1, 0, TWO)) + S(blk_done(abi, 1, 0, 1))),
    ("io.done.status.one-of", {}, lambda abi: Q(blk(abi, 0, 1, 0, TWO)) + S(blk_done(abi, 1, 0, -3))),
    ("io.done.operation", {}, lambda abi: Q(blk(abi, 0, 1, 0, TWO)) + S(blk_done(abi, 1, 1))),
    ("io.done.operation", {}, lambda abi: Q(blk_indirect(abi, 1, 1, 0, 1)) + L(segments(1)) + S(blk_done(abi, 1, 6))),
    ("io.response.not-in-flight", {}, lambda abi: S(blk_done(abi, 1, 0))),
    ("io.response.not-in-flight", {}, lambda abi: Q(blk(abi, 0, 1, 0, TWO)) + S(blk_done(abi, 1, 0), blk_done(abi, 1, 0))),
]  # fmt: skip

DUMMY = tx(1, 0, 0, EXTRA, 0)
WITH = tx(1, 9000, 0, EXTRA)
SPLIT = tx(1, 9000, 0, MORE)
MANY = [gso(more=1), hashed(more=1), gso(more=1), hashed(more=1)]

TX = [
    ("tx.request.unknown", {}, lambda _: Q(tx(1, flags=EXTRA), bytes(12))),
    ("tx.request.unknown", {}, lambda _: Q(tx(1, flags=EXTRA), xdp() + bytes(4))),
    ("tx.packet.flags.bits", {}, lambda _: Q(tx(1, flags=16))),
    ("tx.packet.no-grant", {}, lambda _: Q(tx(1, gref=0))),
    ("tx.packet.empty", {}, lambda _: Q(tx(1, size=0))),
    ("tx.packet.past-page", {}, lambda _: Q(tx(1, 4096, 1))),
    ("tx.packet.past-page", {}, lambda _: Q(tx(1, 65535, 65535))),
    ("tx.packet.sg-not-offered", {"sg": 0}, lambda _: Q(SPLIT)),
    ("tx.gso.flags.bits", {}, lambda _: Q(tx(1, flags=EXTRA), gso(more=2))),
    ("tx.gso.gso_size.min", {}, lambda _: Q(tx(1, flags=EXTRA), gso(size=0))),
    ("tx.gso.gso_type.one-of", {}, lambda _: Q(tx(1, flags=EXTRA), gso(kind=0))),
    ("tx.gso.gso_type.one-of", {}, lambda _: Q(tx(1, flags=EXTRA), gso(kind=3))),
    ("tx.gso.tcpv4-not-offered", {"gso_tcpv4": 0}, lambda _: Q(tx(1, flags=EXTRA), gso(kind=1))),
    ("tx.gso.tcpv6-not-offered", {"gso_tcpv6": 0}, lambda _: Q(tx(1, flags=EXTRA), gso(kind=2))),
    ("tx.gso.empty", {}, lambda _: Q(DUMMY, gso())),
    ("tx.gso.no-grant", {}, lambda _: Q(tx(1, 100, 0, EXTRA, 0), gso())),
    ("tx.gso.too-many", {}, lambda _: Q(tx(1, flags=EXTRA), *MANY, gso())),
    ("tx.multicast.flags.bits", {}, lambda _: Q(DUMMY, multicast(more=128))),
    ("tx.multicast.not-offered", {"multicast": 0}, lambda _: Q(DUMMY, multicast())),
    ("tx.multicast.not-offered", {"multicast": 0}, lambda _: Q(DUMMY, multicast(3))),
    ("tx.multicast.too-many", {}, lambda _: Q(tx(1, flags=EXTRA), *MANY, multicast())),
    ("tx.hash.flags.bits", {}, lambda _: Q(tx(1, flags=EXTRA), hashed(more=4))),
    ("tx.hash.hash_type.max", {}, lambda _: Q(tx(1, flags=EXTRA), hashed(kind=4))),
    ("tx.hash.algorithm.max", {}, lambda _: Q(tx(1, flags=EXTRA), hashed(algorithm=2))),
    ("tx.hash.empty", {}, lambda _: Q(DUMMY, hashed())),
    ("tx.hash.no-grant", {}, lambda _: Q(tx(1, 100, 0, EXTRA, 0), hashed())),
    ("tx.hash.too-many", {}, lambda _: Q(tx(1, flags=EXTRA), *MANY, hashed())),
    ("tx.fragment.gref.min", {}, lambda _: Q(SPLIT, tx(2, gref=0))),
    ("tx.fragment.flags.bits", {}, lambda _: Q(SPLIT, tx(2, flags=EXTRA))),
    ("tx.fragment.too-many", {}, lambda _: Q(SPLIT, *(tx(2 + n, flags=MORE) for n in range(17)), tx(20))),
    ("tx.fragment.past-page", {}, lambda _: Q(SPLIT, tx(2, 4096, 1))),
    ("tx.fragment.more-than-packet", {}, lambda _: Q(tx(1, 100, 0, MORE), tx(2, 101))),
    ("tx.fragment.more-than-packet", {}, lambda _: Q(tx(1, 100, 0, MORE), tx(2, 60, flags=MORE), tx(3, 60))),
    ("tx.fragment.first-past-page", {}, lambda _: Q(tx(1, 4097 + 100, 0, MORE), tx(2, 100))),
    ("tx.fragment.first-past-page", {}, lambda _: Q(tx(1, 4096 + 100, 1, MORE | EXTRA), gso(), tx(2, 100))),
    ("tx.request.id-in-flight", {}, lambda _: Q(tx(1), tx(1))),
    ("tx.request.id-in-flight", {}, lambda _: Q(SPLIT, tx(1, 4000, flags=MORE))),
    ("tx.request.too-many", {}, lambda _: Q(*(tx(n) for n in range(SLOTS + 1)))),
    ("tx.request.too-many", {}, lambda _: Q(*(tx(n) for n in range(SLOTS - 1)), tx(99, flags=EXTRA), gso())),
    ("tx.response.unknown", {}, lambda _: Q(tx(1)) + S(tx_done(1, 2))),
    ("tx.response.unknown", {}, lambda _: Q(tx(1)) + S(tx_done(1, -3))),
    ("tx.response.not-in-flight", {}, lambda _: Q(tx(1)) + S(tx_done(2))),
    ("tx.response.not-in-flight", {}, lambda _: Q(tx(1)) + S(tx_done(1, 1))),
]  # fmt: skip

BUFFERS = [rx_buffer(name) for name in range(24)]
RX_MANY = [
    gso(more=1)[:8],
    hashed(more=1)[:8],
    gso(more=1)[:8],
    hashed(more=1)[:8],
    xdp(more=1)[:8],
]


def received(*responses):
    """Buffers, then these."""
    return Q(*BUFFERS) + S(*responses)


FIRST = rx(0, flags=EXTRA)

RX = [
    ("rx.buffer.gref.min", {}, lambda _: Q(rx_buffer(1, 0))),
    ("rx.request.id-in-flight", {}, lambda _: Q(rx_buffer(1), rx_buffer(1))),
    ("rx.request.too-many", {}, lambda _: Q(*(rx_buffer(n) for n in range(SLOTS + 1)))),
    ("rx.response.not-in-flight", {}, lambda _: S(rx(0))),
    ("rx.response.not-in-flight", {}, lambda _: received(rx(1))),
    ("rx.response.not-in-flight", {}, lambda _: Q(rx_buffer(0)) + S(FIRST, gso()[:8])),
    ("rx.response.unknown", {}, lambda _: received(FIRST, bytes(8))),
    ("rx.response.unknown", {}, lambda _: received(FIRST, multicast()[:8])),
    ("rx.packet.flags.bits", {}, lambda _: received(rx(0, flags=16))),
    ("rx.packet.status.min", {}, lambda _: received(rx(0, -3))),
    ("rx.packet.past-page", {}, lambda _: received(rx(0, 4096, 1))),
    ("rx.packet.past-page", {}, lambda _: received(rx(0, -1, 4097))),
    ("rx.packet.sg-not-asked", {"rx_sg": 0}, lambda _: received(rx(0, flags=MORE))),
    ("rx.rx-gso.flags.bits", {}, lambda _: received(FIRST, gso(more=3)[:8])),
    ("rx.rx-gso.gso_size.min", {}, lambda _: received(FIRST, gso(size=0)[:8])),
    ("rx.rx-gso.gso_type.one-of", {}, lambda _: received(FIRST, gso(kind=9)[:8])),
    ("rx.rx-gso.tcpv4-not-asked", {"rx_gso_tcpv4": 0}, lambda _: received(FIRST, gso(kind=1)[:8])),
    ("rx.rx-gso.tcpv6-not-asked", {"rx_gso_tcpv6": 0}, lambda _: received(FIRST, gso(kind=2)[:8])),
    ("rx.rx-gso.too-many", {}, lambda _: received(FIRST, *RX_MANY, gso()[:8])),
    ("rx.rx-hash.flags.bits", {}, lambda _: received(FIRST, hashed(more=2)[:8])),
    ("rx.rx-hash.hash_type.max", {}, lambda _: received(FIRST, hashed(kind=4)[:8])),
    ("rx.rx-hash.algorithm.max", {}, lambda _: received(FIRST, hashed(algorithm=2)[:8])),
    ("rx.rx-hash.too-many", {}, lambda _: received(FIRST, *RX_MANY, hashed()[:8])),
    ("rx.rx-xdp.flags.bits", {}, lambda _: received(FIRST, xdp(more=2)[:8])),
    ("rx.rx-xdp.headroom.max", {}, lambda _: received(FIRST, xdp(4097)[:8])),
    ("rx.rx-xdp.not-asked", {"rx_xdp": 0}, lambda _: received(FIRST, xdp()[:8])),
    ("rx.rx-xdp.too-many", {}, lambda _: received(FIRST, *RX_MANY, xdp()[:8])),
    ("rx.rx-fragment.flags.bits", {}, lambda _: received(rx(0, flags=MORE), rx(1, flags=1))),
    ("rx.rx-fragment.status.min", {}, lambda _: received(rx(0, flags=MORE), rx(1, -3))),
    ("rx.rx-fragment.past-page", {}, lambda _: received(rx(0, flags=MORE), rx(1, 2, 4095))),
    ("rx.rx-fragment.too-many", {}, lambda _: received(*(rx(n, flags=MORE) for n in range(19)), rx(19))),
]  # fmt: skip

CTRL = [
    ("ctrl.command.type.min", {}, lambda _: Q(ctrl(1, 0))),
    ("ctrl.command.type.max", {}, lambda _: Q(ctrl(1, 11))),
    ("ctrl.request.id-in-flight", {}, lambda _: Q(ctrl(1, 1), ctrl(1, 2))),
    ("ctrl.request.too-many", {}, lambda _: Q(*(ctrl(n, 1) for n in range(SLOTS + 1)))),
    ("ctrl.result.type", {}, lambda _: Q(ctrl(1, 1)) + S(ctrl_done(1, 2))),
    ("ctrl.result.status.max", {}, lambda _: Q(ctrl(1, 1)) + S(ctrl_done(1, 1, 4))),
    ("ctrl.response.not-in-flight", {}, lambda _: S(ctrl_done(1, 1))),
]  # fmt: skip

MUTATIONS = {"vbd": [("io", *one) for one in IO], "vif": [("tx", *one) for one in TX]}
MUTATIONS["vif"] += [("rx", *one) for one in RX] + [("ctrl", *one) for one in CTRL]
