"""Where the nodes of a picture stand: those that many talk to in the middle, all others around.

Around is an ellipse, in the order of the file: labels of one tenant stand side by side there as
they do in the policy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from broker.core.picture import Node, Picture

MOST_LINES: Final = 6
"""Labels named in one box; more are counted."""
LINE: Final = 15.0
_CHARACTER: Final = 7.2
_PADDING: Final = 9.0
_GAP: Final = 26.0
_FLAT: Final = 0.68
_MOST_HUBS: Final = 4
_HUB_SHARE: Final = 0.5
_FEW: Final = 4
"""Of fewer others than this none has to stand around a node."""


class Box(msgspec.Struct, frozen=True):
    """A node's middle, its width and height, and its lines of text."""

    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]


class Layout(msgspec.Struct, frozen=True):
    """Every node's box, and the size of the whole; the middle of it is 0, 0."""

    boxes: tuple[Box, ...]
    width: float
    height: float


def layout(picture: Picture, around: float = 0.0) -> Layout:
    """Place the nodes; leave `around` free on every side."""
    sizes = [_size(node) for node in picture.nodes]
    hubs = _hubs(picture)
    rim = [number for number in range(len(sizes)) if number not in hubs]
    rx, ry = _radii([sizes[number] for number in rim], [sizes[number] for number in hubs])
    places: dict[int, tuple[float, float]] = {}
    for at, number in enumerate(rim):
        angle = 2 * math.pi * at / len(rim) - math.pi / 2
        places[number] = (rx * math.cos(angle), ry * math.sin(angle))
    height = sum(sizes[number][1] + _GAP * 4 for number in hubs) - _GAP * 4
    y = -height / 2
    for number in hubs:
        places[number] = (0.0, y + sizes[number][1] / 2)
        y += sizes[number][1] + _GAP * 4
    boxes = tuple(
        Box(*places[number], *sizes[number], _lines(node))
        for number, node in enumerate(picture.nodes)
    )
    reach_x = max((abs(box.x) + box.width / 2 for box in boxes), default=0.0)
    reach_y = max((abs(box.y) + box.height / 2 for box in boxes), default=0.0)
    return Layout(boxes, 2 * (reach_x + _GAP + around / 2), 2 * (reach_y + _GAP + around / 2))


def _lines(node: Node) -> tuple[str, ...]:
    if len(node.labels) <= MOST_LINES:
        return node.labels
    shown = node.labels[: MOST_LINES - 1]
    return (*shown, f"and {len(node.labels) - len(shown)} more")


def _size(node: Node) -> tuple[float, float]:
    lines = _lines(node)
    width = max(len(line) for line in lines) * _CHARACTER + 2 * _PADDING
    return width, len(lines) * LINE + 2 * _PADDING


def _hubs(picture: Picture) -> list[int]:
    """Nodes that at least half of the others talk to, the busiest first."""
    peers: dict[int, set[int]] = {number: set() for number in range(len(picture.nodes))}
    for edge in picture.edges:
        if edge.frontend != edge.backend:
            peers[edge.frontend].add(edge.backend)
            peers[edge.backend].add(edge.frontend)
    others = len(picture.nodes) - 1
    if others < _FEW:
        return []
    busy = [number for number, met in peers.items() if len(met) >= _HUB_SHARE * others]
    # Where all talk to all nobody is a hub.
    return sorted(busy, key=lambda it: -len(peers[it])) if len(busy) <= _MOST_HUBS else []


def _radii(rim: list[tuple[float, float]], hubs: list[tuple[float, float]]) -> tuple[float, float]:
    """Radii that leave room between neighbours, and around what stands in the middle."""
    widest = max((width for width, _ in rim), default=0.0)
    highest = max((height for _, height in rim), default=0.0)
    hub_width = max((width for width, _ in hubs), default=0.0)
    hub_height = sum(height + _GAP * 4 for _, height in hubs)
    step = 2 * math.pi / max(1, len(rim))
    rx = max((widest + _GAP) / step, hub_width / 2 + widest + 3 * _GAP, 120.0)
    ry = max(rx * _FLAT, (highest + _GAP) / step, hub_height / 2 + highest + 2 * _GAP)
    return rx, ry
