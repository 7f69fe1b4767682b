"""A protocol description's bytes to a `Spec`, or to everything that is wrong with them."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from broker.protocol.spec import Side, Spec
from broker.protocol.states import BY_WORD, State
from broker.text.escape import escape
from broker.text.marked_yaml import Marked, Text, load_struct
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


class _SideForm(Marked):
    kinds: tuple[Text, ...]
    first: Text
    transitions: dict[Text, tuple[Text, ...]]


class _SpecForm(Marked):
    protocol: Text
    header: Text
    frontend: _SideForm
    backend: _SideForm


def load_spec(data: bytes, source: str) -> Spec:
    """Read the description that `data` holds; `source` is the file's name in messages.

    Raises:
        ProblemsError: with every problem found.
    """
    form = load_struct(data, source, _SpecForm)
    reader = _Reader(source)
    reader.names([form.protocol], "protocol")
    spec = Spec(
        name=str(form.protocol),
        digest=f"sha256:{hashlib.sha256(data).hexdigest()}",
        header=str(form.header),
        frontend=reader.side(form.frontend),
        backend=reader.side(form.backend),
    )
    if reader.problems:
        raise ProblemsError(reader.problems)
    return spec


class _Reader:
    """Reads the parts of one description, noting what is wrong."""

    def __init__(self, source: str) -> None:
        self._source = source
        self.problems: list[Problem] = []

    def _note(self, place: Text | Marked, message: str) -> None:
        self.problems.append(Problem(self._source, place.line, place.column, message))

    def names(self, texts: Iterable[Text], what: str) -> None:
        for text in texts:
            if not _NAME.fullmatch(text):
                self._note(text, f"'{escape(text, 60)}' cannot name a {what}")

    def _state(self, text: Text) -> State:
        state = BY_WORD.get(text)
        if state is None:
            known = ", ".join(BY_WORD)
            self._note(text, f"unknown state '{escape(text, 60)}'; known: {known}")
        return state or State.UNKNOWN

    def side(self, form: _SideForm) -> Side:
        if not form.kinds:
            self._note(form, "'kinds' is empty")
        self.names(form.kinds, "kind")
        problems_before = len(self.problems)
        side = Side(
            kinds=tuple(map(str, form.kinds)),
            first=self._state(form.first),
            transitions={
                self._state(source): frozenset(map(self._state, targets))
                for source, targets in form.transitions.items()
            },
        )
        if len(self.problems) == problems_before:
            self._automaton(form, side)
        return side

    def _automaton(self, form: _SideForm, side: Side) -> None:
        """Every state can be reached, and from every state the end can close."""
        reached = side.reachable(side.first)
        for text, targets in form.transitions.items():
            state = BY_WORD[text]
            if state not in reached:
                self._note(text, f"no moves lead from '{form.first}' to '{text}'")
            if State.CLOSED not in side.reachable(state):
                self._note(text, f"no moves lead from '{text}' to 'closed'")
            for target in targets:
                if target == text:
                    self._note(target, "a state needs no move to itself")
                elif target not in form.transitions:
                    self._note(target, f"'{target}' has no line of its own in 'transitions'")
