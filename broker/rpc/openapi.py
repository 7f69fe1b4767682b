"""The method table as an OpenAPI 3.1 document: `GET /openapi.json`, and docs/openapi.json."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import msgspec

from broker.rpc.errors import HTTP_STATUS, Code

if TYPE_CHECKING:
    from broker.rpc.table import Method, Table

_REF: Final = "#/components/schemas/{name}"
_JSON: Final = "application/json"
OBJECTS: Final = {
    "broker": "the broker as a whole",
    "domain": "the domain that is named",
    "channel": "the channel that is named",
    "each": "each item: what the caller may not see is left out",
}


class _Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a call was refused: a code for programs, words for people, and places in a file."""

    code: Code
    message: str
    problems: tuple[str, ...] = ()


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """What is answered instead of a result."""

    error: _Refusal


def document(table: Table) -> dict[str, Any]:
    """The whole document, for the methods of `table`."""
    methods = list(table)
    types = [Refused, *(t for method in methods for t in (method.arguments, method.result))]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    refused, *pairs = schemas
    paths = {
        f"/v1/{method.name}": {"post": _operation(method, arguments, result)}
        for method, arguments, result in zip(methods, pairs[::2], pairs[1::2], strict=True)
    }
    for schema in components.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "xen-policy-broker",
            "version": "1",
            "description": "Every call is a POST of one JSON object. Who calls is known from the "
            "client certificate, or on the local socket from the kernel.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {
                str(status): {
                    "description": " or ".join(
                        code for code, its in HTTP_STATUS.items() if its == status
                    ),
                    "content": {_JSON: {"schema": refused}},
                }
                for status in sorted(set(HTTP_STATUS.values()))
            },
            "securitySchemes": {
                "certificate": {
                    "type": "mutualTLS",
                    "description": "subject and role are its URI SANs "
                    "xpb:subject:<name> and xpb:role:<name>",
                }
            },
        },
        "security": [{"certificate": []}],
    }


def text(table: Table) -> bytes:
    """The document's bytes, the same for the same table."""
    return msgspec.json.format(msgspec.json.encode(document(table)), indent=1) + b"\n"


def _operation(method: Method, arguments: Any, result: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON schemas
    if method.stream:
        good = {
            "description": "server-sent events without end; the event `lagged` says how many "
            "were lost",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "x-event": result}},
        }
    else:
        schema = {
            "type": "object",
            "properties": {"result": result},
            "required": ["result"],
            "additionalProperties": False,
        }
        good = {"description": "done", "content": {_JSON: {"schema": schema}}}
    refusals = {
        str(status): {"$ref": f"#/components/responses/{status}"}
        for status in sorted(set(HTTP_STATUS.values()))
    }
    return {
        "operationId": method.name,
        "summary": method.help,
        "description": f"Verb `{method.verb}` on {OBJECTS[method.object]}. `{method.example}`",
        "tags": [method.name.partition(".")[0]],
        "x-writes": method.writes,
        "requestBody": {"required": True, "content": {_JSON: {"schema": arguments}}},
        "responses": {"200": good, **refusals},
    }
