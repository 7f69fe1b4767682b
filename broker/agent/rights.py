"""Which nodes an unprivileged broker needs, and who may do what with them. Pure.

Every node belongs to domain 0, so that no quota of the broker's counts and nothing vanishes with
it: the broker writes values, it never creates. Directories it may only read, or a record written
late would bring back what the helper has just removed, owned by the broker. xenstored looks at a
node's own permissions only, so each node on the way that is to be listed needs the reader too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.core.filter_record import MAX_CHUNKS
from broker.xenstore.paths import (
    DECISIONS,
    FILTERS,
    HEARTBEAT,
    LIBXL,
    LOCAL_DOMAIN,
    ORDER_PLACES,
    ORDER_RESULTS,
    ORDERS,
    POLICY,
    PROFILES,
    REPORTS,
    ROOT,
    STATE,
    VM,
    Channel,
    agent_path,
    decision_path,
    drops_path,
    filter_counts_path,
    filter_path,
    frontend_dir,
    libxl_device_dir,
    report_dir,
    security_dir,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PERMISSIONS: Final = 5
"""What stock C xenstored lets a node have (quota perms-per-node)."""
LISTED: Final = (LOCAL_DOMAIN, VM, LIBXL)
"""What the broker lists to find domains."""

Permissions = tuple[str, ...]


def permissions(*, writers: Sequence[int] = (), readers: Sequence[int] = ()) -> Permissions:
    """Owned by domain 0; domain 0 and who is named twice are not repeated."""
    entries: dict[int, str] = {0: "n0"}
    for letter, domids in (("b", writers), ("r", readers)):
        for domid in domids:
            entries.setdefault(domid, f"{letter}{domid}")
    return tuple(entries.values())


def fixed_nodes(broker: int) -> dict[str, Permissions]:
    """The nodes that are always there.

    Heartbeat and filter profiles: signed, and every backend domain's agent needs them, more than
    there is room for.
    """
    directory = permissions(readers=[broker])
    own = permissions(writers=[broker])
    everyone = ("r0", *own[1:])
    return {
        "/broker": directory,
        ROOT: directory,
        DECISIONS: directory,
        REPORTS: directory,
        FILTERS: directory,
        PROFILES: directory,
        **{f"{PROFILES}/{name}": everyone for name in ("head", *map(str, range(MAX_CHUNKS)))},
        STATE: own,
        HEARTBEAT: everyone,
        POLICY: directory,
        **{f"{POLICY}/{name}": own for name in ("name", "version", "digest")},
        ORDERS: directory,
        **{f"{ORDERS}/{place}": own for place in ORDER_PLACES},
        f"{REPORTS}/0": directory,
        ORDER_RESULTS: directory,
        **{f"{ORDER_RESULTS}/{place}": directory for place in ORDER_PLACES},
    }


def channel_nodes(channel: Channel, broker: int) -> dict[str, Permissions]:
    """A channel's decision node, a vif's filter node and report nodes, each after what is above.

    With it comes the node in which the backend's agent says that it lives, with a vif also the
    one for what it refused between vifs.
    """
    directory = permissions(readers=[broker, channel.backend])
    reading = permissions(writers=[broker], readers=[channel.backend])
    reporting = permissions(writers=[broker, channel.backend])
    nodes: dict[str, Permissions] = {}
    for top, path, rights in (
        # A vif's filters are told before what lets it open.
        *([(FILTERS, filter_path(channel), reading)] if channel.device_class == "vif" else []),
        (DECISIONS, decision_path(channel), reading),
        (REPORTS, report_dir(channel), reporting),
    ):
        parts = path[len(top) + 1 :].split("/")
        for depth in range(1, len(parts)):
            nodes["/".join([top, *parts[:depth]])] = directory
        nodes[path] = rights
    told = permissions(writers=[channel.backend], readers=[broker])
    nodes[agent_path(channel.backend)] = told
    if channel.device_class == "vif":
        nodes[drops_path(channel.backend)] = told
        nodes[filter_counts_path(channel.backend)] = told
    for name in ("nonce", "enforced"):
        nodes[f"{report_dir(channel)}/{name}"] = reporting
    return nodes


def security_nodes(
    uuid: str, domid: int, channels: Sequence[Channel], broker: int
) -> dict[str, Permissions]:
    """What is published of a domain, readable by the domain itself, each after what is above."""
    top = security_dir(uuid)
    directory = permissions(readers=[broker, domid])
    value = permissions(writers=[broker], readers=[domid])
    nodes = {top: directory, f"{top}/acm_label": directory}
    for name in ("acm_label/labelname", "acm_label/policyname", "ssidref", "status"):
        nodes[f"{top}/{name}"] = value
    nodes[f"{top}/channel"] = directory
    for channel in channels:
        nodes[f"{top}/channel/{channel.device_class}"] = directory
        nodes[f"{top}/channel/{channel.device_class}/{channel.device}"] = value
    return nodes


def domain_nodes(domid: int, uuid: str | None) -> list[str]:
    """Nodes of libxl's that the broker reads of a domain, itself apart from its devices."""
    home = f"{LOCAL_DOMAIN}/{domid}"
    paths = [home, f"{home}/vm", f"{home}/name", f"{home}/device", f"{home}/backend"]
    paths += [f"{LIBXL}/{domid}", f"{LIBXL}/{domid}/device"]
    if uuid is not None:
        paths += [f"{VM}/{uuid}", f"{VM}/{uuid}/name", f"{VM}/{uuid}/uuid"]
    return paths


def size_trees(domid: int) -> list[str]:
    """Trees of libxl's that say how large a domain is, which the broker tells people."""
    return [f"{LOCAL_DOMAIN}/{domid}/{name}" for name in ("memory", "cpu")]


def device_trees(channel: Channel, kind: str) -> tuple[list[str], list[str]]:
    """Of one device besides libxl's copy: nodes to be listed on the way, trees to be read whole."""
    frontend, backend = channel.frontend, channel.backend
    trees = [
        frontend_dir(frontend, channel.device_class, channel.device),
        f"{LOCAL_DOMAIN}/{backend}/backend/{kind}/{frontend}/{channel.device}",
    ]
    copy = libxl_device_dir(frontend, channel.device_class, channel.device)
    listed = [tree.rpartition("/")[0] for tree in [copy, *trees]]
    listed += [
        f"{LOCAL_DOMAIN}/{backend}/backend",
        f"{LOCAL_DOMAIN}/{backend}/backend/{kind}",
    ]
    return listed, trees


def with_reader(held: Permissions, reader: int, former: int = 0) -> Permissions | None:
    """`held` with `reader` added, or None if it can read already.

    An entry for `former`, if that is not 0, goes.

    Raises:
        ValueError: there is no room for another entry.
    """
    if reader == 0 or held[0][0] in "rb" or held[0][1:] == str(reader):
        return None
    for entry in held[1:]:
        if entry[1:] == str(reader) and entry[0] in "rb":
            return None
    replaced = {str(reader)} | ({str(former)} if former else set())
    kept = (held[0], *(entry for entry in held[1:] if entry[1:] not in replaced))
    if len(kept) >= MAX_PERMISSIONS:
        raise ValueError(f"{len(kept)} permissions already")
    return (*kept, f"r{reader}")
