"""What pictures of a policy look like, in DOT and SVG alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

WALL: Final = "#a33327"
"""The colour of bricks."""
_CLASSES: Final = (
    "#1f6fb4",  # told apart also by those who do not see red and green
    "#e08214",
    "#1b7837",
    "#7b4fa0",
    "#5c5c5c",
    "#c2348a",
    "#0c8f8f",
    "#8a6d00",
)


def colour_of(classes: Sequence[str], device_class: str) -> str:
    """The colour of a class, by its place among them."""
    return _CLASSES[list(classes).index(device_class) % len(_CLASSES)]
