"""A picture of a policy as DOT, for Graphviz."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.policy.graph_style import WALL, colour_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.core.picture import Edge, Picture

_MOST_RESOURCES: Final = 3


def dot(picture: Picture) -> str:
    """The picture: frontends point to backends, a colour a class; walls are without arrows."""
    return "".join(f"{line}\n" for line in _lines(picture))


def _lines(picture: Picture) -> Iterator[str]:
    yield f"digraph {_quoted(picture.title)} {{"
    yield f"  graph [label={_quoted(picture.title)}, labelloc=t, overlap=false, splines=true];"
    yield '  node [shape=box, style="rounded,filled", fillcolor=white, fontname="sans-serif"];'
    yield '  edge [fontname="sans-serif", fontsize=9];'
    for number, node in enumerate(picture.nodes):
        words = "\n".join([*node.labels, ", ".join(node.ste)])
        fill = ", fillcolor=lightgrey" if node.bootstrap else ""
        yield f"  n{number} [label={_quoted(words)}{fill}];"
    for edge in picture.edges:
        yield f"  n{edge.frontend} -> n{edge.backend} [{_attributes(picture, edge)}];"
    for wall in picture.walls:
        said = _quoted("wall: " + ", ".join(wall.names))
        yield (
            f'  n{wall.one} -> n{wall.other} [dir=none, style=bold, penwidth=4, color="{WALL}", '
            f'fontcolor="{WALL}", label={said}, constraint=false];'
        )
    yield "}"


def _attributes(picture: Picture, edge: Edge) -> str:
    said = edge.device_class + (" (reading)" if edge.reading else "")
    if edge.resources:
        more = len(edge.resources) - _MOST_RESOURCES
        said += "\n" + ", ".join(edge.resources[:_MOST_RESOURCES])
        said += f" and {more} more" if more > 0 else ""
    words = [f'color="{colour_of(picture.classes, edge.device_class)}"', f"label={_quoted(said)}"]
    if edge.both:
        words.append("dir=both")
    if edge.reading:
        words.append("style=dashed")
    return ", ".join(words)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
