"""Commands for the methods that no module has a better one for, made from the table alone.

A mandatory field is an argument, any other an option; the result is written field by field.
"""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from broker.cli import client, groups, show
from broker.rpc.catalogue import METHODS
from broker.rpc.client import Lagged

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from broker.rpc.client import Client
    from broker.rpc.table import Method

_LONGEST: Final = 2000


def register(commands: groups.Commands) -> None:
    """Add a command for every method that has none; to be called last.

    A method whose example is of another command has that one.
    """
    for method in METHODS:
        words = method.name.split(".")
        if method.example.split()[1:][: len(words)] != words:
            continue
        group, _, action = method.name.rpartition(".")
        taken = groups.group(commands, group).choices if group else commands.choices
        if action not in taken:
            leaf = client.method_command(commands, method.name, _runner(method))
            arguments(leaf, method)


def arguments(leaf: groups.Parser, method: Method) -> None:
    """Give `leaf` what the method takes."""
    hints = get_type_hints(method.arguments, include_extras=True)
    for field in msgspec.structs.fields(method.arguments):
        kind, choices = _plain(hints[field.name])
        name = field.encode_name.replace("_", "-")
        options: dict[str, Any] = {"metavar": name.upper()}
        if choices:
            options = {"choices": choices}
        elif kind is int:
            options["type"] = int
        if field.required:
            leaf.add_argument(field.name, **options)
        elif kind is bool:
            leaf.add_argument(f"--{name}", dest=field.name, action="store_true")
        else:
            leaf.add_argument(f"--{name}", dest=field.name, **options)


def _plain(hint: Any) -> tuple[type, tuple[str, ...]]:  # noqa: ANN401 - annotations have no common type
    """Below `Annotated` and `| None`: the type, and the values it is limited to."""
    if get_origin(hint) is Annotated:
        return _plain(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return str, get_args(hint)
    inner = [part for part in get_args(hint) if part is not type(None)]
    if inner:
        return _plain(inner[0])
    return hint, ()


def _runner(method: Method) -> Callable[[Client, argparse.Namespace], int]:
    fields = [field.name for field in msgspec.structs.fields(method.arguments)]

    def run(broker: Client, options: argparse.Namespace) -> int:
        given = {name: getattr(options, name) for name in fields}
        if method.stream:
            for event in client.stream(broker, method.name, **given):
                if isinstance(event, Lagged):
                    client.complain(f"{event.lost} events lost: this end did not read in time")
                else:
                    show.json_line(event)
            return client.SUCCESS
        result = client.call(broker, method.name, **given)
        rows = result if isinstance(result, tuple) else (result,)
        for number, row in enumerate(rows):
            if options.json:
                show.json_line(row)
                continue
            if number:
                show.line("")
            show.facts([(show.text(k), show.text(v, _LONGEST)) for k, v in _flat("", row)])
        return client.SUCCESS

    return run


def _flat(prefix: str, value: object) -> list[tuple[str, str | None]]:
    """A result as names and values: `channel.class`, `reasons.0.text`."""
    plain = msgspec.to_builtins(value)
    if isinstance(plain, dict):
        parts = [(str(key), part) for key, part in plain.items()]
    elif isinstance(plain, list | tuple):
        parts = [(str(at), part) for at, part in enumerate(plain)]
    else:
        return [(prefix or "result", None if plain is None else str(plain))]
    return [pair for key, part in parts for pair in _flat(f"{prefix}.{key}".lstrip("."), part)]
