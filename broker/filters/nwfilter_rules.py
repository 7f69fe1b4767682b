"""One rule of a libvirt filter to the matches of a profile's rule."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

import msgspec

from broker.filters.fields import FIELDS, STATE
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.text.xml_tree import Element

CHAINS: Final = (
    ("root", ()),
    ("mac", ()),
    ("vlan", ("vlan", "qinq")),
    ("arp", ("arp",)),
    ("rarp", ("rarp",)),
    ("ipv4", ("ipv4",)),
    ("ipv6", ("ipv6",)),
)
"""The ethertypes of a chain, by how its name begins; nothing for all."""

_USE: Final = re.compile(r"\$([A-Z][A-Z0-9_]{0,31})(?:\[@([0-9])\])?")
_ETHER: Final = {
    "srcmacaddr": "ether.src",
    "dstmacaddr": "ether.dst",
}
_ARP: Final = {
    "opcode": "arp.op",
    "arpsrcmacaddr": "arp.sha",
    "arpsrcipaddr": "arp.spa",
    "arpdstmacaddr": "arp.tha",
    "arpdstipaddr": "arp.tpa",
}
_V4: Final = {"srcipaddr": "ip.saddr", "dstipaddr": "ip.daddr", "protocol": "ip.protocol"}
_V6: Final = {"srcipaddr": "ip6.saddr", "dstipaddr": "ip6.daddr", "protocol": "ip6.protocol"}
_MASKS: Final = {
    "srcmacmask": "srcmacaddr",
    "dstmacmask": "dstmacaddr",
    "srcipmask": "srcipaddr",
    "dstipmask": "dstipaddr",
    "arpsrcipmask": "arpsrcipaddr",
    "arpdstipmask": "arpdstipaddr",
}
_ENDS: Final = {
    "srcportend": "srcportstart",
    "dstportend": "dstportstart",
    "srcipto": "srcipfrom",
    "dstipto": "dstipfrom",
}
_UPPER: Final = {
    "tcp": 6,
    "udp": 17,
    "icmp": 1,
    "icmpv6": 58,
    "igmp": 2,
    "esp": 50,
    "ah": 51,
    "udplite": 136,
    "sctp": 132,
}
_KNOWN: Final = frozenset({"tcp", "udp", "icmp", "icmpv6"})
"""Protocols that have connections here; of ICMP, pings and errors."""
_STATES: Final = frozenset({"new", "established", "related", "invalid"})
_ENDS_OF: Final = (
    ("ether.src", "ether.dst"),
    ("ip.saddr", "ip.daddr"),
    ("ip6.saddr", "ip6.daddr"),
    ("tcp.sport", "tcp.dport"),
    ("udp.sport", "udp.dport"),
)
_TURNED: Final = {one: other for pair in _ENDS_OF for one, other in (pair, pair[::-1])}
_PORTED: Final = frozenset({"tcp", "udp"})
_REJOINED: Final = {
    "0x800": "ipv4",
    "0x0800": "ipv4",
    "0x806": "arp",
    "0x0806": "arp",
    "0x86dd": "ipv6",
    "0x8035": "rarp",
}
_VARIABLE_KINDS: Final = frozenset({"mac", "ipv4", "ipv6", "port", "vlan", "ethertype", "protocol"})


class Refused(Exception):  # noqa: N818 - it says that one rule cannot be expressed, and is caught
    """A rule that cannot be expressed, at its place."""

    def __init__(self, element: Element, message: str) -> None:
        super().__init__(message)
        self.element = element


class NwRule(msgspec.Struct, frozen=True):
    """A rule's matches as a profile writes them, and which variables it uses.

    `stateful`: libvirt has connection tracking speak of it. `states` are those that the rule itself
    asks for; `answers` are the matches of what answers it, None where no state tells that.
    """

    matches: dict[str, str]
    variables: dict[str, str]
    zipped: frozenset[str]
    stateful: bool
    states: tuple[str, ...] = ()
    answers: dict[str, str] | None = None


def read_rule(element: Element, family: tuple[str, ...]) -> NwRule:
    """What a `rule` element matches, in a chain for frames of `family`.

    Raises:
        Refused: it cannot be expressed.
    """
    if len(element.children) > 1:
        raise Refused(element.children[1], "a rule with two protocols")
    if not element.children:
        matches = {"ether.type": _list(family)} if family else {}
        return NwRule(matches, {}, frozenset(), stateful=False)
    (child,) = element.children
    if child.attributes.get("match", "yes") != "yes":
        raise Refused(
            child, "match='no': accept what matches, and drop the rest by a rule after it"
        )
    return _Matches(child, family).rule()


class _Matches:
    """The matches of one protocol element."""

    def __init__(self, element: Element, family: tuple[str, ...]) -> None:
        self._element = element
        self._family = family
        self._found: dict[str, str] = {}
        self._variables: dict[str, str] = {}
        self._uses: dict[str, tuple[str, str | None]] = {}

    def _refuse(self, message: str) -> Refused:
        return Refused(self._element, message)

    def rule(self) -> NwRule:
        element = self._element
        fields, fixed, stateful = self._protocol(element.name)
        attributes = {
            name: value
            for name, value in element.attributes.items()
            if name not in ("match", "comment", "state")
        }
        states = self._states(element.attributes.get("state", "NONE"))
        known = element.name.partition("-")[0] in _KNOWN
        if states and not known:
            raise self._refuse(f"state of {element.name}: only TCP, UDP and pings have any")
        for name, value in attributes.items():
            if name in _MASKS or name in _ENDS:
                partner = {**_MASKS, **_ENDS}[name]
                if partner not in attributes:
                    raise self._refuse(f"{name} without {partner}")
            elif name == "hwtype" and value == "1" and element.name in ("arp", "rarp"):
                continue  # Ethernet: the only one that is read
            elif name == "protocoltype" and value.lower() in ("0x800", "0x0800", "2048"):
                continue
            elif name not in fields:
                raise self._refuse(f"{escape(name, 40)} cannot be expressed")
            else:
                self._add(fields[name], value, self._partner(name, attributes))
        matches = {**fixed, **self._found}
        if not matches and self._family:
            matches = {"ether.type": _list(self._family)}
        written = self._zip(matches)
        if states:
            written[STATE] = _list(states)
        return NwRule(
            written,
            self._variables,
            self._zipped(),
            stateful,
            states,
            _turned(written) if known else None,
        )

    def _states(self, text: str) -> tuple[str, ...]:
        words = tuple(it.strip().lower() for it in text.split(","))
        if words == ("none",):
            return ()
        if not set(words) <= _STATES:
            raise self._refuse(f"state: '{escape(text, 40)}' is none of libvirt's")
        return words

    def _protocol(self, name: str) -> tuple[Mapping[str, str], dict[str, str], bool]:
        """The fields of its attributes, what it means of itself, and whether it has states."""
        if name == "mac":
            fixed = {"ether.type": _list(self._family)} if self._family else {}
            return {**_ETHER, "protocolid": "ether.type"}, fixed, False
        if name == "vlan":
            named = {"vlanid": "vlan.id", "encap-protocol": "vlan.type"}
            return {**_ETHER, **named}, {"ether.type": "[vlan, qinq]"}, False
        if name == "arp":
            return {**_ETHER, **_ARP}, {"ether.type": "arp"}, False
        if name == "rarp":
            return _ETHER, {"ether.type": "rarp"}, False
        if name in ("ip", "ipv6"):
            family = _V4 if name == "ip" else _V6
            return {**_ETHER, **family}, {"ether.type": "ipv4" if name == "ip" else "ipv6"}, False
        upper, _, six = name.partition("-")
        if six not in ("", "ipv6") or (upper not in _UPPER and upper != "all"):
            raise self._refuse(f"protocol {escape(name, 40)} cannot be expressed")
        version = "ip6" if six or upper == "icmpv6" else "ip"
        fields = {
            "srcmacaddr": "ether.src",
            "srcipaddr": f"{version}.saddr",
            "dstipaddr": f"{version}.daddr",
            "srcipfrom": f"{version}.saddr",
            "dstipfrom": f"{version}.daddr",
        }
        if upper in _PORTED:
            fields |= {"srcportstart": f"{upper}.sport", "dstportstart": f"{upper}.dport"}
        if upper in ("icmp", "icmpv6"):
            fields |= {"type": f"{upper}.type", "code": f"{upper}.code"}
        fixed = {"ether.type": "ipv6" if version == "ip6" else "ipv4"}
        if upper != "all":
            fixed = {f"{version}.protocol": str(_UPPER[upper])}
        return fields, fixed, True

    def _partner(self, name: str, attributes: Mapping[str, str]) -> str | None:
        for partner, start in (*_MASKS.items(), *_ENDS.items()):
            if start == name and partner in attributes:
                joint = "-" if partner in _ENDS else "/"
                return f"{joint}{attributes[partner]}"
        return None

    def _add(self, field: str, value: str, partner: str | None) -> None:
        use = _USE.fullmatch(value)
        kind = FIELDS[field].kind
        if use is not None:
            whole = {None, "/32", "/255.255.255.255", "/128", "/ff:ff:ff:ff:ff:ff"}
            if kind not in _VARIABLE_KINDS or partner not in whole:
                raise self._refuse(f"{field}: ${use[1]} cannot stand here")
            self._variables[use[1]] = kind
            self._uses[field] = (use[1], use[2])
            self._found[field] = ""
            return
        if "$" in value or "$" in (partner or ""):
            raise self._refuse(f"{field}: '{escape(value, 40)}' is no variable that can be used")
        self._found[field] = self._constant(field, value, partner)

    def _constant(self, field: str, value: str, partner: str | None) -> str:
        text = value + (partner or "")
        kind = FIELDS[field].kind
        if kind in ("ipv4", "ipv6") and partner is not None and partner.startswith("/"):
            try:
                text = str(ipaddress.ip_network(text, strict=False))
            except ValueError:
                raise self._refuse(f"{field}: '{escape(text, 60)}' is no network") from None
        if field in ("ether.type", "vlan.type"):
            text = _REJOINED.get(text.lower(), text)
        text = text.lower()
        if not re.fullmatch(r"[a-z0-9.:/-]+", text):
            raise self._refuse(f"{field}: '{escape(value, 60)}' cannot be expressed")
        return f'"{text}"'

    def _zip(self, matches: dict[str, str]) -> dict[str, str]:
        """Uses as a profile writes them: without an iterator libvirt's lists all step together."""
        together = len({name for name, _ in self._uses.values()}) > 1
        for field, (name, iterator) in self._uses.items():
            step = iterator or ("0" if together or iterator else None)
            matches[field] = f"${name}" if step is None else f"${name}@{step}"
        return matches

    def _zipped(self) -> frozenset[str]:
        together = len({name for name, _ in self._uses.values()}) > 1
        return frozenset(
            name for name, iterator in self._uses.values() if together or iterator is not None
        )


def _turned(matches: dict[str, str]) -> dict[str, str]:
    """The matches of what answers: both ends change places, and an ICMP type is another."""
    return {
        _TURNED.get(field, field): value
        for field, value in matches.items()
        if field.partition(".")[0] not in ("icmp", "icmpv6")
    }


def _list(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"[{', '.join(words)}]"
