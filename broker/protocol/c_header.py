"""A class's ring messages as a C99 header that a backend or a driver includes.

Everything in the header that comes from the description is a checked name, a number, or an
expression written anew from its tree; no text of the file is copied into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.protocol.c_common import COMMON
from broker.protocol.c_message import (
    MessageWriter,
    granted_messages,
    rule_constant,
    sums_before,
    word,
)

if TYPE_CHECKING:
    from broker.protocol.ring_table import Place, Ring, Rings, Side


def c_header(name: str, digest: str, rings: Rings) -> str:
    """The header for the class `name`; `digest` is that of its description."""
    prefix = f"xpb_{word(name).lower()}"
    guard = f"{prefix.upper()}_RINGS_H"
    lines = [
        "/*",
        f" * What the ends of a {name} may put on its rings. Made by `brokerctl spec c-header`",
        f" * from {name}.yaml, {digest}.",
        " * Not for editing. C99, no library, no allocation; docs/ring-messages.md explains it.",
        " */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        *COMMON.splitlines(),
        "",
        *_enums(prefix, rings),
        *_rules(prefix, rings),
        *_given(prefix, rings),
    ]
    for ring in rings.rings:
        lines += _RingWriter(prefix, rings, ring).lines()
    lines += ["", f"#endif /* {guard} */", ""]
    return "\n".join(lines)


def _enums(prefix: str, rings: Rings) -> list[str]:
    upper = prefix.upper()
    lines = ["/* Layouts, as the frontend's key `protocol` names them. */", f"enum {prefix}_abi {{"]
    lines += [f"    {upper}_ABI_{word(abi).upper()}," for abi in rings.abis]
    lines += [
        f"    {upper}_ABIS",
        "};",
        "",
        "/* The rules; FINE is none. MISUSE: the caller has not connected, or left out a list. */",
        f"enum {prefix}_rule {{",
        f"    {upper}_FINE = 0,",
    ]
    lines += [f"    {rule_constant(prefix, rule)} = {rule.number}," for rule in rings.rules]
    return [*lines, f"    {upper}_MISUSE = {len(rings.rules) + 1}", "};", ""]


def _rules(prefix: str, rings: Rings) -> list[str]:
    return [
        "/* A rule's name, as the description and the broker have it. */",
        f"static inline const char *{prefix}_rule_name(enum {prefix}_rule rule)",
        "{",
        "    static const char *const names[] = {",
        '        "fine",',
        *(f'        "{rule.name}",' for rule in rings.rules),
        "    };",
        "",
        f'    return (unsigned)rule <= {len(rings.rules)} ? names[(unsigned)rule] : "misuse";',
        "}",
        "",
        "/* Who broke it. */",
        f"static inline enum xpb_party {prefix}_rule_party(enum {prefix}_rule rule)",
        "{",
        "    static const unsigned char parties[] = {",
        "        XPB_NOBODY,",
        *(f"        XPB_{rule.party.upper()}," for rule in rings.rules),
        "    };",
        "",
        f"    if ((unsigned)rule > {len(rings.rules)})",
        "        return XPB_NOBODY;",
        "    return (enum xpb_party)parties[(unsigned)rule];",
        "}",
        "",
    ]


def _given(prefix: str, rings: Rings) -> list[str]:
    lines = [
        "/* What the ends agreed on in xenstore, read before connecting. */",
        f"struct {prefix}_given {{",
    ]
    lines += [
        f"    uint64_t g_{one.name}; /* {one.key}: {one.min} to {one.max} */" for one in rings.given
    ]
    if not rings.given:
        lines.append("    unsigned char nothing;")
    lines += [
        "};",
        "",
        f"static inline int {prefix}_given_good(const struct {prefix}_given *given)",
        "{",
        "    (void)given;",
    ]
    for one in rings.given:
        here = f"given->g_{one.name}"
        if one.min:
            lines += [f"    if ({here} < UINT64_C({one.min}))", "        return 0;"]
        lines += [f"    if ({here} > UINT64_C({one.max}))", "        return 0;"]
    return [*lines, "    return 1;", "}"]


class _RingWriter:
    """Writes one ring."""

    def __init__(self, prefix: str, rings: Rings, ring: Ring) -> None:
        self._prefix = prefix
        self._upper = prefix.upper()
        self._abis = len(rings.abis)
        self._ring = ring
        self._type = f"{prefix}_{word(ring.name)}"
        self._slots = f"{self._type.upper()}_SLOTS"
        self._writers = {
            way: MessageWriter(prefix, ring, side, rings.given, responses=way == "response")
            for way, side in self._sides()
        }

    def _sides(self) -> tuple[tuple[str, Side], tuple[str, Side]]:
        return ("request", self._ring.requests), ("response", self._ring.responses)

    def lines(self) -> list[str]:
        """The ring's types and functions."""
        lines = self._types() + self._connect() + self._fail()
        for way, side in self._sides():
            writer = self._writers[way]
            for place in side.places:
                for message in place.messages:
                    if message.granted is not None:
                        lines += writer.list_function(message, message.granted)
                    lines += writer.function(message)
            lines += self._entry(way, side)
        return lines + self._list_entry()

    def _types(self) -> list[str]:
        title = self._type
        lines = [
            "",
            f"/* The most slots of '{self._ring.name}'; may be set lower, to a power of two. */",
            f"#ifndef {self._slots}",
            f"#define {self._slots} {self._ring.slots}",
            "#endif",
        ]
        for way, side in self._sides():
            lines += ["", f"struct {title}_{way} {{"]
            lines += [f"    unsigned char bytes[{max(side.size)}];", "};"]
            if side.keeps:
                lines += ["", f"struct {title}_{way}_kept {{"]
                lines += [f"    uint64_t k_{name};" for name in side.keeps]
                lines.append("};")
        lines += [
            "",
            "/* One ring of one connection. What has a comment is for the caller to read. */",
            f"struct {title} {{",
            f"    enum {self._prefix}_rule broken; /* the rule that was broken, or FINE */",
            "    uint64_t index; /* by which item of a list */",
            "    uint64_t value; /* by which value or id, where it was one */",
            "    uint64_t wants; /* bytes that the list function has to be given next */",
            f"    struct {self._prefix}_given given;",
            "    unsigned abi;",
            "    uint32_t slots;",
            "    uint32_t in_flight;",
            "    uint32_t unnamed;",
            "    uint32_t oldest;",
            "    unsigned request_place;",
            "    unsigned response_place;",
            "    unsigned waits;",
        ]
        for way, side in self._sides():
            if side.keeps:
                lines.append(f"    struct {title}_{way}_kept {way}_k;")
        granted = granted_messages(self._ring.requests)
        if granted:
            lines.append(f"    struct {title}_request head;")
            if self._ring.requests.keeps:
                lines.append(f"    struct {title}_request_kept head_k;")
            sums = dict.fromkeys(name for one in granted for name in sums_before(one))
            if sums:
                every = " ".join(f"uint64_t s_{name};" for name in sums)
                lines.append(f"    struct {{ {every} }} head_s;")
        if self._ring.in_order:
            lines.append(f"    struct xpb_id queue[{self._slots}];")
        return [*lines, f"    struct xpb_id ids[2 * {self._slots}];", "};"]

    def _connect(self) -> list[str]:
        title = self._type
        lines = [
            "",
            "/*",
            " * Begins a connection: 1, or 0 if something given is out of its range. Until it has",
            " * answered 1, every message is MISUSE. `slots` is the ring's size, a power of two.",
            " */",
            f"static inline int {title}_connect(struct {title} *ring,",
            f"                                  const struct {self._prefix}_given *given,",
            f"                                  enum {self._prefix}_abi abi, uint32_t slots)",
            "{",
            "    uint32_t i;",
            "",
            "    ring->slots = 0;",
            f"    ring->broken = {self._upper}_MISUSE;",
            "    ring->index = ring->value = ring->wants = 0;",
            "    ring->in_flight = ring->unnamed = ring->oldest = 0;",
            "    ring->request_place = ring->response_place = ring->waits = 0;",
        ]
        for way, side in self._sides():
            lines += [f"    ring->{way}_k.k_{name} = 0;" for name in side.keeps]
        return [
            *lines,
            f"    if (!{self._prefix}_given_good(given) || (unsigned)abi >= {self._upper}_ABIS)",
            "        return 0;",
            f"    if (slots == 0 || slots > {self._slots} || (slots & (slots - 1)) != 0)",
            "        return 0;",
            "    ring->given = *given;",
            "    ring->abi = (unsigned)abi;",
            "    for (i = 0; i < 2 * slots; i++)",
            "        ring->ids[i].used = 0;",
            "    ring->slots = slots;",
            f"    ring->broken = {self._upper}_FINE;",
            "    return 1;",
            "}",
            "",
            "/*",
            " * What is given has changed in xenstore, as when a disk is resized: 1, or 0 and",
            " * nothing has changed, if a value is out of its range.",
            " */",
            f"static inline int {title}_agree(struct {title} *ring,",
            f"                                const struct {self._prefix}_given *given)",
            "{",
            f"    if (!{self._prefix}_given_good(given))",
            "        return 0;",
            "    ring->given = *given;",
            "    return 1;",
            "}",
        ]

    def _fail(self) -> list[str]:
        title, rule = self._type, f"enum {self._prefix}_rule"
        return [
            "",
            f"static inline {rule} {title}_fail(struct {title} *ring, {rule} rule,",
            "                                  uint64_t index, uint64_t value)",
            "{",
            "    ring->broken = rule;",
            "    ring->index = index;",
            "    ring->value = value;",
            "    ring->wants = 0;",
            "    ring->waits = 0;",
            "    return rule;",
            "}",
        ]

    def _entry(self, way: str, side: Side) -> list[str]:
        title = self._type
        party = "frontend" if way == "request" else "backend"
        lines = [
            "",
            "/*",
            f" * The next slot that the {party} filled: copied from `shared` into `copy`, then",
            " * checked there. Use the copy alone. FINE, or the rule that was broken; a broken",
            " * ring stays so until it is connected anew.",
            " */",
            f"static inline enum {self._prefix}_rule",
            f"{title}_{way}(struct {title} *ring, const volatile void *shared,",
            f"{' ' * len(f'{title}_{way}')} struct {title}_{way} *copy)",
            "{",
            "    if (ring->slots == 0)",
            f"        return {self._upper}_MISUSE;",
            f"    if (ring->broken != {self._upper}_FINE)",
            "        return ring->broken;",
            "    if (ring->waits != 0)",
            f"        return {self._upper}_MISUSE;",
            *self._copy(side),
            f"    switch (ring->{way}_place) {{",
        ]
        for number, place in enumerate(side.places):
            lines.append(f"    case {number}: {{")
            lines += self._place(way, side, place)
            lines.append("    }")
        lines += ["    default:", f"        return {self._upper}_MISUSE;", "    }", "}"]
        return lines

    def _copy(self, side: Side) -> list[str]:
        if len(set(side.size)) == 1:
            return [f"    xpb_copy(copy->bytes, shared, {side.size[0]});"]
        lines = ["    switch (ring->abi) {"]
        for number, size in enumerate(side.size[:-1]):
            lines += [f"    case {number}:"]
            lines += [f"        xpb_copy(copy->bytes, shared, {size});", "        break;"]
        lines += ["    default:", f"        xpb_copy(copy->bytes, shared, {side.size[-1]});"]
        return [*lines, "        break;", "    }"]

    def _place(self, way: str, side: Side, place: Place) -> list[str]:
        writer = self._writers[way]
        if place.select is None or side.unknown is None:
            only = writer.name(place.messages[0])
            return [f"        return {only}(ring, copy->bytes);"]
        lines = [
            "        const unsigned abi = ring->abi;",
            f"        const uint64_t kind = {writer.read(place.select, 'copy->bytes')};",
            "",
            "        (void)abi;",
            "        switch (kind) {",
        ]
        for message in place.messages:
            lines += [f"        case UINT64_C({value % 2**64}):" for value in message.values]
            lines.append(f"            return {writer.name(message)}(ring, copy->bytes);")
        unknown = rule_constant(self._prefix, side.unknown)
        return [
            *lines,
            "        default:",
            f"            return {self._type}_fail(ring, {unknown}, 0, kind);",
            "        }",
        ]

    def _list_entry(self) -> list[str]:
        granted = granted_messages(self._ring.requests)
        if not granted:
            return []
        title = self._type
        lines = [
            "",
            "/*",
            " * The list that the last request granted pages for, copied out of them by the",
            " * caller: `size` is ring->wants. Until it was checked no other message is looked at.",
            " */",
            f"static inline enum {self._prefix}_rule",
            f"{title}_request_list(struct {title} *ring, const unsigned char *pages, size_t size)",
            "{",
            "    const unsigned waits = ring->waits;",
            "",
            "    if (ring->slots == 0)",
            f"        return {self._upper}_MISUSE;",
            f"    if (ring->broken != {self._upper}_FINE)",
            "        return ring->broken;",
            "    if (waits == 0 || size != ring->wants)",
            f"        return {self._upper}_MISUSE;",
            "    ring->waits = 0;",
            "    ring->wants = 0;",
            "    switch (waits) {",
        ]
        writer = self._writers["request"]
        for number, message in enumerate(granted, 1):
            lines.append(f"    case {number}:")
            lines.append(f"        return {writer.name(message)}__pages(ring, pages);")
        return [*lines, "    default:", f"        return {self._upper}_MISUSE;", "    }", "}"]
