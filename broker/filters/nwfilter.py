"""A libvirt nwfilter's XML to a profile's text: what can be expressed, and what cannot, in place.

What libvirt calls `out` is from the guest, `in` to it. A filter that ends without a verdict passes
there, so the profile's default is accept. `return` and `accept` both end the profile: other
profiles still have to accept, so nothing opens by that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Never

import msgspec

from broker.filters.fields import STATE
from broker.filters.load import PROFILE_NAME, load_profile
from broker.filters.nwfilter_rules import CHAINS, NwRule, Refused, read_rule
from broker.text.escape import escape
from broker.text.problems import Problem, ProblemsError
from broker.text.xml_tree import read_xml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.text.xml_tree import Element

_DIRECTIONS: Final = {"out": "from-guest", "in": "to-guest", "inout": "both"}
_ACTIONS: Final = {"accept": "accept", "return": "accept", "drop": "drop", "reject": "drop"}
_FIRST: Final = -1000
_INCLUDE_PRIORITY: Final = -500
_RULE_PRIORITY: Final = 500


class Converted(msgspec.Struct, frozen=True):
    """The profile's text, and what of the filter is not in it (`left_out`)."""

    text: str
    left_out: tuple[Problem, ...]


def convert(data: bytes, source: str) -> Converted:
    """Write the profile that a libvirt filter is.

    Raises:
        ProblemsError: it is no filter, or what was written would be no good profile.
    """
    root = read_xml(data, source, "", "libvirt's filters")
    if root.name != "filter":
        said = f"element {escape(root.name, 60)}: a libvirt filter's root is 'filter'"
        raise ProblemsError([Problem(source, root.line, root.column, said)])
    writer = _Writer(root, source)
    text = writer.text()
    load_profile(text.encode("utf-8"), f"{source} as a profile")
    return Converted(text, tuple(writer.left_out))


class _Writer:
    def __init__(self, root: Element, source: str) -> None:
        self._root = root
        self._source = source
        self.left_out: list[Problem] = []
        self._variables: dict[str, str] = {}
        self._zipped: set[str] = set()

    def _bad(self, element: Element, message: str) -> None:
        self.left_out.append(Problem(self._source, element.line, element.column, message))

    def _stop(self, element: Element, message: str) -> Never:
        raise ProblemsError([Problem(self._source, element.line, element.column, message)])

    def text(self) -> str:
        """The whole file."""
        root = self._root
        name = root.attributes.get("name", "")
        if not PROFILE_NAME.fullmatch(name):
            self._stop(
                root, f"'{escape(name, 60)}' cannot name a profile: small letters, digits, -"
            )
        chain = root.attributes.get("chain", "root")
        family = next((types for start, types in CHAINS if chain.startswith(start)), None)
        if family is None:
            self._stop(root, f"chain '{escape(chain, 40)}' has nothing that it could become")
        steps = [line for child in root.children for line in self._step(child, family)]
        lines = [f"profile: {name}", f"description: as libvirt's filter {name}"]
        if self._variables:
            lines.append("variables:")
            for variable, kind in sorted(self._variables.items()):
                learn = ", learn: dhcp" if self._learned(variable) else ""
                lines.append(f"  {variable}: {{type: {kind}{learn}}}")
        lines.append("default: accept")
        if steps:
            lines += ["rules:", *steps]
        return "".join(f"{line}\n" for line in lines)

    def _learned(self, variable: str) -> bool:
        return variable == "IP" and variable not in self._zipped

    def _step(self, element: Element, family: tuple[str, ...]) -> Iterator[str]:
        if element.name == "uuid":
            return
        if element.name == "filterref":
            yield from self._include(element)
        elif element.name == "rule":
            try:
                yield from self._rule(element, family)
            except Refused as error:
                self._bad(error.element, str(error))
        else:
            self._bad(element, f"element {escape(element.name, 60)} is not known")

    def _include(self, element: Element) -> Iterator[str]:
        name = element.attributes.get("filter", "")
        if element.children:
            self._bad(element, "parameters of a filterref: give them where the profile is attached")
        elif not PROFILE_NAME.fullmatch(name):
            self._bad(element, f"'{escape(name, 60)}' cannot name a profile")
        else:
            priority = self._priority(element, _INCLUDE_PRIORITY)
            yield f"  - {{include: {name}, priority: {priority}}}"

    def _rule(self, element: Element, family: tuple[str, ...]) -> Iterator[str]:
        action = element.attributes.get("action", "")
        direction = _DIRECTIONS.get(element.attributes.get("direction", ""))
        if action == "continue":
            return
        if action not in _ACTIONS or direction is None:
            raise Refused(element, "a rule has an action and a direction of libvirt's")
        rule = read_rule(element, family)
        self._declare(element, rule)
        stateless = element.attributes.get("statematch", "") in ("0", "false")
        verb, priority = _ACTIONS[action], self._priority(element, _RULE_PRIORITY)
        plain = stateless or not rule.stateful or direction == "both" or rule.states
        if verb == "drop" or plain:
            yield _line(verb, direction, rule.matches, priority)
            return
        if rule.answers is None:
            raise Refused(
                element,
                "answers pass by connection state, which only TCP, UDP and pings have here: say "
                "statematch='false', and accept them by a rule of their own",
            )
        (other,) = {"from-guest", "to-guest"} - {direction}
        yield _line(verb, direction, rule.matches | {STATE: "[new, established]"}, priority)
        yield _line(verb, other, rule.answers | {STATE: "established"}, priority)

    def _priority(self, element: Element, default: int) -> int:
        text = element.attributes.get("priority", str(default))
        try:
            priority = int(text)
        except ValueError:
            priority = _FIRST - 1
        if abs(priority) > -_FIRST:
            raise Refused(element, f"'{escape(text, 20)}' is no priority")
        return priority

    def _declare(self, element: Element, rule: NwRule) -> None:
        for name, kind in rule.variables.items():
            if self._variables.setdefault(name, kind) != kind:
                raise Refused(
                    element, f"variable {name} is {self._variables[name]} and {kind}: rename one"
                )
        self._zipped |= rule.zipped


def _line(verb: str, direction: str, matches: dict[str, str], priority: int) -> str:
    said = ", ".join(f"{field}: {value}" for field, value in matches.items())
    match = f", match: {{{said}}}" if said else ""
    return f"  - {{{verb}: {direction}{match}, priority: {priority}}}"
