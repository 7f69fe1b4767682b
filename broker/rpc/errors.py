"""What a call can fail with: one exception, a code that programs compare, words for people.

And what serving can.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

Code = Literal[
    "bad_request",
    "denied",
    "not_found",
    "conflict",
    "too_large",
    "bad_input",
    "too_many",
    "internal",
    "unavailable",
]

HTTP_STATUS: Final[dict[str, int]] = {
    "bad_request": 400,
    "denied": 403,
    "not_found": 404,
    "conflict": 409,
    "too_large": 413,
    "bad_input": 422,
    "too_many": 429,
    "internal": 500,
    "unavailable": 503,
}
CODES: Final[frozenset[str]] = frozenset(get_args(Code))


class RpcError(Exception):
    """A call was refused; a handler raises it, the server answers it, the client raises it again.

    `code` says who has to act: `bad_request` (the call itself is malformed), `denied` (the
    caller may not, or the policy denies it), `not_found` (no such method, domain, label or
    channel), `conflict` (the policy to be replaced is not the one in force, or dom0's agent did
    not do what was ordered), `too_large`, `bad_input` (a good call with values that will not do),
    `too_many` (calls or connections of one subject: wait), `internal` (the broker's log says
    more), `unavailable` (no store, no policy, no agent that answers, or shutting down).
    `message` says what is wrong and what to do. `problems` are lines such as
    `file:line:column: message`.
    """

    def __init__(self, code: Code, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code: Code = code
        self.message = message
        self.problems = problems


def error_body(error: RpcError) -> bytes:
    """An error as the JSON that answers a call."""
    return msgspec.json.encode(
        {"error": {"code": error.code, "message": error.message, "problems": error.problems}}
    )


class ListenError(ValueError):
    """A place to listen at is not written as it should be, or cannot be taken."""
