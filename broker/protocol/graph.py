"""A description's state diagrams in DOT, the language of Graphviz."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.protocol.conditions import SIDES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from broker.protocol.spec import Side, Spec


def dot(specs: Iterable[Spec]) -> str:
    """One graph, with a cluster for each end of each class.

    A move's label says which states of the other end the mover must have seen.
    """
    lines = ["digraph protocols {", "  rankdir=LR;", '  node [shape=box, fontname="sans-serif"];']
    for spec in specs:
        for name, side in zip(SIDES, (spec.frontend, spec.backend), strict=True):
            lines += _cluster(spec, name, side)
    return "\n".join([*lines, "}", ""])


def _cluster(spec: Spec, name: str, side: Side) -> Iterator[str]:
    yield f'  subgraph "cluster_{spec.name}_{name}" {{'
    kinds = ", ".join(side.kinds)
    yield f'    label="{spec.name}: {name} ({kinds})";'
    if not side.transitions:
        yield f'    "{spec.name} {name}" [label="no state machine", shape=plaintext];'
    for state in sorted(side.transitions):
        style = ", peripheries=2" if state == side.first else ""
        gate = spec.form.gate
        if gate is not None and (gate.side, gate.into) == (name, state.word):
            style += ", style=bold, xlabel=gate"
        yield f'    "{spec.name} {name} {int(state)}" [label="{int(state)} {state.word}"{style}];'
    for source in sorted(side.transitions):
        for target in sorted(side.transitions[source]):
            seen = ", ".join(state.word for state in sorted(side.needs.get(target, ())))
            label = f' [label="saw {seen}"]' if seen else ""
            ends = (f'"{spec.name} {name} {int(state)}"' for state in (source, target))
            yield f"    {' -> '.join(ends)}{label};"
    yield "  }"
