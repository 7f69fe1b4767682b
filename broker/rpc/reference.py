"""The method table as a page for people, docs/rpc.md; run, it writes that and docs/openapi.json.

python -m broker.rpc.reference docs
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from broker.rpc import openapi
from broker.rpc.catalogue import METHODS
from broker.rpc.errors import HTTP_STATUS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.rpc.table import Method, Table

_REF: Final = "{name}"
_END: Final = r"(?!\n)"
"""Of a pattern: Python's `$` also matches before a last newline, which nobody need read."""
_HEAD: Final = """\
# The broker's calls

Made from the method table (`broker/rpc/catalogue.py`) by `.venv/bin/python
-m broker.rpc.reference docs`; a test holds it to the table.

`POST /v1/<method>` with a JSON object (`Content-Type: application/json`), over TLS 1.3 with a
client certificate or on the local unix socket. The answer is `{"result": ...}`, or `{"error":
{"code", "message", "problems"}}`. A stream is server-sent events, each with one JSON value. The
same as OpenAPI 3.1: `GET /openapi.json`, and [openapi.json](openapi.json). A domain is named by
its domid, uuid or name; `domid:`, `uuid:` or `name:` before it says which.

| code | HTTP status |
|---|---|
"""


def documents(table: Table) -> dict[str, bytes]:
    """The files in docs/ that are made from `table`, by name."""
    return {"openapi.json": openapi.text(table), "rpc.md": page(table).encode("utf-8")}


def page(table: Table) -> str:
    """The whole page, for the methods of `table`."""
    methods = list(table)
    types = [t for method in methods for t in (method.arguments, method.result)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    parts = [_HEAD]
    parts += [f"| `{code}` | {status} |\n" for code, status in HTTP_STATUS.items()]
    parts.append("\n| method | verb | on | |\n|---|---|---|---|\n")
    parts += [
        f"| [`{it.name}`](#{it.name.replace('.', '')}) | `{it.verb}`"
        f"{' (changes)' if it.writes else ''} | {it.object} | {it.help} |\n"
        for it in methods
    ]
    for method, arguments, result in zip(methods, schemas[::2], schemas[1::2], strict=True):
        parts += _method(method, components[arguments["$ref"]], result)
    parts.append("\n## Types\n")
    used = {schema["$ref"] for schema in schemas[::2]}
    for name in sorted(components.keys() - used):
        parts += [f"\n### type {name}\n\n", *_described(components[name])]
    return "".join(parts)


def _method(
    method: Method, arguments: Mapping[str, Any], result: Mapping[str, Any]
) -> Iterable[str]:
    yield f"\n## {method.name}\n\n{_sentence(method.help)} Verb `{method.verb}` on "
    yield f"{openapi.OBJECTS[method.object]}.\n"
    yield f"\n    {method.example}\n"
    if arguments.get("properties"):
        yield "\nArguments. "
        yield from _described(arguments)
    yield f"\n{'Each event' if method.stream else 'Result'}: {_type(result)}\n"


def _described(schema: Mapping[str, Any]) -> Iterable[str]:
    words = inspect.cleandoc(schema.get("description", "")).replace("\n", " ").replace("  ", "\n\n")
    yield f"{words}\n\n| field | type | default |\n|---|---|---|\n"
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        default = "" if name in required else f"`{msgspec.json.encode(field['default']).decode()}`"
        yield f"| `{name}` | {_type(field)} | {default} |\n"


def _type(schema: Mapping[str, Any]) -> str:
    """A field's type in words."""
    if "$ref" in schema:
        return f"[{schema['$ref']}](#type-{schema['$ref'].lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"] if value is not None)
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object":
        return f"map of {_type(schema.get('additionalProperties', {}))}"
    bounds = [
        f"{word} {schema[key]}"
        for key, word in (
            ("minimum", "from"),
            ("maximum", "to"),
            ("minLength", "at least"),
            ("maxLength", "at most"),
        )
        if key in schema
    ]
    if "pattern" in schema:
        bounds.append(f"`{schema['pattern'].removesuffix(_END)}`".replace("|", "\\|"))
    return " ".join([kind, *bounds])


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


if __name__ == "__main__":
    for name, data in documents(METHODS).items():
        (Path(sys.argv[1]) / name).write_bytes(data)
