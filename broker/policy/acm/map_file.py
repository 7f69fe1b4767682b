"""ACM's `.map` files: which number each label had in a compiled policy.

Columns are parted by white space, and label names may hold some: a name is what stands between
the fixed first columns and the number at the end.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from broker.text.escape import escape
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAGIC: Final = 0x0001DEBC
_MAX_BYTES: Final = 16 * 2**20
_LABEL: Final = re.compile(
    r"LABEL->SSID\s+(ANY|VM|RES)\s+(CHWALL|STE)\s+(\S.*?)\s+([0-9A-Fa-f]{1,8})\s*"
)
_HEADER: Final = re.compile(
    r"(POLICYREFERENCENAME|MAGIC|POLICFILE|POLICY FILE|BINARYFILE|BINARY FILE|PRIMARY|SECONDARY"
    r"|MAX-(?:CHWALL|STE)-(?:TYPES|SSIDS|LABELS))\s+(.*?)\s*"
)
_IGNORED: Final = ("SSID->TYPE ", "TYPE ")
_COMPONENTS: Final = ("CHWALL", "STE", "NULL")


class MapFile(msgspec.Struct, frozen=True):
    """What a map says: for each component, the numbers of VM labels and of resource labels."""

    policy: str
    primary: str
    secondary: str
    labels: Mapping[str, Mapping[str, int]]
    resources: Mapping[str, Mapping[str, int]]

    def ssidref(self, name: str, *, resource: bool = False) -> int:
        """The reference of a label; the primary component's number is the lower half.

        Raises:
            KeyError: the map has no such label.
        """
        tables = self.resources if resource else self.labels
        if not any(name in table for table in tables.values()):
            raise KeyError(name)
        low, high = (tables.get(part, {}).get(name, 0) for part in (self.primary, self.secondary))
        return high << 16 | low

    def label_of(self, ssidref: int) -> str | None:
        """The one VM label both halves of a reference name; None where they name none, or many.

        Where one component has no number for it (0), the other alone must be unambiguous.
        """
        found: set[str] | None = None
        for part, number in ((self.primary, ssidref & 0xFFFF), (self.secondary, ssidref >> 16)):
            if part == "NULL" or number == 0:
                continue
            table = self.labels.get(part, {})
            names = {name for name, held in table.items() if held == number}
            found = names if found is None else found & names
        if not found or len(found) > 1:
            return None
        (name,) = found
        return name if self.ssidref(name) == ssidref else None


def read_map(data: bytes, source: str) -> MapFile:
    """The map in `data`.

    Raises:
        ProblemsError: with every line that is not one of a map.
    """
    if len(data) > _MAX_BYTES:
        said = f"the file has {len(data)} bytes; at most {_MAX_BYTES} are read"
        raise ProblemsError([Problem(source, 1, 1, said)])
    reader = _Reader(source)
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), 1):
        reader.line(number, line.rstrip("\r"))
    return reader.result()


class _Reader:
    """Reads a map line by line."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._problems: list[Problem] = []
        self._header: dict[str, str] = {}
        self._tables: dict[str, dict[str, dict[str, int]]] = {"VM": {}, "RES": {}}

    def _bad(self, number: int, message: str) -> None:
        self._problems.append(Problem(self._source, number, 1, message))

    def line(self, number: int, line: str) -> None:
        if not line.strip() or line.startswith(_IGNORED):
            return
        match = _LABEL.fullmatch(line)
        if match is not None:
            self._label(number, *match.groups())
            return
        match = _HEADER.fullmatch(line)
        if match is None:
            self._bad(number, f"not a line of a map: {escape(line, 60)}")
        elif self._header.setdefault(match[1], match[2]) != match[2]:
            self._bad(number, f"{match[1]} is given twice")

    def _label(self, number: int, kind: str, component: str, name: str, digits: str) -> None:
        if kind == "ANY":
            # The place of what has no label: number 0, and nobody's here.
            if int(digits, 16) != 0:
                self._bad(number, "an ANY label has number 0")
            return
        table = self._tables[kind].setdefault(component, {})
        value = int(digits, 16)
        if not 0 < value <= 0xFFFF:
            self._bad(number, f"number {escape(digits)} is not in 1 to ffff")
        elif name in table:
            self._bad(number, f"label '{escape(name, 60)}' has a number already")
        else:
            table[name] = value

    def result(self) -> MapFile:
        header = self._header
        if header.get("MAGIC", "").lower() != f"{_MAGIC:08x}":
            self._bad(1, f"not a map: MAGIC is not {_MAGIC:08x}")
        if not header.get("POLICYREFERENCENAME"):
            self._bad(1, "not a map: POLICYREFERENCENAME is missing")
        primary, secondary = (header.get(part, "") for part in ("PRIMARY", "SECONDARY"))
        if primary not in _COMPONENTS or secondary not in _COMPONENTS:
            self._bad(1, "PRIMARY and SECONDARY are CHWALL, STE or NULL")
        if self._problems:
            raise ProblemsError(self._problems)
        return MapFile(
            header["POLICYREFERENCENAME"],
            primary,
            secondary,
            self._tables["VM"],
            self._tables["RES"],
        )
