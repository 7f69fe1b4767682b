"""A policy file's bytes to a `Policy`, or to everything that is wrong with them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from broker.core.policy import Policy
from broker.policy.check import define
from broker.policy.findings import Findings
from broker.policy.form import PolicyForm
from broker.text.marked_yaml import load_struct
from broker.text.problems import ProblemsError

if TYPE_CHECKING:
    from broker.core.definition import Definition


def load_policy(data: bytes, source: str) -> Policy:
    """Compile the policy that `data` holds; `source` is the file's name in messages.

    Raises:
        ProblemsError: with every problem found; a policy with one does not load at all.
    """
    return Policy(load_definition(data, source))


def load_definition(data: bytes, source: str) -> Definition:
    """The checked but not compiled policy that `data` holds.

    Raises:
        ProblemsError: as `load_policy`.
    """
    form = load_struct(data, source, PolicyForm)
    findings = Findings(source)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    definition = define(form, digest, findings)
    if findings.problems:
        raise ProblemsError(findings.problems)
    return definition
