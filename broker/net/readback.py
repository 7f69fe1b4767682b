"""What nftables really holds, read by netlink: elements, counters, and a digest of the rules.

It reads the kernel's own bytes and not nft's listing, so that a mistake in writing a command
cannot hide itself in reading it back. Facts: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import functools
import hashlib
import struct
import sys
from typing import TYPE_CHECKING, Final

import msgspec

from broker.net import netlink
from broker.net.encoding import element_attribute, key_attribute, plain_elements
from broker.net.model import NetError
from broker.net.tables import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SUBSYSTEM: Final = 10 << 8
_GETTABLE, _GETCHAIN, _GETRULE, _GETSET, _GETSETELEM, _GETGEN = 1, 4, 7, 10, 13, 16
_GENERATION_ID: Final = 1
_FAMILY: Final = {"inet": 1, "arp": 3, "bridge": 7}
_GENMSG: Final = struct.Struct("=BBH")
_TABLE_NAME, _TABLE_FLAGS = 1, 2
_CHAIN_TABLE, _RULE_TABLE, _RULE_EXPRESSIONS = 1, 1, 4
_CHAIN: Final = (3, 4, 5, 7)
"""NFTA_CHAIN_NAME, _HOOK, _POLICY, _TYPE."""
_CHAIN_NAME, _RULE_CHAIN, _SET_TABLE, _SET_NAME = 3, 2, 1, 2
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_ELEMENT = 1, 2, 3, 1
_ELEMENT_KEY, _ELEMENT_DATA, _ELEMENT_EXPIRATION, _ELEMENT_EXPRESSION = 1, 2, 5, 7
_ELEMENT_KEY_END, _DATA_VALUE, _DATA_VERDICT = 10, 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_VERDICTS: Final = {0: b"drop", 1: b"accept", -3: b"jump ", -4: b"goto "}
_LOOKUP_SET: Final = 1
_RULE_USERDATA, _COMMENT = 7, 0
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2
_ATTRIBUTE_HEAD: Final = 4
_PLAIN: Final = 12
"""Bytes of the headers of an element, of its key, and of the key's value."""


class Count(msgspec.Struct, frozen=True):
    """Packets and bytes counted."""

    packets: int
    bytes: int


class Readback:
    """Reads the tables of the network namespace this is made in.

    Functions raise `NetError` when the kernel does not tell; a table that is not there reads
    as empty.
    """

    def __init__(self) -> None:
        self._socket = netlink.NetlinkSocket(netlink.NETFILTER)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def elements(self, table: str, name: str) -> dict[bytes, bytes]:
        """Keys and data of one set, as the kernel stores them; a set's data is empty."""
        found: dict[bytes, bytes] = {}
        for payload in self._ask(_GETSETELEM, netlink.DUMP, _set(table, name)):
            keys = _plain_keys(payload)
            if keys is None:
                found |= {key: data for key, data, _ in _decode(payload)}
            else:
                found |= dict.fromkeys(keys, b"")
        return found

    def counters(self, table: str, name: str) -> dict[bytes, Count]:
        """Keys and counters of one set of ours that counts."""
        return {
            key: count
            for payload in self._ask(_GETSETELEM, netlink.DUMP, _set(table, name))
            for key, _, count in _decode(payload)
            if count is not None
        }

    def ends(self, table: str, name: str) -> dict[bytes, float]:
        """Keys of one set that go by themselves, and in how many seconds."""
        return {
            key: int.from_bytes(parts[_ELEMENT_EXPIRATION], "big") / 1000
            for payload in self._ask(_GETSETELEM, netlink.DUMP, _set(table, name))
            for key, parts in _parted(payload)
            if _ELEMENT_EXPIRATION in parts
        }

    def names(self, table: str) -> list[str]:
        """The names of all chains and sets of one table."""
        header = _GENMSG.pack(_FAMILY[FAMILIES[table]], 0, 0)
        found = []
        for kind, owner, name in (
            (_GETCHAIN, _CHAIN_TABLE, _CHAIN_NAME),
            (_GETSET, _SET_TABLE, _SET_NAME),
        ):
            for payload in self._ask(kind, netlink.DUMP, header):
                values = netlink.attributes(payload, _GENMSG.size)
                if netlink.word(values.get(owner)) == table:
                    found.append(netlink.word(values.get(name)))
        return found

    def rule_counts(self, table: str) -> list[tuple[str, Count]]:
        """What each rule that has a comment counted, by its comment."""
        header = _GENMSG.pack(_FAMILY[FAMILIES[table]], 0, 0)
        found: list[tuple[str, Count]] = []
        for payload in self._ask(_GETRULE, netlink.DUMP, header):
            values = netlink.attributes(payload, _GENMSG.size)
            comment = _comment(values.get(_RULE_USERDATA, b""))
            if netlink.word(values.get(_RULE_TABLE)) != table or not comment:
                continue
            listed = netlink.attribute_list(values.get(_RULE_EXPRESSIONS, b""))
            found += [(comment, count) for _, one in listed if (count := _count(one)) is not None]
        return found

    def present(self, asked: Sequence[tuple[str, str, bytes]]) -> list[bytes | None]:
        """The element that a table's set holds under a key, as `key_and_data` reads it; or None."""
        bodies = [in_set(table, name, key_attribute(key)) for table, name, key in asked]
        try:
            answers = self._socket.ask_each([(_SUBSYSTEM | _GETSETELEM, 0, it) for it in bodies])
        except OSError as error:
            raise NetError(f"nftables cannot be read back: {error}") from error
        return [
            None if answer is None else _one_element(table, name, answer)
            for (table, name, _), answer in zip(asked, answers, strict=True)
        ]

    def generation(self) -> int:
        """The number of the ruleset: each transaction of anybody's in this namespace adds one."""
        payload = self._ask(_GETGEN, netlink.ACK, _GENMSG.pack(0, 0, 0))[0]
        return int.from_bytes(netlink.attributes(payload, _GENMSG.size)[_GENERATION_ID], "big")

    def rules_digest(self) -> str:
        """A digest of our tables, chains, hooks, policies and rules, counters left out.

        It does not depend on the order in which chains were made, nor on the names that nftables
        gives to the sets written within rules; their elements are in it.
        """
        digest = hashlib.sha256()
        for table, family in FAMILIES.items():
            header = _GENMSG.pack(_FAMILY[family], 0, 0)
            kept = [
                *self._parts(_GETTABLE, header, _TABLE_NAME, (_TABLE_NAME, _TABLE_FLAGS), table),
                *sorted(self._parts(_GETCHAIN, header, _CHAIN_TABLE, _CHAIN, table)),
                *self._rules(header, table),
            ]
            for part in kept:
                digest.update(struct.pack(">I", len(part)) + part)
        return digest.hexdigest()

    def _rules(self, header: bytes, table: str) -> list[bytes]:
        """What each rule does, chain by chain, in the order of each chain's rules."""
        chains: dict[bytes, list[bytes]] = {}
        for payload in self._ask(_GETRULE, netlink.DUMP, header):
            values = netlink.attributes(payload, _GENMSG.size)
            if netlink.word(values.get(_RULE_TABLE)) == table:
                listed = netlink.attribute_list(values.get(_RULE_EXPRESSIONS, b""))
                chain = values.get(_RULE_CHAIN, b"")
                does = b"".join(self._expression(table, one) for _, one in listed)
                chains.setdefault(chain, []).append(does)
        return [part for chain in sorted(chains) for part in (chain, *chains[chain])]

    def _expression(self, table: str, value: bytes) -> bytes:
        parts = netlink.attributes(value)
        name = netlink.word(parts.get(_EXPRESSION_NAME))
        data = parts.get(_EXPRESSION_DATA, b"")
        if name == "counter":
            data = b""
        if name == "lookup":
            looked_into = netlink.word(netlink.attributes(data).get(_LOOKUP_SET))
            if looked_into.startswith("__"):
                rest = netlink.attribute_list(data)
                data = b"".join(netlink.attribute(*it) for it in rest if it[0] != _LOOKUP_SET)
                data += self._within(table, looked_into)
        return name.encode("ascii") + data

    def _within(self, table: str, name: str) -> bytes:
        """The elements of a set that is written within a rule."""
        listed = []
        for payload in self._ask(_GETSETELEM, netlink.DUMP, _set(table, name)):
            values = netlink.attributes(payload, _GENMSG.size)
            elements = values.get(_LIST_ELEMENTS, b"")
            listed += [element for _, element in netlink.attribute_list(elements)]
        return b"".join(sorted(listed))

    def _parts(
        self, kind: int, header: bytes, owner: int, kept: tuple[int, ...], table: str
    ) -> list[bytes]:
        """What is kept of each object that belongs to `table`."""
        found = []
        for payload in self._ask(kind, netlink.DUMP, header):
            values = netlink.attributes(payload, _GENMSG.size)
            if netlink.word(values.get(owner)) == table:
                found.append(b"".join(netlink.attribute(n, values.get(n, b"")) for n in kept))
        return found

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        try:
            return [payload for _, payload in self._socket.ask(_SUBSYSTEM | kind, flags, body)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise NetError(f"nftables cannot be read back: {error}") from error


@functools.lru_cache(maxsize=256)
def _set(table: str, name: str) -> bytes:
    return (
        _GENMSG.pack(_FAMILY[FAMILIES[table]], 0, 0)
        + netlink.text(_LIST_TABLE, table)
        + netlink.text(_LIST_SET, name)
    )


def in_set(table: str, name: str, element: bytes) -> bytes:
    """The body of a message about one element of a set, as the kernel writes such a body too."""
    return about_set(table, name, element_attribute(element))


def about_set(table: str, name: str, listed: bytes = b"") -> bytes:
    """The body of a message about these elements of a set; about all of them if none is listed."""
    return _set(table, name) + (netlink.attribute(_LIST_ELEMENTS, listed) if listed else b"")


def _one_element(table: str, name: str, payload: bytes) -> bytes:
    """What an answer about one element of this set says of it; what is about another is nothing."""
    head = _set(table, name)
    start = len(head) + 2 * _ATTRIBUTE_HEAD
    # The header's last two bytes are the generation's.
    return payload[start:] if payload[_GENMSG.size : len(head)] == head[_GENMSG.size :] else b""


def key_and_data(element: bytes) -> tuple[bytes, bytes]:
    """Of one element's attributes; of a range: its ends."""
    parts = netlink.attributes(element)
    return _key(parts), _data(parts)


def _comment(data: bytes) -> str:
    """The comment among a rule's data, which nft itself keeps there: kind, length, value."""
    at = 0
    while at + 2 <= len(data):
        kind, size = data[at], data[at + 1]
        if kind == _COMMENT:
            return netlink.word(data[at + 2 : at + 2 + size])
        at += 2 + size
    return ""


def _plain_keys(payload: bytes) -> list[bytes] | None:
    """The keys of one message, if each of its elements is a key of one length and nothing else.

    Ten thousand of them in a millisecond or two; `_decode` says the same of any message.
    """
    listed = netlink.attributes(payload, _GENMSG.size).get(_LIST_ELEMENTS, b"")
    size = int.from_bytes(listed[:2], sys.byteorder) - _PLAIN
    if size <= 0 or size % 4 or len(listed) % (_PLAIN + size):
        return None
    keys = [key for (key,) in struct.iter_unpack(f"{_PLAIN}x{size}s", listed)]
    return keys if plain_elements(keys) == listed else None


def _decode(payload: bytes) -> Iterator[tuple[bytes, bytes, Count | None]]:
    """Key (of a range: its ends), data and counter of each element in one message."""
    for key, parts in _parted(payload):
        yield key, _data(parts), _count(parts.get(_ELEMENT_EXPRESSION))


def _parted(payload: bytes) -> Iterator[tuple[bytes, netlink.Attributes]]:
    """Key and attributes of each element in one message."""
    values = netlink.attributes(payload, _GENMSG.size)
    for _, element in netlink.attribute_list(values.get(_LIST_ELEMENTS, b"")):
        parts = netlink.attributes(element)
        yield _key(parts), parts


def _key(parts: netlink.Attributes) -> bytes:
    ends = (parts.get(_ELEMENT_KEY, b""), parts.get(_ELEMENT_KEY_END, b""))
    return b"".join(netlink.attributes(end).get(_DATA_VALUE, b"") for end in ends)


def _data(parts: netlink.Attributes) -> bytes:
    data = netlink.attributes(parts.get(_ELEMENT_DATA, b""))
    if _DATA_VERDICT in data:
        return _verdict(netlink.attributes(data[_DATA_VERDICT]))
    return data.get(_DATA_VALUE, b"")


def _verdict(parts: netlink.Attributes) -> bytes:
    """As a command says it."""
    code = int.from_bytes(parts.get(_VERDICT_CODE, b""), "big", signed=True)
    chain = netlink.word(parts.get(_VERDICT_CHAIN)).encode("ascii")
    return _VERDICTS.get(code, b"verdict %d " % code) + chain


def _count(expression: bytes | None) -> Count | None:
    if expression is None:
        return None
    parts = netlink.attributes(expression)
    if netlink.word(parts.get(_EXPRESSION_NAME)) != "counter":
        return None
    counter = netlink.attributes(parts.get(_EXPRESSION_DATA, b""))
    return Count(
        packets=int.from_bytes(counter.get(_COUNTER_PACKETS, b""), "big"),
        bytes=int.from_bytes(counter.get(_COUNTER_BYTES, b""), "big"),
    )
