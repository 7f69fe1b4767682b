"""Messages as real ends put them on the rings of vbd and vif, and endless good traffic."""

from __future__ import annotations

import struct
from pathlib import Path

from broker.protocol.load import load_spec

SPECS = Path(__file__).parents[2] / "protocol_specs"
VBD_GIVEN = {
    "sectors": 4096,
    "sector_size": 512,
    "read_only": 0,
    "barrier": 1,
    "flush": 1,
    "discard": 1,
    "max_indirect": 4096,
}
VIF_GIVEN = dict.fromkeys(
    (
        "sg",
        "gso_tcpv4",
        "gso_tcpv6",
        "multicast",
        "rx_sg",
        "rx_gso_tcpv4",
        "rx_gso_tcpv6",
        "rx_xdp",
    ),
    1,
)
GIVEN = {"vbd": VBD_GIVEN, "vif": VIF_GIVEN}
RINGS = (("vbd", "io"), ("vif", "tx"), ("vif", "rx"), ("vif", "ctrl"))
"""In the order in which the C harness numbers them."""
MORE, EXTRA = 4, 8
"""Flags of netif packets: a fragment follows, an extra follows."""


def rings_of(name):
    """The tables of a shipped description's rings."""
    path = SPECS / f"{name}.yaml"
    return load_spec(path.read_bytes(), str(path)).rings


def segments(many, first=0, last=7, gref=8):
    """`many` whole pages, each with a grant of its own."""
    return b"".join(struct.pack("<IBBxx", gref + n, first, last) for n in range(many))


def blk(abi, operation, name, sector=0, segs=b"", *, count=None):
    """A read, write, barrier or flush."""
    many = len(segs) // 8 if count is None else count
    pad, size = ("4x", 112) if abi == "x86_64-abi" else ("", 108)
    head = struct.pack(f"<BBH{pad}QQ", operation, many, 51712, name, sector)
    return (head + segs).ljust(size, b"\0")


def blk_discard(abi, name, sector, many, flag=0):
    """A discard."""
    pad, size = ("4x", 112) if abi == "x86_64-abi" else ("", 108)
    return struct.pack(f"<BBH{pad}QQQ", 5, flag, 51712, name, sector, many).ljust(size, b"\0")


def blk_indirect(abi, operation, name, sector, many, *, grefs=None):
    """The head of an indirect read or write; its segments lie in the granted pages."""
    pad, size = ("4x", 112) if abi == "x86_64-abi" else ("", 108)
    pages = grefs if grefs is not None else list(range(90, 90 + -(-many // 512)))
    head = struct.pack(f"<BBH{pad}QQHxx", 6, operation, many, name, sector, 51712)
    return (head + struct.pack(f"<{len(pages)}I", *pages)).ljust(size, b"\0")


def blk_done(abi, name, operation, status=0):
    """A response."""
    tail = "4x" if abi == "x86_64-abi" else ""
    return struct.pack(f"<QBxh{tail}", name, operation, status)


def tx(name, size=100, offset=0, flags=0, gref=8):
    """A packet's first slot (`size` is the packet's) or a fragment."""
    return struct.pack("<IHHHH", gref, offset, flags, name, size)


def gso(size=1400, kind=1, more=0):
    """An extra; as long as a tx slot, of which rx takes the first 8 bytes."""
    return struct.pack("<BBHBxH4x", 1, more, size, kind, 0)


def multicast(kind=2, more=0):
    """An address to add (2) or to remove (3)."""
    return struct.pack("<BB6s4x", kind, more, b"\x01\x00\x5e\x00\x00\x01")


def hashed(kind=1, algorithm=1, more=0):
    """A hash extra."""
    return struct.pack("<BBBBI4x", 4, more, kind, algorithm, 0x1234)


def xdp(headroom=256, more=0):
    """Linux's own extra."""
    return struct.pack("<BBH8x", 5, more, headroom)


def tx_done(name, status=0):
    """A response; status 1 answers an extra."""
    return struct.pack("<Hh", name, status)


def rx_buffer(name, gref=8):
    """A page for the backend to put a packet into."""
    return struct.pack("<HHI", name, 0, gref)


def rx(name, status=100, offset=0, flags=0):
    """A received packet's first slot or a fragment."""
    return struct.pack("<HHHh", name, offset, flags, status)


def ctrl(name, kind=2, data=(0, 0, 0)):
    """A command."""
    return struct.pack("<HH3I", name, kind, *data)


def ctrl_done(name, kind=2, status=0):
    """Its result."""
    return struct.pack("<HHII", name, kind, status, 0)


class IoTraffic:
    """A disk's ring."""

    def __init__(self, draw, given, slots, abi):
        self.draw, self.given, self.slots, self.abi = draw, given, slots, abi
        self.asked = {}
        self.pages = None

    def step(self):
        """The next (operation, bytes): Q request, S response, L a request's list."""
        if self.pages is not None:
            pages, self.pages = self.pages, None
            return "L", pages
        if self.asked and (len(self.asked) >= self.slots or self.draw.random() < 0.45):
            name = self.draw.choice(list(self.asked))
            return "S", blk_done(self.abi, name, self.asked.pop(name), -self.draw.randrange(3))
        name = self.draw.choice((self.draw.getrandbits(64), self.draw.getrandbits(5)))
        while name in self.asked:
            name += 1
        return "Q", self._request(name)

    def _request(self, name):
        draw, given = self.draw, self.given
        kinds = [0]
        kinds += [] if given["read_only"] else [1]
        kinds += [2] if given["barrier"] and not given["read_only"] else []
        kinds += [3] if given["flush"] else []
        kinds += [5] if given["discard"] and not given["read_only"] else []
        kinds += [6] if given["max_indirect"] else []
        kind = draw.choice(kinds)
        unit = given["sector_size"] // 512
        if kind == 3:
            self.asked[name] = 3
            return blk(self.abi, 3, name, draw.getrandbits(64))
        if kind == 5:
            start = draw.randrange(0, given["sectors"] // 2, unit)
            self.asked[name] = 5
            many = draw.randrange(0, given["sectors"] // 2, unit)
            return blk_discard(self.abi, name, start, many, draw.randrange(2))
        many = draw.randrange(1, 12) if kind != 6 else draw.randrange(1, 40)
        many = min(many, given["max_indirect"]) if kind == 6 else many
        first, last = draw.choice(((0, 7), (0, unit - 1), (8 - unit, 7)))
        segs = segments(many, first, last, draw.randrange(1, 2**20))
        moved = many * (last - first + 1)
        sector = draw.randrange(0, given["sectors"] - moved + 1, unit)
        if kind != 6:
            self.asked[name] = kind
            return blk(self.abi, kind, name, sector, segs)
        self.pages = segs
        inner = 0 if given["read_only"] else draw.randrange(2)
        self.asked[name] = inner
        return blk_indirect(self.abi, inner, name, sector, many)


class TxTraffic:
    """A network interface's transmit ring."""

    def __init__(self, draw, given, slots, abi):
        self.draw, self.given, self.slots, self.abi = draw, given, slots, abi
        self.asked, self.extras = [], 0
        self.next = []

    def step(self):
        """The next (operation, bytes)."""
        if self.next:
            return "Q", self._sent(self.next.pop(0))
        flying = len(self.asked) + self.extras
        if flying and (flying >= self.slots or self.draw.random() < 0.5):
            if self.extras and (not self.asked or self.draw.random() < 0.3):
                self.extras -= 1
                return "S", tx_done(self.draw.getrandbits(16), 1)
            name = self.asked.pop(self.draw.randrange(len(self.asked)))
            return "S", tx_done(name, -self.draw.randrange(3))
        self.next = self._packet(self.slots - flying)
        return "Q", self._sent(self.next.pop(0))

    def _sent(self, slot):
        is_extra, message = slot
        if is_extra:
            self.extras += 1
        else:
            self.asked.append(struct.unpack_from("<H", message, 8)[0])
        return message

    def _packet(self, room):
        draw, given = self.draw, self.given
        extras = [hashed(draw.randrange(4), draw.randrange(2))]
        extras += [gso(draw.randrange(1, 9000), 1)] if given["gso_tcpv4"] else []
        extras += [gso(draw.randrange(1, 9000), 2)] if given["gso_tcpv6"] else []
        chosen = draw.sample(extras, min(draw.randrange(3), room - 1, len(extras)))
        if given["multicast"] and room >= 2 and draw.random() < 0.1:
            dummy = tx(self._name(set()), 0, 0, EXTRA, 0)
            return [(False, dummy), (True, multicast(draw.choice((2, 3))))]
        fragments = draw.randrange(min(17, room - len(chosen))) if given["sg"] else 0
        sizes = [draw.randrange(1, 2000) for _ in range(fragments)]
        first = draw.randrange(14, 2000)
        flags = draw.randrange(4) | (EXTRA if chosen else 0) | (MORE if fragments else 0)
        taken = set()
        size, gref = first + sum(sizes), draw.randrange(1, 2**32)
        head = tx(self._name(taken), size, draw.randrange(2000), flags, gref)
        slots = [(False, head)]
        for number, extra in enumerate(chosen, 1):
            slots.append((True, bytes((extra[0], number < len(chosen))) + extra[2:]))
        for number, size in enumerate(sizes, 1):
            more = MORE if number < fragments else 0
            slots.append((False, tx(self._name(taken), size, draw.randrange(2000), more)))
        return slots

    def _name(self, taken):
        name = self.draw.randrange(2**16)
        while name in self.asked or name in taken:
            name = (name + 1) % 2**16
        taken.add(name)
        return name


class RxTraffic:
    """A network interface's receive ring."""

    def __init__(self, draw, given, slots, abi):
        self.draw, self.given, self.slots, self.abi = draw, given, slots, abi
        self.asked = []
        self.count = 0
        self.next = []

    def step(self):
        """The next (operation, bytes)."""
        if self.next:
            return "S", self._answer(*self.next.pop(0))
        if self.asked and (len(self.asked) >= self.slots or self.draw.random() < 0.3):
            self.next = self._packet(len(self.asked))
            return "S", self._answer(*self.next.pop(0))
        self.count = (self.count + 1) % 2**16
        self.asked.append(self.count)
        return "Q", rx_buffer(self.count, self.draw.randrange(1, 2**32))

    def _answer(self, is_extra, message):
        name = self.asked.pop(0)
        return message[:8] if is_extra else struct.pack("<H", name) + message[2:]

    def _packet(self, room):
        draw, given = self.draw, self.given
        extras = [hashed(draw.randrange(4), draw.randrange(2))]
        extras += [gso(draw.randrange(1, 9000), 1)] if given["rx_gso_tcpv4"] else []
        extras += [gso(draw.randrange(1, 9000), 2)] if given["rx_gso_tcpv6"] else []
        extras += [xdp(draw.randrange(4097))] if given["rx_xdp"] else []
        chosen = draw.sample(extras, min(draw.randrange(3), room - 1, len(extras)))
        fragments = draw.randrange(min(18, room - len(chosen))) if given["rx_sg"] else 0
        flags = draw.randrange(4) | (EXTRA if chosen else 0) | (MORE if fragments else 0)
        slots = [(False, rx(0, draw.randrange(-2, 2000), draw.randrange(2000), flags))]
        for number, extra in enumerate(chosen, 1):
            slots.append((True, bytes((extra[0], number < len(chosen))) + extra[2:]))
        for number in range(1, fragments + 1):
            more = MORE if number < fragments else 0
            slots.append((False, rx(0, draw.randrange(2000), draw.randrange(2000), more)))
        return slots


class CtrlTraffic:
    """A network interface's control ring."""

    def __init__(self, draw, given, slots, abi):
        self.draw, self.given, self.slots, self.abi = draw, given, slots, abi
        self.asked = {}

    def step(self):
        """The next (operation, bytes)."""
        if self.asked and (len(self.asked) >= self.slots or self.draw.random() < 0.45):
            name = self.draw.choice(list(self.asked))
            return "S", ctrl_done(name, self.asked.pop(name), self.draw.randrange(4))
        name = self.draw.randrange(2**16)
        while name in self.asked:
            name = (name + 1) % 2**16
        self.asked[name] = self.draw.randrange(1, 11)
        return "Q", ctrl(name, self.asked[name])


TRAFFIC = {"io": IoTraffic, "tx": TxTraffic, "rx": RxTraffic, "ctrl": CtrlTraffic}
