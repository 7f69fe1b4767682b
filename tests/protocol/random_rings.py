"""Random `ring:` sections: every feature of the language, in combinations nobody would write."""

from __future__ import annotations

import yaml

TYPES = ("u8", "u8", "u8", "u16", "u32", "u64", "s8", "s16", "s32")
BYTES = {"8": 1, "16": 2, "32": 4, "64": 8}
SIGNS = ("or", "and", "<", "<=", ">", ">=", "==", "!=", "&", "+", "-", "*")
ABIS = ("one-abi", "other-abi")


class Maker:
    """Makes one section with a single ring."""

    def __init__(self, draw, ring):
        self.draw = draw
        self.ring = ring
        self.count = 0

    def section(self):
        """The section, as a file has it."""
        draw = self.draw
        given = {
            f"g{n}": {"key": f"backend/g{n}", "min": 1, "max": draw.choice((1, 7, 10**17))}
            for n in range(draw.randrange(1, 4))
        }
        self.given = list(given)
        ring = {
            "slots": draw.choice((1, 2, 8)),
            "in-flight": draw.choice(("by-id", "in-order")),
            "requests": self._side("q", responses=False),
            "responses": self._side("s", responses=True),
        }
        return yaml.safe_dump(
            {"abis": list(ABIS), "given": given, "rings": {self.ring: ring}}, sort_keys=False
        )

    def _new(self, start):
        self.count += 1
        return f"{start}{self.count}"

    def _side(self, start, *, responses):
        draw = self.draw
        names = [f"{start}-place{n}" for n in range(draw.randrange(1, 4))]
        keeps = [f"{start}k{n}" for n in range(draw.randrange(3))]
        places = {}
        for name in names:
            place = {}
            if draw.random() < 0.6:
                place["select"] = {"type": draw.choice(("u8", "s8")), "at": 0}
            many = draw.randrange(1, 4) if "select" in place else 1
            place["messages"] = {
                self._new("m"): self._message(place, n, names, keeps, responses=responses)
                for n in range(many)
            }
            places[name] = place
        return {"size": [100, 90], "places": places}

    def _message(self, place, number, places, keeps, *, responses):
        draw = self.draw
        fields, ends = self._fields(draw.randrange(1, 6), (1, 1), "f")
        # Every field a small number at times, for ids that are met again.
        names = [*fields, *keeps, *self.given, *(["asked"] if responses else [])]
        message = {"fields": fields}
        if "select" in place:
            message["values"] = [[0, 1], [2], [3]][number]
        message["rules"] = self._rules(names)
        lists = {}
        for n in range(draw.randrange(3)):
            made, ends = self._list(names, fields, ends, granted=False)
            lists[f"l{n}"] = made
            names += made["sums"]
        if not responses and draw.random() < 0.3:
            lists["far"], _ = self._list(names, fields, ends, granted=True)
        message["lists"] = lists
        unsigned = [name for name, one in fields.items() if one["type"][0] == "u"]
        if unsigned and draw.random() < 0.7:
            message["id"] = draw.choice(unsigned)
        kept = [*fields, *keeps, *self.given]
        if not responses and draw.random() < 0.5:
            message["remember"] = self._expression(kept)
        message["keep"] = {name: self._expression(kept) for name in keeps if draw.random() < 0.7}
        message["next"] = {name: self._expression(kept) for name in places if draw.random() < 0.4}
        return message

    def _fields(self, many, starts, start):
        draw = self.draw
        ends = list(starts)
        fields = {}
        for _ in range(many):
            kind = draw.choice(TYPES)
            size = BYTES[kind[1:]]
            at = [ends[0] + draw.randrange(3), ends[1]]
            ends = [at[0] + size, at[1] + size]
            one = {"type": kind, "at": at}
            signed = kind[0] == "s"
            check = draw.randrange(8)
            if check == 0:
                one["min"] = -2 if signed else 1
            elif check == 1:
                one["max"] = 100
            elif check == 2:
                one["one-of"] = [0, 1, 2, 3, -1 if signed else 4]
            elif check == 3 and not signed:
                one["bits"] = 7
            fields[self._new(start)] = one
        return fields, tuple(ends)

    def _list(self, names, fields, ends, *, granted):
        draw = self.draw
        items, size = self._fields(draw.randrange(1, 4), (0, 0), "i")
        inner = [*names, *items]
        item = max(size) + draw.randrange(2)
        most = draw.randrange(1, 4)
        counted = draw.choice(list(fields))
        made = {
            "item": item,
            "count": f"{counted} & {draw.choice((1, 3))}",
            "fields": items,
            "rules": self._rules(inner),
            "sums": {self._new("s"): self._expression(inner) for _ in range(draw.randrange(3))},
        }
        made["whole"] = self._rules([*names, *made["sums"]], "w")
        if granted or max(ends) + most * item > 90:
            if not granted:
                made.update(at=[99, 89], item=1, most=1, count="0", fields={}, rules={}, sums={})
                made["whole"] = {}
            return made, ends
        made.update(at=list(ends), most=most)
        unsigned = [name for name, one in items.items() if one["type"][0] == "u"]
        made["distinct"] = [draw.choice(unsigned)] if unsigned and draw.random() < 0.5 else []
        return made, tuple(end + most * item for end in ends)

    def _rules(self, names, start="x"):
        """Rules that seldom break."""
        draw = self.draw
        return {
            self._new(start): f"({self._expression(names)}) % {draw.choice((5, 7))} != 4"
            for _ in range(draw.randrange(3))
        }

    def _expression(self, names, depth=0):
        draw = self.draw
        if depth > 2 or draw.random() < 0.35:
            numbers = ("0", "1", "3", "255", "999999999999999999")
            return draw.choice(names) if draw.random() < 0.8 else draw.choice(numbers)
        if draw.random() < 0.15:
            divisor = draw.choice(("2", "512", *self.given))
            return f"({self._expression(names, depth + 1)}) {draw.choice('/%')} {divisor}"
        sides = [self._expression(names, depth + 1) for _ in range(2)]
        return f"({sides[0]}) {draw.choice(SIGNS)} ({sides[1]})"
