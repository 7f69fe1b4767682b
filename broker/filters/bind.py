"""A vif's profiles with its variables: what each rule's matches stand for there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.filters.model import Library, Rule, Use
from broker.filters.values import Rate, parse_rate, variable_value
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from broker.filters.model import Bound, Environment, Match, Variable
    from broker.filters.values import Value

MAX_VALUES = 64
"""Values of one variable on one vif, at most."""


class BindError(ValueError):
    """A vif's variables do not fit its profiles; says which and why."""


def variables_of(library: Library, names: Sequence[str]) -> dict[str, Variable]:
    """Every variable that these profiles and what they include declare.

    Raises:
        BindError: a profile is not there, or two declare one name differently.
    """
    found: dict[str, Variable] = {}
    try:
        profiles = library.closure(names)
    except KeyError as error:
        raise BindError(f"there is no filter profile {escape(str(error), 90)}") from None
    for profile in profiles:
        for variable in profile.variables.values():
            other = found.setdefault(variable.name, variable)
            if other.type != variable.type:
                raise BindError(
                    f"variable {variable.name} is {other.type} at {other.where} and "
                    f"{variable.type} at {variable.where}"
                )
            if other.default is None and not other.learned:
                continue
            if variable.default is None and not variable.learned:
                found[variable.name] = variable  # one that needs a value wins
    return found


def parse_bound(variable: Variable, values: Iterable[str]) -> Bound:
    """What a variable stands for where it is given `values`.

    Raises:
        BindError: they are not of its type, or too many.
    """
    texts = list(values)
    most = 1 if variable.type == "rate" else MAX_VALUES
    if len(texts) > most or (variable.type == "rate" and not texts):
        said = "takes one rate" if variable.type == "rate" else f"takes {most} values at most"
        raise BindError(f"variable {variable.name} {said}, not {len(texts)}")
    try:
        if variable.type == "rate":
            return parse_rate(texts[0])
        return tuple(variable_value(variable.type, text) for text in texts)
    except ValueError as error:
        raise BindError(f"variable {variable.name}: {error}") from None


def assigned(
    variables: Iterable[tuple[str, Variable]],
    given: Mapping[str, Sequence[str]],
    parse: Callable[[Variable, Any], Bound] = parse_bound,
) -> tuple[Environment, tuple[str, ...]]:
    """What each of these variables stands for, and which are to be learned.

    `parse` is `parse_bound`, or remembers what that said.

    Raises:
        BindError: a variable has no value, or a wrong one.
    """
    environment: Environment = {}
    learned: list[str] = []
    for name, variable in variables:
        if name in given:
            environment[name] = parse(variable, given[name])
        elif variable.learned:
            environment[name] = ()
            learned.append(name)
        elif variable.default is not None:
            environment[name] = variable.default
        else:
            raise BindError(f"variable {name} ({variable.where}) has no value here")
    return environment, tuple(learned)


def bind(
    library: Library, names: Sequence[str], given: Mapping[str, Sequence[str]]
) -> tuple[Environment, tuple[str, ...]]:
    """The environment of a vif with these profiles, and which variables are to be learned.

    What is given beyond what the profiles declare is left out.

    Raises:
        BindError: a variable has no value, or a wrong one, or lists that step together differ.
    """
    environment, learned = assigned(sorted(variables_of(library, names).items()), given)
    for profile in library.closure(names):
        for rule in profile.rules():
            for group in rule.groups():
                tuples(rule, group, environment)
    return environment, learned


def values_of(match: Match, environment: Environment) -> tuple[Value, ...]:
    """The values of one match where the variables are these."""
    if match.use is None:
        return match.values
    bound = environment[match.use.name]
    return () if isinstance(bound, Rate) else bound


def tuples(
    rule: Rule, group: Sequence[Match], environment: Environment
) -> tuple[tuple[Value, ...], ...]:
    """The combinations of which one must match: a value for each field of the group.

    Raises:
        BindError: lists that step together differ in length.
    """
    lists = [values_of(match, environment) for match in group]
    if len({len(values) for values in lists}) > 1:
        uses = ", ".join(
            f"{match.use} has {len(values)}" for match, values in zip(group, lists, strict=True)
        )
        raise BindError(f"{rule.where}: lists that step together differ in length: {uses}")
    return tuple(zip(*lists, strict=True))


def rate_of(rule: Rule, environment: Environment) -> Rate | None:
    """The rule's limit where the variables are these."""
    if isinstance(rule.limit, Use):
        bound = environment[rule.limit.name]
        return bound if isinstance(bound, Rate) else None
    return rule.limit
