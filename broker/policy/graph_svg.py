"""A picture of a policy as SVG, drawn here: no other program is needed to look at it."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from broker.core.picture import FRAMES
from broker.policy.graph_layout import LINE, layout
from broker.policy.graph_style import WALL, colour_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.core.picture import Edge, Node, Picture, Wall
    from broker.policy.graph_layout import Box, Layout

_HEAD: Final = 46.0
_LEGEND: Final = 22.0
_MARGIN: Final = 16.0
_LEAST_WIDTH: Final = 420.0
_APART: Final = 9.0
"""Between two lines that join the same boxes."""
_OUTSIDE: Final = 48.0
"""How far outside the middle between two boxes a wall stands."""
_BOW: Final = 0.35
"""How far a line between boxes of the rim bends towards the middle."""
_MOST_RESOURCES: Final = 8


def svg(picture: Picture) -> str:
    """The picture: frontends point to backends, a colour a class; walls are of brick."""
    placed = layout(picture, around=2 * _OUTSIDE if picture.walls else 0.0)
    legend = [*picture.classes, *(["wall"] if picture.walls else [])]
    width = max(placed.width, _LEAST_WIDTH) + 2 * _MARGIN
    height = placed.height + _HEAD + _LEGEND * (len(legend) + 2) + _MARGIN
    middle = f"translate({width / 2:.1f} {_HEAD + placed.height / 2:.1f})"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"',
        f'  viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="12">',
        f"<title>{escape(picture.title)}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        _text(_MARGIN, 28, picture.title, ' font-size="18" font-weight="bold"'),
        "<defs>",
        *(_arrow(picture, name) for name in picture.classes),
        "</defs>",
        f'<g transform="{middle}">',
        *_walls(picture, placed),
        *_edges(picture, placed),
        *(_box(box, node) for box, node in zip(placed.boxes, picture.nodes, strict=True)),
        "</g>",
        *_legend(picture, legend, _HEAD + placed.height + _LEGEND),
        "</svg>",
    ]
    return "".join(f"{line}\n" for line in lines)


def _text(x: float, y: float, words: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(words)}</text>'


def _arrow(picture: Picture, name: str) -> str:
    number = picture.classes.index(name)
    return (
        f'<marker id="a{number}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
        f'markerHeight="8" orient="auto-start-reverse"><path d="M0 1L10 5L0 9z" '
        f'fill="{colour_of(picture.classes, name)}"/></marker>'
    )


def _box(box: Box, node: Node) -> str:
    x, y = box.x - box.width / 2, box.y - box.height / 2
    fill = "#e4e4e4" if node.bootstrap else "#fbfbf6"
    held = [f"STE types: {', '.join(node.ste) or 'none'}"]
    if node.chinese_wall:
        held.append(f"Chinese Wall types: {', '.join(node.chinese_wall)}")
    if node.colours:
        held.append(f"colours: {', '.join(node.colours)}")
    title = "\n".join([", ".join(node.labels), *held])
    first = y + (box.height - LINE * len(box.lines)) / 2 + LINE * 0.75
    words = "".join(
        _text(box.x, first + LINE * at, line, ' text-anchor="middle"')
        for at, line in enumerate(box.lines)
    )
    return (
        f'<g><title>{escape(title)}</title><rect x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="6" fill="{fill}" stroke="#333"/>{words}</g>'
    )


def _edges(picture: Picture, placed: Layout) -> Iterator[str]:
    total = Counter(_pair(edge) for edge in picture.edges)
    drawn: Counter[tuple[int, int]] = Counter()
    for edge in picture.edges:
        pair = _pair(edge)
        # Several lines between the same two boxes lie side by side.
        shift = _APART * (drawn[pair] - (total[pair] - 1) / 2)
        drawn[pair] += 1
        if edge.frontend == edge.backend:
            path = _loop(placed.boxes[edge.frontend], drawn[pair])
        else:
            sign = 1 if edge.frontend < edge.backend else -1
            path = _curve(placed.boxes[edge.frontend], placed.boxes[edge.backend], sign * shift)
        number = picture.classes.index(edge.device_class)
        ends = f'marker-end="url(#a{number})"'
        if edge.both and edge.frontend != edge.backend:
            ends += f' marker-start="url(#a{number})"'
        dashes = ' stroke-dasharray="6 4"' if edge.reading else ""
        colour = colour_of(picture.classes, edge.device_class)
        yield (
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6" '
            f'stroke-opacity="0.85"{dashes} {ends}>'
            f"<title>{escape(_words(picture, edge))}</title></path>"
        )


def _pair(edge: Edge) -> tuple[int, int]:
    return min(edge.frontend, edge.backend), max(edge.frontend, edge.backend)


def _words(picture: Picture, edge: Edge) -> str:
    one, other = (picture.nodes[it].labels for it in (edge.frontend, edge.backend))
    way = "and" if edge.both else "to"
    said = f"{edge.device_class}: {', '.join(one)} {way} {', '.join(other)}"
    if edge.frontend == edge.backend:
        said = f"{edge.device_class}: {', '.join(one)} among themselves"
    if edge.reading:
        said += ", for reading"
    if edge.resources:
        more = len(edge.resources) - _MOST_RESOURCES
        said += f", over {', '.join(edge.resources[:_MOST_RESOURCES])}"
        said += f" and {more} more" if more > 0 else ""
    return said


def _walls(picture: Picture, placed: Layout) -> Iterator[str]:
    for wall in picture.walls:
        one, other = placed.boxes[wall.one], placed.boxes[wall.other]
        yield _wall(picture, wall, one, other)


def _wall(picture: Picture, wall: Wall, one: Box, other: Box) -> str:
    """A thin line between the two, bent outwards, and across its middle courses of bricks."""
    x, y = (one.x + other.x) / 2, (one.y + other.y) / 2
    out = math.hypot(x, y)
    if out > 1:
        # Neighbours on the rim: outside of it nothing is in the way.
        x, y = x + x / out * _OUTSIDE, y + y / out * _OUTSIDE
    bend_x, bend_y = 2 * x - (one.x + other.x) / 2, 2 * y - (one.y + other.y) / 2
    angle = math.degrees(math.atan2(other.y - one.y, other.x - one.x))
    labels = [", ".join(picture.nodes[it].labels) for it in (wall.one, wall.other)]
    title = f"wall {', '.join(wall.names)}: {labels[0]} and {labels[1]} never run together"
    bricks = "".join(
        f'<rect x="{-6 + 6 * column}" y="{-20 + 9 * row - (4.5 if column else 0):.1f}" width="5.4" '
        f'height="8.2" fill="{WALL}"/>'
        for column in (0, 1)
        for row in range(5)
    )
    return (
        f'<g><title>{escape(title)}</title><path d="M{one.x:.1f} {one.y:.1f}Q{bend_x:.1f} '
        f'{bend_y:.1f} {other.x:.1f} {other.y:.1f}" fill="none" stroke="{WALL}" '
        f'stroke-width="1.2" stroke-dasharray="2 3"/>'
        f'<g transform="translate({x:.1f} {y:.1f}) rotate({angle:.1f})">{bricks}</g></g>'
    )


def _curve(one: Box, other: Box, shift: float) -> str:
    """From the border of one box to that of the other, bent towards the middle of the picture."""
    length = math.hypot(other.x - one.x, other.y - one.y) or 1.0
    across = (-(other.y - one.y) / length * shift, (other.x - one.x) / length * shift)
    bend_x = (one.x + other.x) / 2 * (1 - _BOW) + across[0] * 2
    bend_y = (one.y + other.y) / 2 * (1 - _BOW) + across[1] * 2
    start = _border(one, bend_x, bend_y, across)
    end = _border(other, bend_x, bend_y, across)
    return f"M{start[0]:.1f} {start[1]:.1f}Q{bend_x:.1f} {bend_y:.1f} {end[0]:.1f} {end[1]:.1f}"


def _border(box: Box, x: float, y: float, across: tuple[float, float]) -> tuple[float, float]:
    """Where the line from a box's middle towards a point leaves the box, a little aside."""
    dx, dy = x - box.x, y - box.y
    scale = min(
        (box.width / 2 + 2) / abs(dx) if dx else math.inf,
        (box.height / 2 + 2) / abs(dy) if dy else math.inf,
    )
    if math.isinf(scale):
        return box.x, box.y
    reach_x, reach_y = box.width / 2 + 2, box.height / 2 + 2
    return (
        min(max(box.x + dx * scale + across[0], box.x - reach_x), box.x + reach_x),
        min(max(box.y + dy * scale + across[1], box.y - reach_y), box.y + reach_y),
    )


def _loop(box: Box, nth: int) -> str:
    """Labels of one box among themselves: a loop at its corner."""
    x, y, reach = box.x + box.width / 2, box.y - box.height / 2, 12.0 + 6.0 * nth
    return f"M{x - 10:.1f} {y:.1f}c0 {-reach:.1f} {10 + reach:.1f} {-reach / 2:.1f} 11 10"


def _legend(picture: Picture, legend: list[str], y: float) -> Iterator[str]:
    for at, name in enumerate(legend):
        line = y + at * _LEGEND
        if name == "wall":
            stroke, words = WALL, "wall: never run at the same time"
        else:
            stroke = colour_of(picture.classes, name)
            words = f"{name}: frontend to backend; dashed: for reading alone"
        if name == FRAMES:
            words = "frames, from vif to vif"
        thick = 6 if name == "wall" else 2
        yield f'<path d="M{_MARGIN} {line:.1f}h34" stroke="{stroke}" stroke-width="{thick}"/>'
        yield _text(_MARGIN + 44, line + 4, words)
    said = "Grey: domain 0. Labels in one box: told apart by nothing. A loop: among themselves."
    yield _text(_MARGIN, y + len(legend) * _LEGEND, said, ' fill="#555"')
