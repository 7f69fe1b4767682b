"""The C function that checks one kind of message, from its table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.protocol.ring_expression import as_c, written

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.protocol.ring_table import (
        Condition,
        Field,
        Given,
        ItemList,
        Message,
        Ring,
        Rule,
        Side,
    )

_TOP: Final = 2**64


def word(name: str) -> str:
    """A name of the description as part of a C identifier."""
    return name.replace("-", "_").replace(".", "__")


def rule_constant(prefix: str, rule: Rule) -> str:
    """The enumerator of a rule: XPB_VBD_IO__TRANSFER__SEG__ORDER."""
    return f"{prefix.upper()}_{word(rule.name).upper()}"


class MessageWriter:
    """Writes the functions of the messages of one ring's side."""

    def __init__(
        self, prefix: str, ring: Ring, side: Side, given: Iterable[Given], *, responses: bool
    ) -> None:
        self._prefix = prefix
        self._type = f"{prefix}_{word(ring.name)}"
        self._ring = ring
        self._side = side
        self._responses = responses
        self._direction = "response" if responses else "request"
        self._variables = {one.name: f"ring->given.g_{one.name}" for one in given}
        self._variables |= {name: f"ring->{self._direction}_k.k_{name}" for name in side.keeps}
        self._variables["asked"] = "asked"

    def name(self, message: Message) -> str:
        """The function's name."""
        return f"{self._type}__{word(message.name)}"

    def function(self, message: Message) -> list[str]:
        """The lines of the function that checks `message`."""
        variables = self._variables | {one.name: f"v_{one.name}" for one in message.fields}
        lines = [
            "",
            f"static inline enum {self._prefix}_rule",
            f"{self.name(message)}(struct {self._type} *ring, const unsigned char *bytes)",
            "{",
            "    const unsigned abi = ring->abi;",
        ]
        if self._responses:
            lines.append("    uint64_t asked = 0;")
        inline = [one for one in message.lists if one.at is not None]
        for one in inline:
            lines += [f"    uint64_t s_{total.name} = 0;" for total in one.sums]
        lines += self._fields(message.fields, "bytes", "    ")
        lines += ["", "    (void)abi;", "    (void)bytes;"]
        lines += self._checks(message.fields, "0", "    ")
        if self._responses:
            lines += self._answer(message)
        lines += self._conditions(message.conditions, variables, "0", "    ")
        for one in inline:
            lines += self._list(one, variables, f"bytes + {_offset(one.at or ())}")
            variables |= {total.name: f"s_{total.name}" for total in one.sums}
        if not self._responses:
            lines += self._ask(message, variables)
        lines += self._go_on(message, variables)
        return [*lines, f"    return {self._prefix.upper()}_FINE;", "}"]

    def list_function(self, message: Message, one: ItemList) -> list[str]:
        """The lines of the function that checks the list in granted pages."""
        variables = self._variables | {field.name: f"v_{field.name}" for field in message.fields}
        lines = [
            "",
            f"static inline enum {self._prefix}_rule",
            f"{self.name(message)}__pages(struct {self._type} *ring, const unsigned char *pages)",
            "{",
            "    const unsigned char *bytes = ring->head.bytes;",
            "    const unsigned abi = ring->abi;",
        ]
        variables |= {name: f"ring->head_k.k_{name}" for name in self._side.keeps}
        variables |= {name: f"ring->head_s.s_{name}" for name in sums_before(message)}
        lines += [f"    uint64_t s_{total.name} = 0;" for total in one.sums]
        lines += self._fields(message.fields, "bytes", "    ")
        lines += ["", "    (void)abi;"]
        lines += [f"    (void)v_{field.name};" for field in message.fields]
        lines += self._list(one, variables, "pages")
        return [*lines, f"    return {self._prefix.upper()}_FINE;", "}"]

    def _fail(self, rule: Rule, index: str = "0", value: str = "0") -> str:
        constant = rule_constant(self._prefix, rule)
        return f"return {self._type}_fail(ring, {constant}, {index}, {value});"

    def read(self, field: Field, base: str) -> str:
        """The C expression that reads a field of the message at `base`."""
        kind = f"{'s' if field.signed else 'u'}{field.size * 8}"
        return f"xpb_{kind}({base} + {_offset(field.at)})"

    def _fields(self, fields: Iterable[Field], base: str, indent: str) -> list[str]:
        lines = []
        for field in fields:
            read = self.read(field, base)
            if field.signed:
                lines.append(f"{indent}const uint64_t r_{field.name} = {read};")
                read = f"xpb_positive(r_{field.name})"
            lines.append(f"{indent}const uint64_t v_{field.name} = {read};")
        return lines

    def _checks(self, fields: Iterable[Field], index: str, indent: str) -> list[str]:
        lines = []
        for field in fields:
            raw = f"{'r' if field.signed else 'v'}_{field.name}"
            lines.append(f"{indent}(void)v_{field.name};")
            for check in field.checks:
                values = [f"UINT64_C({value % _TOP})" for value in check.values]
                if check.kind == "one-of":
                    bad = " && ".join(f"{raw} != {value}" for value in values)
                elif check.kind == "bits":
                    bad = f"({raw} & ~{values[0]}) != 0"
                else:
                    sign = "<" if check.kind == "min" else ">"
                    bad = f"{raw} {sign} {values[0]}"
                    if field.signed:
                        bad = f"xpb_order({raw}) {sign} xpb_order({values[0]})"
                lines += [
                    f"{indent}if ({bad})",
                    f"{indent}    {self._fail(check.rule, index, raw)}",
                ]
        return lines

    def _conditions(
        self, conditions: Iterable[Condition], variables: dict[str, str], index: str, indent: str
    ) -> list[str]:
        lines = []
        for one in conditions:
            lines += [
                f"{indent}/* {written(one.expression)} */",
                f"{indent}if ({as_c(one.expression, variables)} == 0)",
                f"{indent}    {self._fail(one.rule, index)}",
            ]
        return lines

    def _list(self, one: ItemList, variables: dict[str, str], base: str) -> list[str]:
        inner = variables | {field.name: f"v_{field.name}" for field in one.fields}
        lines = ["    {", f"        const uint64_t count = {as_c(one.count, variables)};"]
        lines.append("        uint64_t i;")
        for distinct in one.distinct:
            name = distinct.field.name
            lines += [f"        uint64_t m_{name}[2] = {{0, 0}}, d_{name} = 0;"]
        lines.append("")
        if one.count_rule is not None:
            lines += [
                f"        if (count > {one.most})",
                f"            {self._fail(one.count_rule)}",
            ]
        lines += [
            "        for (i = 0; i < count; i++) {",
            f"            const unsigned char *item = {base} + (size_t)i * {one.item};",
            *self._fields(one.fields, "item", " " * 12),
            "",
            "            (void)item;",
            *self._checks(one.fields, "i", " " * 12),
            *self._conditions(one.conditions, inner, "i", " " * 12),
        ]
        for total in one.sums:
            reckoned = as_c(total.expression, inner)
            lines.append(f"            s_{total.name} = xpb_add(s_{total.name}, {reckoned});")
        for distinct in one.distinct:
            name = distinct.field.name
            lines.append(f"            d_{name} |= xpb_maybe(m_{name}, v_{name});")
        lines.append("        }")
        for distinct in one.distinct:
            lines += self._distinct(distinct.field, distinct.rule, one.item, base)
        lines.append("    }")
        lines += [f"    (void)s_{total.name};" for total in one.sums]
        after = variables | {total.name: f"s_{total.name}" for total in one.sums}
        return lines + self._conditions(one.whole, after, "0", "    ")

    def _distinct(self, field: Field, rule: Rule, item: int, base: str) -> list[str]:
        read = self.read(field, f"{base} + (size_t)%s * {item}")
        return [
            f"        for (i = 1; d_{field.name} != 0 && i < count; i++) {{",
            f"            const uint64_t value = {read % 'i'};",
            "            uint64_t j;",
            "",
            "            for (j = 0; j < i; j++)",
            f"                if ({read % 'j'} == value)",
            f"                    {self._fail(rule, 'i', 'value')}",
            "        }",
        ]

    def _ask(self, message: Message, variables: dict[str, str]) -> list[str]:
        name = "0" if message.id is None else variables[message.id]
        asked = "0" if message.remember is None else as_c(message.remember, variables)
        lines = []
        if message.id is not None and self._ring.twice is not None:
            lines += [
                f"    if (!xpb_put(ring->ids, 2 * ring->slots - 1, {name}, {asked}))",
                f"        {self._fail(self._ring.twice, '0', name)}",
            ]
        lines += [
            "    if (ring->in_flight >= ring->slots)",
            f"        {self._fail(self._ring.full)}",
        ]
        if self._ring.in_order:
            last = "(ring->oldest + ring->in_flight) & (ring->slots - 1)"
            lines += [
                f"    ring->queue[{last}].id = {name};",
                f"    ring->queue[{last}].asked = {asked};",
                f"    ring->queue[{last}].used = {int(message.id is not None)};",
            ]
        elif message.id is None:
            lines.append("    ring->unnamed++;")
        lines.append("    ring->in_flight++;")
        granted = message.granted
        if granted is not None:
            count = as_c(granted.count, variables)
            lines += [
                f"    xpb_copy(ring->head.bytes, bytes, {_offset(self._side.size)});",
                f"    ring->wants = xpb_mul({count}, {granted.item});",
            ]
            # The list is checked with what was known here, not where the packet goes on.
            lines += [f"    ring->head_s.s_{name} = s_{name};" for name in sums_before(message)]
            if self._side.keeps:
                lines.append("    ring->head_k = ring->request_k;")
            lines += [
                "    if (ring->wants == 0) {",
                f"        {self.name(message)}__pages(ring, bytes);",
                f"        if (ring->broken != {self._prefix.upper()}_FINE)",
                "            return ring->broken;",
                "    } else {",
                f"        ring->waits = {self._message_number(message)};",
                "    }",
            ]
        return lines

    def _message_number(self, message: Message) -> int:
        return granted_messages(self._side).index(message) + 1

    def _answer(self, message: Message) -> list[str]:
        name = "0" if message.id is None else f"v_{message.id}"
        stray = f"        {self._fail(self._ring.stray, '0', name)}"
        if self._ring.in_order:
            lines = ["    if (ring->in_flight == 0)", stray]
            if message.id is not None:
                oldest = "ring->queue[ring->oldest]"
                lines += [f"    if (!{oldest}.used || {oldest}.id != {name})", stray]
            lines += [
                "    asked = ring->queue[ring->oldest].asked;",
                "    if (ring->queue[ring->oldest].used) {",
                "        uint64_t forgotten;",
                "",
                "        xpb_take(ring->ids, 2 * ring->slots - 1, ring->queue[ring->oldest].id,",
                "                 &forgotten);",
                "    }",
                "    ring->oldest = (ring->oldest + 1) & (ring->slots - 1);",
            ]
        elif message.id is not None:
            taken = f"xpb_take(ring->ids, 2 * ring->slots - 1, {name}, &asked)"
            lines = [f"    if (!{taken})", stray]
        else:
            lines = ["    if (ring->unnamed == 0)", stray, "    ring->unnamed--;"]
        return [*lines, "    ring->in_flight--;", "    (void)asked;"]

    def _go_on(self, message: Message, variables: dict[str, str]) -> list[str]:
        lines = []
        kept = f"ring->{self._direction}_k.k_"
        if message.keeps:
            lines += ["    {"]
            lines += [
                f"        const uint64_t t_{one.name} = {as_c(one.expression, variables)};"
                for one in message.keeps
            ]
            lines += [""]
            lines += [f"        {kept}{one.name} = t_{one.name};" for one in message.keeps]
            lines += ["    }"]
        places = [place.name for place in self._side.places]
        for one in message.nexts:
            lines += [
                f"    if ({as_c(one.expression, variables)} != 0) {{",
                f"        ring->{self._direction}_place = {places.index(one.name)};",
                f"        return {self._prefix.upper()}_FINE;",
                "    }",
            ]
        lines.append(f"    ring->{self._direction}_place = 0;")
        return lines + [f"    {kept}{name} = 0;" for name in self._side.keeps]


def granted_messages(side: Side) -> list[Message]:
    """The messages of a side that come with a list in granted pages."""
    every = (one for place in side.places for one in place.messages)
    return [one for one in every if one.granted is not None]


def sums_before(message: Message) -> list[str]:
    """The sums that a message's list in granted pages may speak of: those of the lists before."""
    return [total.name for one in message.lists[:-1] for total in one.sums]


def _offset(at: tuple[int, ...]) -> str:
    """A number of bytes as C: chosen by `abi` where the layouts differ."""
    if len(set(at)) == 1:
        return str(at[0])
    chosen = str(at[-1])
    for number in range(len(at) - 2, -1, -1):
        chosen = f"(abi == {number} ? {at[number]} : {chosen})"
    return chosen
