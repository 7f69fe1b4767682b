"""Packets of connections, made by hand: TCP, UDP, pings, and errors about them."""

from __future__ import annotations

import ipaddress
import itertools
import struct

from net_rig import raw

SYN, ACK, FIN, RST, PSH = 2, 16, 1, 4, 8
ANYBODY = "02:99:00:00:00:07"
"""A station that nobody is: what is sent to it reaches all ports."""
_numbers = itertools.count(1)


def packed(address):
    return ipaddress.ip_address(address).packed


def packet(source, target, protocol, upper, *, fragment=0, options=b"", extension=b""):
    """An ethertype and a packet; `extension` is IPv6's, with its next header first."""
    if ":" in source:
        head = struct.pack(">IHBB", 6 << 28, len(extension + upper), protocol, 64)
        return b"\x86\xdd", head + packed(source) + packed(target) + extension + upper
    size = 20 + len(options) + len(upper)
    first, number = 0x45 + len(options) // 4, next(_numbers) & 0xFFFF
    head = struct.pack(">BBHHHBBH", first, 0, size, number, fragment, 64, protocol, 0)
    return b"\x08\x00", head + packed(source) + packed(target) + options + upper


def tcp_header(sport, dport, flags):
    return struct.pack(">HHIIBBHHH", sport, dport, next(_numbers), 0, 0x50, flags, 1024, 0, 0)


def udp_header(sport, dport):
    return struct.pack(">HHHHI", sport, dport, 12, 0, next(_numbers))


def echo_header(kind, number):
    return struct.pack(">BBHHH", kind, 0, 0, number, next(_numbers) & 0xFFFF)


class Ends:
    """Two ends of which `here` is the guest's; frames `out` of it and `back` to it."""

    def __init__(self, here="10.0.0.1", there="10.0.0.2", ports=(1000, 80)):
        self.here, self.there, self.ports = here, there, ports
        self.six = ":" in here

    def turned(self):
        return Ends(self.there, self.here, self.ports[::-1])

    def tcp(self, flags, **how):
        return framed(*self.packet(6, tcp_header(*self.ports, flags), **how))

    def udp(self, **how):
        return framed(*self.packet(17, udp_header(*self.ports), **how))

    def ping(self, number=7, **how):
        return framed(*self.packet(*self._echo(128 if self.six else 8, number), **how))

    def pong(self, number=7, **how):
        return framed(*self.packet(*self._echo(129 if self.six else 0, number), **how))

    def error(self, about, *, cut=1500, kind=3, source=None):
        """Somebody (by default the target's end) says of a frame from here that it came not on."""
        quoted = about[14:][:cut]
        upper = bytes([kind if not self.six else 1, 0]) + bytes(6) + quoted
        ends = (source or self.there, self.here)
        return framed(*packet(*ends, 58 if self.six else 1, upper))

    def packet(self, protocol, upper, **how):
        return packet(self.here, self.there, protocol, upper, **how)

    def _echo(self, kind, number):
        return (58 if self.six else 1), echo_header(kind, number)


def framed(ethertype, payload, source="02:00:00:00:00:01", tag=b""):
    return raw(ANYBODY) + raw(source) + tag + ethertype + payload.ljust(46, b"\0")
