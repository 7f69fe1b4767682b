"""A profile's file to a `Profile`, or to everything that is wrong with it."""

from __future__ import annotations

import difflib
import hashlib
import re
from typing import TYPE_CHECKING, Final

from broker.filters.check import check_profile
from broker.filters.fields import FIELDS
from broker.filters.form import DefaultForm, ProfileForm
from broker.filters.model import (
    DIRECTIONS,
    Include,
    Match,
    Profile,
    Rule,
    Use,
    Variable,
)
from broker.filters.values import parse_rate, parse_value, variable_value
from broker.text.escape import escape
from broker.text.marked_yaml import Text, load_partial
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from broker.filters.fields import Field
    from broker.filters.form import RuleForm, VariableForm
    from broker.filters.model import Bound, Direction, Verdict
    from broker.filters.values import Rate, Value
    from broker.text.marked_yaml import Marked

MAX_BYTES: Final = 64 * 1024
"""A profile's file, at most."""
MAX_STEPS: Final = 256
"""Rules and includes of one profile, at most."""
PROFILE_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,47}")
VARIABLE_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,31}")
_USE: Final = re.compile(r"\$([A-Z][A-Z0-9_]{0,31})(?:@([0-9]))?")
_MAX_PRIORITY: Final = 1000
_MAX_VALUES: Final = 256


def load_profile(data: bytes, source: str) -> Profile:
    """Read the profile that `data` holds; `source` is the file's name in messages.

    Whether what it includes is there is a library's question (`library`).

    Raises:
        ProblemsError: with every problem found.
    """
    if len(data) > MAX_BYTES:
        message = f"a profile has at most {MAX_BYTES} bytes, this has {len(data)}"
        raise ProblemsError([Problem(source, 1, 1, message)])
    form, problems = load_partial(data, source, ProfileForm)
    if form is None:
        raise ProblemsError(problems)
    reader = _Reader(form, source)
    profile = reader.read(f"sha256:{hashlib.sha256(data).hexdigest()}")
    problems += reader.problems
    if not problems:
        problems += check_profile(profile)
    if problems:
        raise ProblemsError(problems)
    return profile


class _Reader:
    """Reads one file's form."""

    def __init__(self, form: ProfileForm, source: str) -> None:
        self._form = form
        self._source = source
        self.problems: list[Problem] = []

    def _bad(self, place: Text | Marked, message: str) -> None:
        self.problems.append(Problem(self._source, place.line, place.column, message))

    def _where(self, place: Text | Marked) -> str:
        return f"{self._source}:{place.line}:{place.column}"

    def read(self, digest: str) -> Profile:
        form = self._form
        self._name(form.profile, PROFILE_NAME, "profile", "small letters, digits and -")
        if not form.description.strip() or not form.description.isprintable():
            self._bad(form.description, "the description is one line for people")
        variables = {
            str(name): self._variable(name, variable) for name, variable in form.variables.items()
        }
        if len(form.rules) > MAX_STEPS:
            self._bad(form.rules[MAX_STEPS], f"more than {MAX_STEPS} rules and includes")
        steps = [
            step
            for number, rule in enumerate(form.rules, 1)
            if (step := self._step(number, rule)) is not None
        ]
        steps.sort(key=lambda step: (step.priority, step.number))
        self._unused(variables, steps)
        return Profile(
            name=str(form.profile),
            description=str(form.description).strip(),
            variables=variables,
            steps=tuple(steps),
            default=self._default(),
            default_where=self._where(form.default),
            digest=digest,
        )

    def _default(self) -> dict[Direction, Verdict]:
        default = self._form.default
        if isinstance(default, DefaultForm):
            return {"from-guest": default.from_guest, "to-guest": default.to_guest}
        if default not in ("accept", "drop"):
            self._bad(default, f"expected accept or drop, not '{escape(default, 60)}'")
        return dict.fromkeys(DIRECTIONS, "accept" if default == "accept" else "drop")

    def _name(self, text: Text, pattern: re.Pattern[str], what: str, made_of: str) -> None:
        if not pattern.fullmatch(text):
            said = escape(text, 60)
            self._bad(text, f"'{said}' cannot name a {what}: {made_of}, beginning with a letter")

    def _variable(self, name: Text, form: VariableForm) -> Variable:
        self._name(name, VARIABLE_NAME, "variable", "capitals, digits and _")
        if form.learn is not None and (form.type != "ipv4" or form.default is not None):
            self._bad(form, "only an ipv4 variable without a default can be learned from DHCP")
        default: Bound | None = None
        if form.default is not None:
            default = self._values_by_default(form)
        return Variable(str(name), form.type, default, form.learn is not None, self._where(name))

    def _values_by_default(self, form: VariableForm) -> Bound | None:
        texts = [form.default] if isinstance(form.default, Text) else list(form.default or ())
        if form.type == "rate" and len(texts) != 1:
            self._bad(form, "a rate's default is one rate")
        values = []
        for text in texts:
            try:
                if form.type == "rate":
                    return parse_rate(text)
                values.append(variable_value(form.type, text))
            except ValueError as error:
                self._bad(text, str(error))
        return tuple(values)

    def _step(self, number: int, form: RuleForm) -> Rule | Include | None:
        kinds = [it for it in (form.accept, form.drop, form.include) if it is not None]
        if len(kinds) != 1:
            if not form.partial:
                self._bad(form, "a rule is one of accept, drop and include")
            return None
        if abs(form.priority) > _MAX_PRIORITY:
            self._bad(form, f"a priority is from -{_MAX_PRIORITY} to {_MAX_PRIORITY}")
        if form.include is not None:
            if form.match is not None or form.limit is not None or form.reason is not None:
                self._bad(form, "an include has no match, limit or reason")
            self._name(form.include, PROFILE_NAME, "profile", "small letters, digits and -")
            return Include(
                str(self._form.profile),
                number,
                str(form.include),
                form.priority,
                self._where(form.include),
            )
        return self._rule(number, form)

    def _rule(self, number: int, form: RuleForm) -> Rule:
        side = form.accept or form.drop
        directions: tuple[Direction, ...] = DIRECTIONS
        if side != "both":
            directions = ("from-guest",) if side == "from-guest" else ("to-guest",)
        matches = [
            match
            for name, value in (form.match or {}).items()
            if (match := self._match(name, value)) is not None
        ]
        if form.reason is not None and not form.reason.isprintable():
            self._bad(form.reason, "a reason is printable text")
        return Rule(
            profile=str(self._form.profile),
            number=number,
            verdict="drop" if form.accept is None else "accept",
            directions=directions,
            matches=tuple(matches),
            limit=None if form.limit is None else self._limit(form.limit),
            priority=form.priority,
            reason=str(form.reason or ""),
            where=self._where(form),
        )

    def _limit(self, text: Text) -> Rate | Use | None:
        if text.startswith("$"):
            use = self._use(text)
            variable = None if use is None else self._form.variables[Text(use.name)]
            if variable is not None and variable.type != "rate":
                self._bad(text, f"limit takes a variable of type rate; it is {variable.type}")
            return use
        try:
            return parse_rate(text)
        except ValueError as error:
            self._bad(text, str(error))
            return None

    def _match(self, name: Text, value: object) -> Match | None:
        field = FIELDS.get(name)
        if field is None:
            close = difflib.get_close_matches(name[:40], list(FIELDS), 1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            self._bad(name, f"unknown field '{escape(name, 60)}'{hint}")
            return None
        if isinstance(value, dict):
            self._bad(name, f"{name} takes a value or a list, not a mapping")
            return None
        listed = value if isinstance(value, list) else [value]
        texts = [text for text in listed if isinstance(text, Text)]
        if len(texts) < len(listed):
            self._bad(name, f"{name} takes a value or a list of values")
            return None
        if not texts:
            self._bad(name, f"an empty list of values never matches {name}")
        if len(texts) > _MAX_VALUES:
            self._bad(name, f"more than {_MAX_VALUES} values")
        if any(text.startswith("$") for text in texts):
            return self._use_match(name, field, texts)
        values = tuple(parsed for text in texts if (parsed := self._value(field, text)) is not None)
        return Match(field.name, values, None, self._where(name))

    def _value(self, field: Field, text: Text) -> Value | None:
        try:
            return parse_value(field.kind, text, field.words, field.bits)
        except ValueError as error:
            self._bad(text, f"{field.name}: {error}")
            return None

    def _use_match(self, name: Text, field: Field, texts: list[Text]) -> Match | None:
        if len(texts) != 1:
            self._bad(name, "a variable stands alone: put constants into a rule of their own")
            return None
        use = self._use(texts[0])
        if use is None:
            return None
        variable = self._form.variables.get(Text(use.name))
        kind = "mac" if field.kind == "lladdr" else field.kind
        if variable is not None and variable.type != kind:
            takes = (
                "constants alone" if kind in ("word", "number") else f"a variable of type {kind}"
            )
            self._bad(texts[0], f"{name} takes {takes}; ${use.name} is {variable.type}")
        if variable is not None and variable.learn is not None and use.iterator is not None:
            self._bad(texts[0], f"${use.name} may be learned: it cannot step with another list")
        return Match(field.name, (), use, self._where(name))

    def _use(self, text: Text) -> Use | None:
        parts = _USE.fullmatch(text)
        if parts is None:
            self._bad(text, f"'{escape(text, 60)}' is no use of a variable: $NAME or $NAME@0 to @9")
            return None
        if parts[1] not in self._form.variables:
            close = difflib.get_close_matches(parts[1], list(self._form.variables), 1)
            hint = f"; did you mean ${close[0]}?" if close else ": declare it in `variables`"
            self._bad(text, f"variable {parts[1]} is not defined{hint}")
            return None
        return Use(parts[1], None if parts[2] is None else int(parts[2]))

    def _unused(self, variables: dict[str, Variable], steps: list[Rule | Include]) -> None:
        """A variable that only what is included uses is declared there, not here."""
        used: set[str] = set()
        for step in steps:
            if isinstance(step, Rule):
                uses = [match.use for match in step.matches]
                used |= {use.name for use in (*uses, step.limit) if isinstance(use, Use)}
        for name in self._form.variables:
            if name in variables and name not in used and not self.problems:
                self._bad(name, f"variable {escape(name, 40)} is not used")
