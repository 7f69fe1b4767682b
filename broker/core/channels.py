"""One channel: from the facts about both ends to what is decided, and whether that is news.

The facts come from the toolstack's own copy of the device (`/libxl`), the labels of both ends
and the backend agent's report; never from what the guest owns.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

import msgspec

from broker.core.observation import OBSERVED
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.core.policy import Policy
    from broker.core.record import Record, Verdict

Question = tuple[str, str, str, str | None, str]
"""Class, frontend's and backend's label, resource, mode."""
Memo = dict[Question, tuple[bool, str]]
"""What one policy answered to questions."""
MAX_MEMO: Final = 4096
_NONCE: Final = re.compile(rb"[0-9a-f]{32}")


class Standing(msgspec.Struct, frozen=True):
    """How a domain stands: its label, and why none of its channels may open (empty: they may).

    `word` is the first word of `/vm/<uuid>/security/status`. `shadow`: another domain lives
    under the same uuid and was there first; what is shown for the uuid is that one's.
    """

    label: str | None
    word: str
    reason: str
    quarantined: bool = False
    shadow: bool = False

    @property
    def good(self) -> bool:
        """Whether this domain may take part in channels at all."""
        return self.word == "labelled"

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.word}: {self.reason}" if self.reason else self.word

    def __str__(self) -> str:
        """The text of the status node."""
        return f"{self.word} {self.reason}" if self.reason else self.word


Ends = tuple[tuple[int, Standing], tuple[int, Standing]]
"""Frontend and backend: domid, and how it stands."""


class Facts(msgspec.Struct, frozen=True):
    """What one decision is made on.

    `device` holds the device's own keys as the toolstack wrote them, `inputs` is their
    `inputs_digest`. `problem` says what is
    malformed about the device itself. `nonce` is what the backend's agent reported (or, while
    its report is missing or unusable, the last one decided on); `spent` says where a nonce was
    used before, if that is all there is.
    """

    frontend: int
    backend: int
    device_class: str
    uuid: str | None
    device: Mapping[str, bytes]
    inputs: str
    problem: str
    ends: tuple[Standing, Standing]
    untrusted_nonce: bytes | None
    spent: str = ""


class Decision(msgspec.Struct, frozen=True):
    """A record without its name and number: two equal decisions need no new record."""

    verdict: Verdict
    uuid: str | None
    nonce: str | None
    inputs: str | None
    labels: tuple[str | None, str | None]
    resource: str | None
    policy: str | None
    spec: str | None
    reason: str


def decision_of(record: Record) -> Decision:
    """What a record decided."""
    return Decision(
        record.verdict,
        record.uuid,
        record.nonce,
        record.inputs,
        record.labels,
        record.resource,
        record.policy,
        record.spec,
        record.reason,
    )


def decide(
    policy: Policy | None,
    specs: Mapping[str, str],
    facts: Facts,
    memo: Memo | None = None,
    now: float = math.inf,
) -> Decision:
    """Decide one channel; whatever is unknown, absent or malformed is a denial.

    `specs` maps a protocol description's name to its digest. A channel that would be granted
    but whose backend agent has reported no usable nonce is `pending`. `memo` keeps what this
    policy answered: many channels ask the same. What observe mode opens at `now` (POSIX seconds)
    is granted, and its reason says that and why it would be denied; without a time it is over.
    """
    frontend, backend = facts.ends
    resource: str | None = None
    spec: str | None = None
    problem = facts.problem
    granted = False
    if not problem:
        ends = ((facts.frontend, frontend), (facts.backend, backend))
        spec, problem = hindrance(policy, specs, facts.device_class, ends)
    if not problem and policy is not None and frontend.label and backend.label:
        try:
            texts = {key: value.decode("utf-8") for key, value in facts.device.items()}
        except UnicodeDecodeError:
            problem = "the device's keys are not UTF-8"
        else:
            resource = policy.resource_for(facts.device_class, texts)
            mode = "r" if texts.get("mode") == "r" else "w"
            question = (facts.device_class, frontend.label, backend.label, resource, mode)
            granted, problem = _answer(policy, question, {} if memo is None else memo)
            if not granted and policy.observes(now, *question[:4]):
                granted, problem = True, f"{OBSERVED} would be denied: {problem}"
    verdict: Verdict = "grant" if granted else "deny"
    nonce = None if facts.spent else parse_nonce(facts.untrusted_nonce)
    if granted and nonce is None:
        verdict = "pending"
        problem = _nonce_problem(facts)
    return Decision(
        verdict,
        facts.uuid,
        nonce,
        facts.inputs,
        (frontend.label, backend.label),
        resource,
        policy.digest if policy is not None else None,
        spec,
        problem,
    )


def hindrance(
    policy: Policy | None, specs: Mapping[str, str], device_class: str, ends: Ends
) -> tuple[str | None, str]:
    """The description's digest, and why the policy need not even be asked (empty: it must be).

    `ends` are the domids of frontend and backend, and how they stand.
    """
    if policy is None:
        return None, "no policy is in force"
    protocol = policy.protocol_of(device_class)
    if protocol is None:
        return None, f"class {escape(device_class, 40)} has no description in the policy"
    spec = specs.get(protocol)
    if spec is None:
        return None, f"protocol description {protocol} is not loaded"
    return spec, standing_problem(ends)


def parse_nonce(untrusted_nonce: bytes | None) -> str | None:
    """The nonce if it is one, 32 hex digits, else None."""
    if untrusted_nonce is None or not _NONCE.fullmatch(untrusted_nonce):
        return None
    return untrusted_nonce.decode("ascii")


def _answer(policy: Policy, question: Question, memo: Memo) -> tuple[bool, str]:
    """Whether the policy grants, and its reasons in words."""
    answer = memo.get(question)
    if answer is None:
        verdict = policy.explain(*question)
        reasons = "; ".join([reason.text for reason in verdict.reasons])
        answer = memo[question] = (verdict.granted, reasons)
        if len(memo) > MAX_MEMO:
            del memo[next(iter(memo))]
    return answer


def standing_problem(ends: Ends) -> str:
    """Why one of two domains may take part in no channel (empty: both may)."""
    for side, (domid, standing) in zip(("frontend", "backend"), ends, strict=True):
        if standing.quarantined:
            return f"quarantined: {side} domain {domid}, {standing.reason}"
        if not standing.good or standing.label is None:
            return f"{side} domain {domid} is {standing.words}"
    return ""


def _nonce_problem(facts: Facts) -> str:
    if not facts.untrusted_nonce:
        return "no nonce reported by the backend's agent"
    if facts.spent:
        return f"the nonce reported by the backend's agent was used before: {facts.spent}"
    return "the nonce reported by the backend's agent is not 32 hex digits"
