"""The picture of a policy, for those who draw it: `policy.picture`."""

import msgspec


class PictureNode(msgspec.Struct, frozen=True, kw_only=True):
    """Labels that nothing tells apart, and what they have."""

    labels: tuple[str, ...]
    ste: tuple[str, ...]
    chinese_wall: tuple[str, ...]
    colours: tuple[str, ...]
    bootstrap: bool


class PictureEdge(msgspec.Struct, frozen=True, kw_only=True, rename={"device_class": "class"}):
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


class PictureWall(msgspec.Struct, frozen=True, kw_only=True):
    """Two nodes (by number) that never run at the same time, and the conflict sets that say so."""

    one: int
    other: int
    names: tuple[str, ...]


class PolicyPicture(msgspec.Struct, frozen=True, kw_only=True):
    """Who may talk to whom by the policy in force.

    `classes` are the kinds of edges; `frames` is one of them where frames pass between others
    than those who may attach vifs to one another.
    """

    title: str
    classes: tuple[str, ...]
    nodes: tuple[PictureNode, ...]
    edges: tuple[PictureEdge, ...]
    walls: tuple[PictureWall, ...]
