"""The answers of `policy check --prove`: what holds, and what a counterexample is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from broker.cli import offline, show
from broker.cli.client import DENIED, SUCCESS
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.core.policy import Policy
    from broker.core.proofs import Proof, Request

_LIMIT: Final = 4000


class _Asked(msgspec.Struct, frozen=True):
    """A request as JSON, with what it is answered."""

    device_class: str = msgspec.field(name="class")
    frontend: str
    backend: str
    resource: str | None
    mode: str
    verdict: str
    reasons: tuple[offline.ReasonLine, ...]


class _Answer(msgspec.Struct, frozen=True):
    prove: str
    holds: bool
    requests: int
    counterexample: tuple[_Asked, ...]


def answered(policy: Policy, questions: Sequence[str], *, as_json: bool) -> int:
    """Answer each question on its own line; the exit code is 1 if something does not hold.

    Raises:
        ProblemsError: a question is none, names what is not there, or asks too much.
    """
    if not questions:
        return SUCCESS
    from broker.core.proofs import TooManyError  # noqa: PLC0415 - as in offline.policy
    from broker.policy.question import answer, read_question  # noqa: PLC0415

    asked = [
        (text, read_question(text, f"--prove {number}")) for number, text in enumerate(questions, 1)
    ]
    code = SUCCESS
    for text, question in asked:
        others = {name: offline.policy(Path(name)) for name in question.policies}
        try:
            proof = answer(question, policy, others)
        except TooManyError as error:
            raise ProblemsError([Problem(question.source, 1, 1, str(error))]) from None
        named = [policy if side.policy is None else others[side.policy] for side in question.sides]
        requests = [it for it in (proof.counterexample, proof.other) if it is not None]
        told = tuple(_asked(each, it) for each, it in zip(named, requests, strict=False))
        if as_json:
            show.json_line(_Answer(text, proof.holds, proof.requests, told))
        else:
            _print(text, proof, told)
        if not proof.holds:
            code = DENIED
    return code


def _asked(policy: Policy, request: Request) -> _Asked:
    line = offline.verdict_line(policy.explain(*request))
    return _Asked(*request, line.verdict, line.reasons)


def _print(text: str, proof: Proof, told: tuple[_Asked, ...]) -> None:
    word = "holds" if proof.holds else "does not hold"
    show.line(f"{word}: {show.text(text, _LIMIT)} ({proof.requests:,} requests)")
    for asked in told:
        over = "" if asked.resource is None else f" over {show.text(asked.resource)}"
        sides = f"{show.text(asked.frontend)} -> {show.text(asked.backend)}"
        show.item(
            f"{asked.verdict}: ",
            f"{show.text(asked.device_class)} {sides}{over}, mode {asked.mode}",
        )
        for reason in asked.reasons:
            place = f"{reason.where}: " if reason.where else ""
            show.item("  ", show.text(f"{place}{reason.text}", _LIMIT))
