"""What `policy check --prove` is asked: a check and the requests in question, in YAML's short form.

    never-errors
    always-denies: {class: vbd, frontend: red}
    always-allows: {class: vif, frontend: "group:front", backend: Manager}
    implies: [{frontend: web}, {frontend: db}]
    equivalent: [{}, {policy: new.yaml}]
    disjoint: [{backend: storage_red}, {backend: storage_blue}]

A key left out ranges over everything. In a comparison a key of one name takes its place on that
side alone where the other side has another; what only one side names holds for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec.structs import replace

from broker.core.definition import GROUP
from broker.core.proofs import Double, Operand, Proof, Single, Space, compare, prove
from broker.core.reach import MODES
from broker.policy.findings import Findings
from broker.policy.form import Names  # noqa: TC001 - read at run time, for the form
from broker.policy.rules import ANY, listed
from broker.text.marked_yaml import Marked, Text, load_struct
from broker.text.problems import ProblemsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.core.policy import Policy

_NONE: Final = "none"
"""As `resource`: a channel without one."""


class RequestsForm(Marked):
    """Requests in question; in a comparison also the policy that is asked."""

    policy: Text | None = None
    classes: Names | None = msgspec.field(name="class", default=None)
    frontend: Names | None = None
    backend: Names | None = None
    resource: Names | None = None
    mode: Literal["r", "w"] | None = None


class QuestionForm(Marked):
    """One check."""

    never_errors: RequestsForm | None = msgspec.field(name="never-errors", default=None)
    always_allows: RequestsForm | None = msgspec.field(name="always-allows", default=None)
    always_denies: RequestsForm | None = msgspec.field(name="always-denies", default=None)
    implies: tuple[RequestsForm, ...] | None = None
    equivalent: tuple[RequestsForm, ...] | None = None
    disjoint: tuple[RequestsForm, ...] | None = None


_SINGLES: Final[dict[str, Single]] = {
    "never_errors": "never-errors",
    "always_allows": "always-allows",
    "always_denies": "always-denies",
}
_DOUBLES: Final[tuple[Double, ...]] = ("implies", "equivalent", "disjoint")


_PLACES: Final = {
    "classes": "device_class",
    "frontend": "frontend",
    "backend": "backend",
    "resource": "resource",
    "mode": "mode",
}
"""Keys of a side, and what they are called in an operand."""


class Question(msgspec.Struct, frozen=True):
    """A check as it was written, of one policy (`single`) or of two sides (`double`)."""

    source: str
    single: Single | None
    double: Double | None
    sides: tuple[RequestsForm, ...]

    @property
    def policies(self) -> tuple[Text, ...]:
        """The files of other policies that it asks about."""
        return tuple(side.policy for side in self.sides if side.policy is not None)


def read_question(text: str, source: str) -> Question:
    """Read a question; `source` stands for it in messages.

    Raises:
        ProblemsError: it is none.
    """
    words = {*_SINGLES.values(), *_DOUBLES}
    data = f"{text}: {{}}" if text.strip() in words else text
    form = load_struct(data.encode("utf-8", "surrogateescape"), source, QuestionForm)
    findings = Findings(source)
    given: list[Question] = []
    for field, single in _SINGLES.items():
        side: RequestsForm | None = getattr(form, field)
        if side is not None:
            given.append(Question(source, single, None, (side,)))
            if side.policy is not None:
                findings.add(side.policy, f"'policy' goes with {', '.join(_DOUBLES)} alone")
    for double in _DOUBLES:
        sides: tuple[RequestsForm, ...] | None = getattr(form, double)
        if sides is not None:
            given.append(Question(source, None, double, sides))
            if len(sides) != 2:
                findings.add(form, f"'{double}' takes two sides: [{{...}}, {{...}}]")
    if len(given) != 1:
        findings.add(form, f"one check is asked for: one of {', '.join(sorted(words))}")
    if findings.problems:
        raise ProblemsError(findings.problems)
    return given[0]


def answer(question: Question, policy: Policy, others: Mapping[Text, Policy]) -> Proof:
    """Prove it or refute it; `others` are the policies that it names, by name.

    Raises:
        ProblemsError: it names what a policy does not have.
        TooManyError: as `prove`.
    """
    findings = Findings(question.source)
    reader = _Reader(findings)
    policies = [policy if it.policy is None else others[it.policy] for it in question.sides]
    operands = (Operand(), Operand())
    if question.double is None:
        space = reader.space(question.sides[0], policy)
    else:
        operands, space = reader.sides(question.sides, policies)
    if findings.problems:
        raise ProblemsError(findings.problems)
    if question.double is not None:
        return compare(question.double, (policies[0], policies[1]), operands, space)
    return prove(policy, question.single or "never-errors", space)


class _Reader:
    """Resolves what a question names."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def space(self, side: RequestsForm, policy: Policy) -> Space:
        """The requests that one side names."""
        known = policy.definition
        classes = tuple(entry.name for entry in known.classes)
        return Space(
            classes=self._findings.known(listed(side.classes), classes, "class") or classes,
            frontends=self._labels(side.frontend, policy),
            backends=self._labels(side.backend, policy),
            resources=self._resources(side.resource, policy),
            modes=MODES if side.mode is None else (side.mode,),
        )

    def sides(
        self, sides: tuple[RequestsForm, ...], policies: list[Policy]
    ) -> tuple[tuple[Operand, Operand], Space]:
        """What each side puts in its place, and the requests that both are asked."""
        one, other = sides
        both = one
        own: list[dict[str, str]] = [{}, {}]
        for key, named in _PLACES.items():
            first, second = getattr(one, key), getattr(other, key)
            if first is None:
                both = replace(both, **{key: second})
            elif second is not None and first != second:
                for side, policy, values in zip(sides, policies, own, strict=True):
                    values[named] = self._only(key, side, policy)
        first_space, second_space = (self.space(both, policy) for policy in policies)
        space = Space(
            _joined(first_space.classes, second_space.classes),
            _joined(first_space.frontends, second_space.frontends),
            _joined(first_space.backends, second_space.backends),
            first_space.resources,
            first_space.modes,
        )
        return (Operand(**own[0]), Operand(**own[1])), space

    def _only(self, key: str, side: RequestsForm, policy: Policy) -> str:
        """The one name that stands on a side where the other side has another."""
        value = getattr(side, key)
        if isinstance(value, tuple) or str(value).startswith(GROUP) or value in (ANY, _NONE):
            self._findings.add(side, f"'{key}' differs on the two sides: one name on each")
        else:
            self.space(replace(RequestsForm(), **{key: value}), policy)
        return str(value)

    def _labels(self, value: Names | None, policy: Policy) -> tuple[str, ...]:
        groups = policy.definition.groups
        texts = [text for text in listed(value) if text != ANY]
        if not texts:
            return policy.labels
        words = self._findings.known(
            texts, {*policy.labels, *(GROUP + group for group in groups)}, "label"
        )
        found: dict[str, None] = {}
        for word in words:
            group = word.removeprefix(GROUP)
            found.update(dict.fromkeys([word] if group == word else groups[group]))
        return tuple(found)

    def _resources(self, value: Names | None, policy: Policy) -> tuple[str | None, ...] | None:
        texts = [text for text in listed(value) if text != ANY]
        if not texts:
            return None
        names = [resource.name for resource in policy.definition.resources]
        known = self._findings.known([it for it in texts if it != _NONE], names, "resource")
        return (None, *known) if _NONE in texts else known


def _joined(names: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*names, *more)))
