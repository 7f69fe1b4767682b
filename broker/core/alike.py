"""Labels, and resources, that no channel request can tell apart: one of them stands for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from broker.core.definition import Definition
    from broker.core.reach import Reach

_N = TypeVar("_N", bound=str | None)


class Alike:
    """Which labels, and which resources, no request can tell apart."""

    def __init__(self, definition: Definition, reach: Reach) -> None:
        self._reach = reach
        self._named: set[str | None] = set()
        for rule in definition.rules:
            self._named.update(rule.frontends or (), rule.backends or (), rule.resources or ())
        self._groups: dict[str, list[str]] = {}
        for group, members in definition.groups.items():
            for member in members:
                self._groups.setdefault(member, []).append(group)

    def label(self, name: str) -> object:
        """Equal for labels with the same types, colours and groups that no rule names."""
        own = name if name in self._named else ""
        return self._reach.held(name), tuple(self._groups.get(name, ())), own

    def resource(self, name: str | None) -> object:
        """Equal for resources with the same type and colours that no rule names."""
        held = None if name is None else self._reach.resources.get(name)
        return name if held is None or name in self._named else (held.ste, held.colours)

    def one_of_each(self, names: Iterable[_N], alike: Callable[[_N], object]) -> list[_N]:
        """One name for all that are alike."""
        found: dict[object, _N] = {}
        for name in names:
            found.setdefault(alike(name), name)
        return list(found.values())
