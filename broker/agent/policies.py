"""The policy files that an operator keeps for the agent: found by digest, never by name.

The broker's signed records say which policy they were decided under, so a file needs no trust of
its own: its exact bytes either have that digest or it is not the policy.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from broker.policy.load import load_policy
from broker.text.escape import escape
from broker.text.problems import ProblemsError

if TYPE_CHECKING:
    from pathlib import Path

    from broker.core.policy import Policy

_MAX_BYTES: Final = 64 << 20


class MissingPolicyError(Exception):
    """No file is the policy asked for; says what to do."""


def find_policy(directory: Path, digest: str) -> Policy:
    """The policy among the `*.yaml` files of `directory` whose bytes have `digest`.

    Raises:
        MissingPolicyError: there is none, or it cannot be read.
    """
    unread: list[str] = []
    try:
        files = sorted(path for path in directory.glob("*.yaml") if path.is_file())
    except OSError as error:
        raise MissingPolicyError(f"{directory} cannot be read: {error}") from error
    for path in files:
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES)
        except OSError as error:
            unread.append(str(error))
            continue
        if f"sha256:{hashlib.sha256(data).hexdigest()}" == digest:
            try:
                return load_policy(data, str(path))
            except ProblemsError as error:
                raise MissingPolicyError(f"policy {digest}: {escape(str(error))}") from error
    also = f" ({'; '.join(unread)})" if unread else ""
    raise MissingPolicyError(
        f"no file in {directory} is policy {digest}: copy the policy in force there{also}"
    )
