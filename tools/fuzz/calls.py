"""Any bytes as the body of any call: its arguments, or one refusal that can be shown."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import msgspec

from broker.rpc.catalogue import METHODS
from broker.rpc.decode import decode_arguments
from broker.rpc.errors import RpcError
from tools.fuzz.expected import UnexpectedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_METHODS = tuple(METHODS)


def run(data: bytes) -> None:
    """Read `data` as the arguments of the method that its first byte says.

    Raises:
        UnexpectedError: they are of another type, a key was given twice, or the refusal cannot
            be shown.
    """
    if not data:
        return
    method = _METHODS[data[0] % len(_METHODS)]
    try:
        arguments = decode_arguments(method, data[1:])
    except RpcError as error:
        if error.code != "bad_request" or not str(error).isprintable():
            raise UnexpectedError(f"{method.name}: {error!a}") from error
        return
    if not isinstance(arguments, method.arguments):
        raise UnexpectedError(f"{method.name} got {arguments!a}")
    written = msgspec.json.encode(arguments)
    if decode_arguments(method, written) != arguments:
        raise UnexpectedError(f"{method.name}: {arguments!a} is written as {written!a}")


def seeds() -> Iterator[bytes]:
    """An object of each method's own fields, with little in them."""
    for number, method in enumerate(_METHODS):
        names = [field.encode_name for field in msgspec.structs.fields(method.arguments)]
        for value in ("a", 1, True, None, {}, ["a"]):
            yield bytes((number,)) + json.dumps(dict.fromkeys(names, value)).encode()


def words() -> Iterator[bytes]:
    """Every field, and JSON's own."""
    for seed in seeds():
        yield from re.findall(rb'"[a-z_]+"', seed)
    yield from (b"null", b"true", b"1e999", b"NaN", b"{}", b"[]", b'"\\ud800"', b'":', b'",')
