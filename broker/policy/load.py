"""A policy file's bytes to a `Policy`, or to everything that is wrong with them."""

from __future__ import annotations

import contextlib
import gc
import hashlib
from typing import TYPE_CHECKING

from broker.core.policy import Policy
from broker.policy.check import define
from broker.policy.findings import Findings
from broker.policy.form import PolicyForm
from broker.policy.lint import warnings
from broker.text.marked_yaml import load_partial
from broker.text.problems import ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.text.problems import Problem


def load_policy(data: bytes, source: str) -> Policy:
    """Compile the policy that `data` holds; `source` is the file's name in messages.

    Raises:
        ProblemsError: with every problem found; a policy with one does not load at all.
    """
    with _no_collection():
        return _load(data, source)[1]


def check_policy(data: bytes, source: str) -> tuple[Policy, list[Problem]]:
    """The policy that `data` holds, and warnings: what is unused, redundant or unreachable.

    Raises:
        ProblemsError: as `load_policy`.
    """
    with _no_collection():
        form, policy = _load(data, source)
        return policy, warnings(form, policy, source)


def _load(data: bytes, source: str) -> tuple[PolicyForm, Policy]:
    form, problems = load_partial(data, source, PolicyForm)
    if form is None:
        raise ProblemsError(problems)
    findings = Findings(source)
    definition = define(form, f"sha256:{hashlib.sha256(data).hexdigest()}", findings)
    if problems or findings.problems:
        raise ProblemsError([*problems, *findings.problems])
    return form, Policy(definition)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the cyclic garbage collector.

    A large policy is hundreds of thousands of small objects, none of them garbage yet: looking
    through them again and again takes as long as the loading itself.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
