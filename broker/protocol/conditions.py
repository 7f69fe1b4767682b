"""Conditions of a description, compiled to functions of what both ends show.

A condition is data of a few fixed forms, never code. Where an operand is absent (and has no
default) or is no number, the condition is neither true nor false: it then is whatever its user
says it is (`unknown`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from broker.protocol.states import BY_WORD
from broker.protocol.values import number, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from broker.protocol.form import ConditionForm
    from broker.text.marked_yaml import Text

    Keys = Mapping[str, bytes]
    Test = Callable[[Keys, Keys, int, int], bool]
    """Of the frontend's keys, the backend's keys, and the states of both."""
    Answer = Callable[[Keys, Keys, int, int], bool | None]
    Operand = Callable[[Keys, Keys], bytes | None]
    Defaults = Mapping[tuple[str, str], bytes]

SIDES: Final = ("frontend", "backend")
POWER: Final = "2^"
_LARGEST_POWER: Final = 32
PAIRS: Final = ("equals", "at_most", "multiple_of", "among", "bit")
"""Forms with two operands."""


class Reference(NamedTuple):
    """A key that a condition speaks of, and where it does."""

    side: str
    key: str
    place: Text


def forms_given(form: ConditionForm) -> list[str]:
    """Which of the forms a condition is; a good one is exactly one."""
    given = [name for name in ("has", "lacks", *PAIRS, "state", "any", "all") if _of(form, name)]
    return [*given, "not"] if form.inverse is not None else given


def _of(form: ConditionForm, name: str) -> object:
    value: object = getattr(form, name)
    return value is not None


def references(form: ConditionForm) -> Iterator[Reference]:
    """Every key that a condition speaks of."""
    for text in (form.has, form.lacks):
        if text is not None:
            yield reference(text) or Reference("", text, text)
    for name in PAIRS:
        for text in getattr(form, name) or ():
            found = reference(text)
            if found is not None:
                yield found
    inner = (*(form.any or ()), *(form.all or ()), *([form.inverse] if form.inverse else ()))
    for part in inner:
        yield from references(part)


def states_spoken_of(form: ConditionForm) -> bool:
    """Whether the condition depends on the state of an end."""
    inner = (*(form.any or ()), *(form.all or ()), *([form.inverse] if form.inverse else ()))
    return form.state is not None or any(map(states_spoken_of, inner))


def reference(text: Text) -> Reference | None:
    """The key an operand names, or None where it is a literal."""
    side, slash, key = text.removeprefix(POWER).partition("/")
    return Reference(side, key, text) if slash and side in SIDES else None


def all_of(forms: Iterable[ConditionForm], defaults: Defaults, *, unknown: bool) -> Test | None:
    """One test for a list of conditions; None where the list is empty."""
    tests = [compile_condition(form, defaults, unknown=unknown) for form in forms]
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]

    def holds(front: Keys, back: Keys, f: int, b: int) -> bool:
        for test in tests:  # noqa: SIM110 - all() of a generator takes twice the time
            if not test(front, back, f, b):
                return False
        return True

    return holds


def compile_condition(form: ConditionForm, defaults: Defaults, *, unknown: bool) -> Test:
    """The test; `unknown` is its answer where an operand is absent or no number."""
    answer = _answer(form, defaults)
    if form.inverse is not None and form.inverse.at_most is not None:
        below = compile_condition(form.inverse, defaults, unknown=not unknown)
        return lambda front, back, f, b: not below(front, back, f, b)
    if form.at_most is not None:
        limit = form.at_most[1]
        if limit.isdecimal() and not form.at_most[0].startswith(POWER):
            return _at_most_number(form.at_most[0], int(limit), defaults, unknown=unknown)

    def holds(front: Keys, back: Keys, f: int, b: int) -> bool:
        said = answer(front, back, f, b)
        return unknown if said is None else said

    return holds


def _at_most_number(text: Text, limit: int, defaults: Defaults, *, unknown: bool) -> Test:
    """A key against a number: the form met most often, and so the quickest."""
    found = reference(text)
    if found is None:
        known = int(text) <= limit if text.isdecimal() else unknown
        return lambda _front, _back, _f, _b: known
    side, key = found.side, found.key
    default = defaults.get((side, key))
    is_front = side == SIDES[0]

    def holds(front: Keys, back: Keys, _f: int, _b: int) -> bool:
        value = number((front if is_front else back).get(key, default))
        return unknown if value is None else value <= limit

    return holds


def _answer(form: ConditionForm, defaults: Defaults) -> Answer:
    if form.has is not None or form.lacks is not None:
        return _presence(form.has or form.lacks or "", wanted=form.has is not None)
    if form.state is not None:
        return _state_test(form.state)
    if form.inverse is not None:
        return _inverse(_answer(form.inverse, defaults))
    if form.any is not None:
        return _some([_answer(part, defaults) for part in form.any])
    if form.all is not None:
        return _every([_answer(part, defaults) for part in form.all])
    return _comparison(form, defaults)


def _presence(text: str, *, wanted: bool) -> Answer:
    side, _, key = text.partition("/")
    if side == SIDES[0]:
        return lambda front, _back, _f, _b: (key in front) is wanted
    return lambda _front, back, _f, _b: (key in back) is wanted


def _state_test(states: Mapping[Text, tuple[Text, ...]]) -> Answer:
    masks = {
        str(side): sum(1 << BY_WORD[word] for word in listed) for side, listed in states.items()
    }
    front_mask, back_mask = (masks.get(side, -1) for side in SIDES)
    return lambda _front, _back, f, b: bool(front_mask >> f & 1 and back_mask >> b & 1)


def _inverse(answer: Answer) -> Answer:
    def holds(front: Keys, back: Keys, f: int, b: int) -> bool | None:
        said = answer(front, back, f, b)
        return None if said is None else not said

    return holds


def _every(answers: list[Answer]) -> Answer:
    def holds(front: Keys, back: Keys, f: int, b: int) -> bool | None:
        said = [answer(front, back, f, b) for answer in answers]
        return False if False in said else None if None in said else True

    return holds


def _some(answers: list[Answer]) -> Answer:
    def holds(front: Keys, back: Keys, f: int, b: int) -> bool | None:
        said = [answer(front, back, f, b) for answer in answers]
        return True if True in said else None if None in said else False

    return holds


def _comparison(form: ConditionForm, defaults: Defaults) -> Answer:
    name = next(name for name in PAIRS if _of(form, name))
    first, second = (operand(text, defaults) for text in getattr(form, name))
    compare = _COMPARE[name]

    def holds(front: Keys, back: Keys, _f: int, _b: int) -> bool | None:
        left, right = first(front, back), second(front, back)
        return None if left is None or right is None else compare(left, right)

    return holds


def operand(text: Text, defaults: Defaults) -> Operand:
    """What reads an operand's value."""
    found = reference(text)
    if found is None:
        literal = text.encode()
        return lambda _front, _back: literal
    read = _reader(found.side, found.key, defaults.get((found.side, found.key)))
    if not text.startswith(POWER):
        return read

    def power(front: Keys, back: Keys) -> bytes | None:
        exponent = number(read(front, back))
        if exponent is None or exponent > _LARGEST_POWER:
            return None
        return b"%d" % (1 << exponent)

    return power


def _reader(side: str, key: str, default: bytes | None) -> Operand:
    if side == SIDES[0]:
        return lambda front, _back: front.get(key, default)
    return lambda _front, back: back.get(key, default)


def _at_most(left: bytes, right: bytes) -> bool | None:
    first, second = number(left), number(right)
    return None if first is None or second is None else first <= second


def _multiple(left: bytes, right: bytes) -> bool | None:
    first, second = number(left), number(right)
    return None if first is None or not second else first % second == 0


def _bit(left: bytes, right: bytes) -> bool | None:
    first, second = number(left), number(right)
    return None if first is None or second is None else first & second == second


def _among(left: bytes, right: bytes) -> bool:
    return left in words(right)


_COMPARE: Final[dict[str, Callable[[bytes, bytes], bool | None]]] = {
    "equals": bytes.__eq__,
    "at_most": _at_most,
    "multiple_of": _multiple,
    "among": _among,
    "bit": _bit,
}
