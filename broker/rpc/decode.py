"""A request's body, read strictly: one meaning for every text, and everything else refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Never

import msgspec

from broker.rpc.errors import RpcError
from broker.text.escape import printable

if TYPE_CHECKING:
    from broker.rpc.table import Arguments, Method

MAX_PROBLEM_CHARACTERS: Final = 300
"""What a caller sent is quoted in a message up to this length."""


def decode_arguments(method: Method, untrusted_body: bytes) -> Arguments:
    """The arguments of a call; an empty body is `{}`.

    Raises:
        RpcError: `bad_request`: not UTF-8, not JSON, not one object, a key given twice at any
            depth, an unknown or missing field, a wrong type or a value out of range.
    """
    try:
        text = (untrusted_body or b"{}").decode("utf-8")
        # The values come from msgspec; the standard parser only looks for what msgspec lets
        # pass: keys given twice, of which another reader might take the other one.
        json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
        arguments = msgspec.json.decode(text, type=method.arguments)
    except UnicodeDecodeError as error:
        raise _bad(method, f"the body is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise _bad(method, "the body is nested too deep") from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise _bad(method, str(error)) from None
    return arguments


def _without_duplicates(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise ValueError(f"key given twice: {key!a}")
        seen.add(key)


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


def _bad(method: Method, what: str) -> RpcError:
    wanted = ", ".join(field.encode_name for field in msgspec.structs.fields(method.arguments))
    shown = printable(what, MAX_PROBLEM_CHARACTERS)
    return RpcError(
        "bad_request", f"{method.name}: {shown}; it takes a JSON object of: {wanted or 'nothing'}"
    )
