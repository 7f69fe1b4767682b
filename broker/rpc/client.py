"""A small blocking client over the local socket or TLS, for brokerctl: no Twisted, fast start.

With TLS 1.3 a client is done with the handshake before the broker has looked at its certificate:
nothing counts until the broker has answered.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from broker.rpc.address import Address, local, open_connection
from broker.rpc.catalogue import METHODS
from broker.rpc.errors import CODES, Code, RpcError

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


class Client:
    """Calls the broker at `where`, a local socket's path or an address; a connection a call.

    `timeout` is in seconds, for each step of a call; in a stream it is how long nothing at all
    may come (the server sends a comment every 15 s).
    """

    def __init__(self, where: str | Address, timeout: float = 60.0) -> None:
        self._address = local(where) if isinstance(where, str) else where
        self._timeout = timeout

    def call(self, name: str, arguments: Arguments) -> Any:  # noqa: ANN401 - the table says which
        """The result of one call, of the table's type for `name`.

        Raises:
            AddressError: a certificate, key or CA does not read.
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
            AddressError: a certificate, key or CA does not read.
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
        raise UnreachableError(f"the broker at {self._address.text} ended the stream")

    def _post(
        self, method: Method, arguments: Arguments
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        body = msgspec.json.encode(arguments)
        if len(body) > MAX_BODY_BYTES:
            raise RpcError("too_large", f"{len(body)} bytes to send; {MAX_BODY_BYTES} are allowed")
        connection = open_connection(self._address, self._timeout)
        headers = {"Content-Type": "application/json"}
        try:
            connection.connect()
        except ssl.SSLError as error:
            connection.close()
            raise self._lost(error) from None
        except OSError as error:
            connection.close()
            may = ", and are you root?" if self._address.credentials is None else "?"
            raise UnreachableError(
                f"cannot reach the broker at {self._address.text}: {error.strerror or error}; "
                f"is brokerd running{may}"
            ) from None
        try:
            # Refused before all was read: the answer that says why may be there already.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
                connection.request("POST", f"/v1/{method.name}", body, headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._lost(error) from None
        return connection, response

    def _lost(self, error: Exception) -> UnreachableError | RpcError:
        if isinstance(error, ssl.SSLError):
            reason = (error.reason or str(error)).lower().replace("_", " ")
            if "alert" in reason:
                return RpcError("denied", f"the broker does not take this certificate: {reason}")
            why = getattr(error, "verify_message", "") or reason
            return UnreachableError(
                f"what answers at {self._address.text} is not shown to be the broker: {why}"
            )
        if isinstance(error, TimeoutError):
            return UnreachableError(
                f"the broker at {self._address.text} did not answer within {self._timeout:g} s"
            )
        return UnreachableError(
            f"the broker at {self._address.text} hung up before it answered "
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
