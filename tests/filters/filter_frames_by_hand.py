"""Frames for the filters' tests, built by hand: no library's idea of what is well formed."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

MAC = "00:16:3e:00:00:05"
OTHER = "00:16:3e:00:00:06"
ROUTER = "00:16:3e:00:00:01"
BROADCAST = "ff:ff:ff:ff:ff:ff"
IP = "10.0.0.5"
IPV6 = "2001:db8::5"
LINK_LOCAL = "fe80::216:3eff:fe00:5"
NONE = "::"


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def ether(payload=b"", kind=0x0800, src=MAC, dst=ROUTER):
    return mac(dst) + mac(src) + struct.pack(">H", kind) + payload


def tagged(frame, tag=5, kind=0x8100):
    return frame[:12] + struct.pack(">HH", kind, tag) + frame[12:]


def arp(op=1, *, sha=MAC, spa=IP, tha="00:00:00:00:00:00", tpa="10.0.0.1", head="0001080006040001"):
    return (
        bytes.fromhex(head)[:6]
        + struct.pack(">H", op)
        + mac(sha)
        + IPv4Address(spa).packed
        + mac(tha)
        + IPv4Address(tpa).packed
    )


def ipv4(payload=b"", protocol=17, *, src=IP, dst="10.0.0.1", offset=0, more=False, options=b""):
    words = 5 + len(options) // 4
    return (
        struct.pack(
            ">BBHHHBBH4s4s",
            0x40 | words,
            0,
            words * 4 + len(payload),
            1,
            offset // 8 | (0x2000 if more else 0),
            64,
            protocol,
            0,
            IPv4Address(src).packed,
            IPv4Address(dst).packed,
        )
        + options
        + payload
    )


def ipv6(payload=b"", protocol=17, src=IPV6, dst="2001:db8::1", hops=255):
    return (
        struct.pack(">IHBB", 6 << 28, len(payload), protocol, hops)
        + IPv6Address(src).packed
        + IPv6Address(dst).packed
        + payload
    )


def fragment(payload, protocol, offset=0, more=False):
    return struct.pack(">BBHI", protocol, 0, offset | more, 7) + payload


def options(payload, protocol, size=8):
    """A hop-by-hop or destination options header before `payload`."""
    return (
        struct.pack(">BB", protocol, size // 8 - 1)
        + bytes([1, size - 4])
        + bytes(size - 4)
        + payload
    )


def udp(sport=1000, dport=53, payload=b""):
    return struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload


def tcp(sport=1000, dport=80):
    return struct.pack(">HHIIBBHHH", sport, dport, 0, 0, 0x50, 2, 1024, 0, 0)


def icmp(kind=8, code=0, body=bytes(4)):
    return struct.pack(">BBH", kind, code, 0) + body


def nd(kind, body, *option):
    return icmp(kind, 0, body + b"".join(option))


def solicit(target, *option):
    return nd(135, bytes(4) + IPv6Address(target).packed, *option)


def advertise(target, *option):
    return nd(136, bytes(4) + IPv6Address(target).packed, *option)


def lladdr(kind, address):
    return bytes([kind, 1]) + mac(address)


def bootp(op=1, chaddr=MAC, head="0106"):
    return bytes([op]) + bytes.fromhex(head) + bytes(25) + mac(chaddr) + bytes(202)


DISCOVER = ipv4(udp(68, 67, bootp()), src="0.0.0.0", dst="255.255.255.255")
