"""What a picture of a policy shows: labels, who may attach to whom, and what walls part.

Labels that nothing tells apart are one node; so a picture of many tenants of one kind stays small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.core.alike import Alike
from broker.core.frame_sets import frame_rows
from broker.core.masks import bits
from broker.core.reach import Reach

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from broker.core.definition import Definition
    from broker.core.policy import Policy


VIF: Final = "vif"
FRAMES: Final = "frames"
"""As a class: who may exchange frames, vif with vif."""


class Node(msgspec.Struct, frozen=True):
    """Labels that nothing tells apart, and what they have."""

    labels: tuple[str, ...]
    ste: tuple[str, ...]
    chinese_wall: tuple[str, ...]
    colours: tuple[str, ...]
    bootstrap: bool


class Edge(msgspec.Struct, frozen=True):
    """Frontends of one node may attach to backends of another (by number), in one class.

    `both`: the other way round as well. `reading`: for reading alone. `resources` are those it
    may be over, empty where it involves none.
    """

    device_class: str
    frontend: int
    backend: int
    both: bool
    reading: bool
    resources: tuple[str, ...]


class Wall(msgspec.Struct, frozen=True):
    """Two nodes (by number) that never run at the same time, and the conflict sets that say so."""

    one: int
    other: int
    names: tuple[str, ...]


class Picture(msgspec.Struct, frozen=True):
    """Nodes, and what joins and parts them.

    `classes` are the kinds of edges; FRAMES is one of them where frames pass between others than
    those who may attach vifs to one another.
    """

    title: str
    classes: tuple[str, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    walls: tuple[Wall, ...]


def picture(policy: Policy, classes: Collection[str] | None = None) -> Picture:
    """The picture of a policy; of some of its classes alone where `classes` is given."""
    definition = policy.definition
    reach = Reach(definition, policy.labels)
    groups = _groups(definition, reach)
    edges = {entry.name: list(_edges(reach, groups, entry.name)) for entry in definition.classes}
    if VIF in edges:
        frames = list(_frames(definition, reach, groups))
        attached = [edge for edge in edges[VIF] if edge.both]
        if {(it.frontend, it.backend) for it in frames} != {
            (it.frontend, it.backend) for it in attached
        } or len(attached) < len(edges[VIF]):
            edges[FRAMES] = frames
    shown = tuple(name for name in edges if classes is None or name in classes)
    nodes = tuple(_node(policy, labels) for labels in groups)
    version = f"{policy.version[0]}.{policy.version[1]}"
    return Picture(
        f"{policy.name} {version}",
        shown,
        nodes,
        tuple(edge for name in shown for edge in edges[name]),
        tuple(_walls(definition, nodes)),
    )


def _groups(definition: Definition, reach: Reach) -> list[list[str]]:
    """The labels, those together that nothing tells apart."""
    alike = Alike(definition, reach)
    paired = {name for rule in definition.betweens for name in rule.pair}
    members: dict[object, list[str]] = {}
    for label in definition.labels:
        name = label.name
        apart = name == definition.bootstrap, label.chinese_wall, name if name in paired else ""
        members.setdefault((alike.label(name), apart), []).append(name)
    return list(members.values())


def _frames(definition: Definition, reach: Reach, groups: list[list[str]]) -> Iterator[Edge]:
    rows = frame_rows(definition, reach)
    numbers = {name: number for number, name in enumerate(reach.names)}
    for one, labels in enumerate(groups):
        row = rows[numbers[labels[0]]]
        for other in range(one, len(groups)):
            if row >> numbers[groups[other][0]] & 1:
                yield Edge(FRAMES, one, other, both=True, reading=False, resources=())


def _node(policy: Policy, labels: list[str]) -> Node:
    label = next(it for it in policy.definition.labels if it.name == labels[0])
    bootstrap = label.name == policy.bootstrap
    return Node(tuple(labels), label.ste, label.chinese_wall, label.colours, bootstrap)


def _edges(reach: Reach, groups: list[list[str]], device_class: str) -> Iterator[Edge]:
    found: dict[tuple[int, int], tuple[bool, dict[str, None]]] = {}
    number_of = {name: number for number, labels in enumerate(groups) for name in labels}
    for one, labels in enumerate(groups):
        row = reach.row(device_class, labels[0])
        for resource in (None, *reach.within_reach(device_class, labels[0])):
            shared = reach.sharing(device_class, labels[0], resource)
            reading, writing = (shared & opened for opened in row.open_for(resource))
            for bit in bits(reading):
                other = number_of[reach.names[bit]]
                writes, over = found.get((one, other), (False, {}))
                if resource is not None:
                    over[resource] = None
                found[one, other] = writes or bool(writing >> bit & 1), over
    for (one, other), (writes, over) in found.items():
        back = found.get((other, one))
        both = back is not None and (back[0], tuple(back[1])) == (writes, tuple(over))
        if not both or one <= other:
            yield Edge(device_class, one, other, both, not writes, tuple(over))


def _walls(definition: Definition, nodes: tuple[Node, ...]) -> Iterator[Wall]:
    for one, node in enumerate(nodes):
        for other in range(one + 1, len(nodes)):
            names = [
                name
                for name, members in definition.conflict_sets.items()
                if (own := set(members) & set(node.chinese_wall))
                and (set(members) & set(nodes[other].chinese_wall)) - own
            ]
            if names:
                yield Wall(one, other, tuple(names))
