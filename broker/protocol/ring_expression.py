"""Small expressions over a message's numbers: read, reckoned, written as C.

All values are whole numbers from 0 to 2^64 - 1, and every expression has one: sums and products
stop at the upper end, differences at 0, a negative field counts as 0, comparisons give 0 or 1.
So Python and C agree, and nothing can overflow or fail.

From loosest to tightest: `or`, `and`, comparisons (one at a time), `&`, `+ -`, `* / %`.
"""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Final

import msgspec

from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Reckoner = Callable[[Mapping[str, int]], int]

TOP: Final = 2**64 - 1
"""Where sums and products stop."""

_MOST_TEXT: Final = 200
_MOST_DEPTH: Final = 20
_TOKEN: Final = re.compile(
    r" *(?:(?P<number>[0-9]+)|(?P<name>[a-z][a-z0-9_]*)|(?P<sign><=|>=|==|!=|[-+*/%&<>()]))"
)
_NUMBER_DIGITS: Final = 18
_BINDING: Final = {
    "or": 1,
    "and": 2,
    "<": 3,
    "<=": 3,
    ">": 3,
    ">=": 3,
    "==": 3,
    "!=": 3,
    "&": 4,
    "+": 5,
    "-": 5,
    "*": 6,
    "/": 6,
    "%": 6,
}
_COMPARED: Final = 3
WORDS: Final = frozenset({"and", "or"})
"""What cannot name anything."""


class Number(msgspec.Struct, frozen=True):
    """A number as written."""

    value: int


class Name(msgspec.Struct, frozen=True):
    """A field, a sum, something kept or given."""

    name: str


class Binary(msgspec.Struct, frozen=True):
    """An operator between two expressions."""

    sign: str
    left: Expression
    right: Expression


Expression = Number | Name | Binary


class ExpressionError(Exception):
    """Not an expression; the text says why."""


def parse(text: str) -> Expression:
    """Read `text`.

    Raises:
        ExpressionError: it is none.
    """
    if len(text) > _MOST_TEXT:
        raise ExpressionError(f"an expression has at most {_MOST_TEXT} characters")
    parser = _Parser(list(_tokens(text)))
    found = parser.expression(0, 0)
    if parser.left:
        raise ExpressionError(f"'{parser.left[0]}' does not belong here")
    return found


def _tokens(text: str) -> Iterator[str]:
    place = 0
    end = len(text.rstrip(" "))
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None:
            raise ExpressionError(f"'{escape(text[place:].lstrip(), 20)}' cannot be read")
        yield match.group().lstrip(" ")
        place = match.end()


class _Parser:
    """Precedence climbing; `left` holds the tokens not read yet."""

    def __init__(self, tokens: list[str]) -> None:
        self.left = tokens

    def expression(self, binding: int, depth: int) -> Expression:
        if depth > _MOST_DEPTH:
            raise ExpressionError(f"nested more than {_MOST_DEPTH} deep")
        found = self._atom(depth)
        while self.left and _BINDING.get(self.left[0], 0) > binding:
            sign = self.left.pop(0)
            right = self.expression(_BINDING[sign], depth + 1)
            if _BINDING[sign] == _COMPARED and self._follows_comparison():
                raise ExpressionError("comparisons cannot be chained: use 'and'")
            found = Binary(sign, found, right)
        return found

    def _follows_comparison(self) -> bool:
        return bool(self.left) and _BINDING.get(self.left[0]) == _COMPARED

    def _atom(self, depth: int) -> Expression:
        if not self.left:
            raise ExpressionError("something is missing at the end")
        token = self.left.pop(0)
        if token == "(":  # noqa: S105 - a parenthesis
            found = self.expression(0, depth + 1)
            if not self.left or self.left.pop(0) != ")":
                raise ExpressionError("a parenthesis is not closed")
            return found
        if token.isdigit():
            if len(token) > _NUMBER_DIGITS:
                raise ExpressionError(f"a number has at most {_NUMBER_DIGITS} digits")
            return Number(int(token))
        if token in _BINDING or token == ")":  # noqa: S105 - as above
            raise ExpressionError(f"'{token}' lacks what stands before it")
        return Name(token)


def parts(expression: Expression) -> Iterator[Expression]:
    """The expression and all in it."""
    yield expression
    if isinstance(expression, Binary):
        yield from parts(expression.left)
        yield from parts(expression.right)


def names(expression: Expression) -> frozenset[str]:
    """What an expression speaks of."""
    return frozenset(part.name for part in parts(expression) if isinstance(part, Name))


def written(expression: Expression) -> str:
    """The expression as text; nothing but names, numbers and signs is in it."""
    if isinstance(expression, Number):
        return str(expression.value)
    if isinstance(expression, Name):
        return expression.name
    binding = _BINDING[expression.sign]
    # A sign joins from the left, but comparisons are not chained.
    left = _side(expression.left, binding + (binding == _COMPARED))
    right = _side(expression.right, binding + 1)
    return f"{left} {expression.sign} {right}"


def _side(expression: Expression, least: int) -> str:
    loose = isinstance(expression, Binary) and _BINDING[expression.sign] < least
    return f"({written(expression)})" if loose else written(expression)


_PLAIN: Final[dict[str, Callable[[int, int], int]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "&": operator.and_,
    "+": lambda left, right: min(left + right, TOP),
    "-": lambda left, right: left - right if left > right else 0,
    "*": lambda left, right: min(left * right, TOP),
    "/": lambda left, right: left // right if right else 0,
    "%": lambda left, right: left % right if right else 0,
    "or": lambda left, right: bool(left or right),
    "and": lambda left, right: bool(left and right),
}


def reckoner(expression: Expression) -> Reckoner:
    """A function that reckons the expression from what the names stand for."""
    if isinstance(expression, Number):
        value = expression.value
        return lambda _: value
    if isinstance(expression, Name):
        return operator.itemgetter(expression.name)
    left, right = reckoner(expression.left), reckoner(expression.right)
    join = _PLAIN[expression.sign]
    return lambda known: join(left(known), right(known))


_C_FUNCTION: Final = {
    "<": "xpb_lt",
    "<=": "xpb_le",
    ">": "xpb_gt",
    ">=": "xpb_ge",
    "==": "xpb_eq",
    "!=": "xpb_ne",
    "&": "xpb_and",
    "+": "xpb_add",
    "-": "xpb_sub",
    "*": "xpb_mul",
    "/": "xpb_div",
    "%": "xpb_mod",
}
_C_JOIN: Final = {"or": "||", "and": "&&"}


def as_c(expression: Expression, variables: Mapping[str, str]) -> str:
    """The expression in C99, with c_common's functions; `variables` has every name in C."""
    if isinstance(expression, Number):
        return f"UINT64_C({expression.value})"
    if isinstance(expression, Name):
        return variables[expression.name]
    left, right = as_c(expression.left, variables), as_c(expression.right, variables)
    if expression.sign in _C_JOIN:
        return f"(uint64_t)({left} != 0 {_C_JOIN[expression.sign]} {right} != 0)"
    return f"{_C_FUNCTION[expression.sign]}({left}, {right})"
