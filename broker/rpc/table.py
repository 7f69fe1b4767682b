"""One method table: what can be asked of the broker. Routes, client and brokerctl follow it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Object = Literal["broker", "domain", "channel", "each"]

_NAME: Final = re.compile(r"[a-z]+(\.[a-z]+)?")


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base of every method's arguments: unknown fields are refused."""


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """One entry: everything that anybody has to know of a method.

    `name` is `object.action` as in `POST /v1/<name>`. `result` is what one call answers, or,
    with `stream`, each event. `verb` is what a role has to grant, and `object` on what: the
    `broker` as a whole, the `domain` or the `channel` that the arguments name, or `each` item
    of the answer (the handler leaves out what the caller may not see). `writes` says that a
    call changes something (and is audited before it does); the verb `read` of a role covers
    the methods that do not. `example` is a line of brokerctl.
    """

    name: str
    arguments: type[Arguments]
    result: Any
    verb: str
    object: Object
    writes: bool = False
    stream: bool = False
    help: str
    example: str

    @property
    def handler(self) -> str:
        """The name of the `Admin` method that answers: `label.set` is `label_set`."""
        return self.name.replace(".", "_")


class Table:
    """The methods by name, in the order they were given.

    Raises:
        ValueError: a name is malformed or given twice.
    """

    def __init__(self, methods: Iterable[Method]) -> None:
        self._methods: dict[str, Method] = {}
        for method in methods:
            if not _NAME.fullmatch(method.name) or method.name in self._methods:
                raise ValueError(f"method name malformed or given twice: {method.name}")
            self._methods[method.name] = method

    def __iter__(self) -> Iterator[Method]:
        return iter(self._methods.values())

    def find(self, name: str) -> Method | None:
        """The method of that name, or None."""
        return self._methods.get(name)

    def __getitem__(self, name: str) -> Method:
        return self._methods[name]
