"""A protocol description's bytes to a `Spec`, or to everything that is wrong with them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from broker.protocol.check import Checker
from broker.protocol.common import add_common_keys
from broker.protocol.form import SideForm, SpecForm
from broker.protocol.ring_check import read_rings
from broker.protocol.spec import Side, Spec
from broker.protocol.states import BY_WORD, State
from broker.text.marked_yaml import load_struct
from broker.text.problems import ProblemsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.text.marked_yaml import Text


def load_spec(data: bytes, source: str) -> Spec:
    """Read the description that `data` holds; `source` is the file's name in messages.

    Raises:
        ProblemsError: with every problem found.
    """
    form = load_struct(data, source, SpecForm)
    add_common_keys(form)
    rings, ring_problems = read_rings(form.ring, source)
    problems = [*Checker(source, form).problems(), *ring_problems]
    if problems:
        raise ProblemsError(problems)
    return Spec(
        name=str(form.protocol),
        digest=f"sha256:{hashlib.sha256(data).hexdigest()}",
        header=str(form.header),
        frontend=_side(form.frontend),
        backend=_side(form.backend),
        form=form,
        rings=rings,
    )


def _side(form: SideForm) -> Side:
    return Side(
        kinds=tuple(map(str, form.kinds)),
        first=State.UNKNOWN if form.first is None else BY_WORD[form.first],
        transitions=_table(form.transitions or {}),
        needs=_table(form.needs),
    )


def _table(form: Mapping[Text, tuple[Text, ...]]) -> dict[State, frozenset[State]]:
    return {
        BY_WORD[source]: frozenset(BY_WORD[target] for target in targets)
        for source, targets in form.items()
    }
