"""A small blocking client over the unix socket, for brokerctl: no Twisted, fast start."""

from __future__ import annotations

import contextlib
import http.client
import socket
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from broker.rpc.errors import CODES, Code, RpcError
from broker.rpc.methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.rpc.table import Arguments, Method

MAX_BODY_BYTES: Final = 1 << 20
"""What the server reads at most; a larger call is not sent."""
_MAX_EVENT_BYTES: Final = 1 << 20
_NO_RESULT: Final = msgspec.Raw()


class UnreachableError(Exception):
    """No broker answers there, or it went away before it did; the message says what to do."""


class Lagged(msgspec.Struct, frozen=True):
    """In a stream: `lost` events were dropped because this client did not read in time."""

    lost: int


class _Error(msgspec.Struct, frozen=True):
    code: str
    message: str
    problems: tuple[str, ...] = ()


class _Answer(msgspec.Struct, frozen=True):
    result: msgspec.Raw = _NO_RESULT
    error: _Error | None = None


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """Calls the broker at the socket `path`; every call has a connection of its own.

    `timeout` is in seconds, for each step of a call; in a stream it is how long nothing at all
    may come (the server sends a comment every 15 s).
    """

    def __init__(self, path: str, timeout: float = 60.0) -> None:
        self._path = path
        self._timeout = timeout

    def call(self, name: str, arguments: Arguments) -> Any:  # noqa: ANN401 - the table says which
        """The result of one call, of the table's type for `name`.

        Raises:
            UnreachableError: nobody answers.
            RpcError: the broker refused; see its `code`.
        """
        method = METHODS[name]
        connection, response = self._post(method, arguments)
        try:
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from None
        finally:
            connection.close()
        return _result(method, response.status, body)

    def stream(self, name: str, arguments: Arguments) -> Iterator[Any]:
        """The events of a stream, of the table's type for `name`, and `Lagged`; it has no end.

        Raises:
            UnreachableError: nobody answers, or the stream ended.
            RpcError: the broker refused.
        """
        method = METHODS[name]
        connection, response = self._post(method, arguments)
        try:
            if response.status != http.client.OK:
                _result(method, response.status, response.read())
            yield from _events(method, response)
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from None
        finally:
            connection.close()
        raise UnreachableError(f"the broker at {self._path} ended the stream")

    def _post(
        self, method: Method, arguments: Arguments
    ) -> tuple[_Connection, http.client.HTTPResponse]:
        body = msgspec.json.encode(arguments)
        if len(body) > MAX_BODY_BYTES:
            raise RpcError("too_large", f"{len(body)} bytes to send; {MAX_BODY_BYTES} are allowed")
        connection = _Connection(self._path, self._timeout)
        headers = {"Content-Type": "application/json"}
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise UnreachableError(
                f"cannot reach the broker at {self._path}: {error.strerror or error}; "
                "is brokerd running, and are you root?"
            ) from None
        try:
            # Refused before all was read: the answer that says why may be there already.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", f"/v1/{method.name}", body, headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._lost(error) from None
        return connection, response

    def _lost(self, error: Exception) -> UnreachableError:
        if isinstance(error, TimeoutError):
            return UnreachableError(
                f"the broker at {self._path} did not answer within {self._timeout:g} s"
            )
        return UnreachableError(
            f"the broker at {self._path} hung up before it answered "
            f"({type(error).__name__}); see its log"
        )


def _result(method: Method, status: int, body: bytes) -> Any:  # noqa: ANN401 - the table says which
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        if answer.error is not None:
            code = answer.error.code if answer.error.code in CODES else "internal"
            raise RpcError(cast("Code", code), answer.error.message, answer.error.problems)
        if status == http.client.OK and bytes(answer.result):
            return msgspec.json.decode(answer.result, type=method.result)
    except msgspec.MsgspecError:
        pass
    raise UnreachableError(
        f"what answers {method.name} is no broker of this version (HTTP status {status})"
    )


def _events(method: Method, response: http.client.HTTPResponse) -> Iterator[Any]:
    kind, data = "", b""
    while line := response.readline(_MAX_EVENT_BYTES):
        field, _, value = line.rstrip(b"\r\n").partition(b": ")
        if field == b"event":
            kind = value.decode("ascii", "replace")
        elif field == b"data":
            data = value
        elif not field and data and not value:
            try:
                yield msgspec.json.decode(data, type=Lagged if kind == "lagged" else method.result)
            except msgspec.MsgspecError:
                raise UnreachableError(
                    f"what streams {method.name} is no broker of this version"
                ) from None
            kind, data = "", b""
