"""Every xenstore path the product knows: built here, and parsed here, nowhere else.

The domid of a channel's ends comes from the *path* of a node, never from its content.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

LOCAL_DOMAIN: Final = "/local/domain"
VM: Final = "/vm"
LIBXL: Final = "/libxl"
ROOT: Final = "/broker/v1"
DECISIONS: Final = f"{ROOT}/decision"
REPORTS: Final = f"{ROOT}/report"
HEARTBEAT: Final = f"{ROOT}/heartbeat"
STATE: Final = f"{ROOT}/state"
POLICY: Final = f"{ROOT}/policy"
FILTERS: Final = f"{ROOT}/filter"
"""Which filter profiles and variables each vif has: below it paths as below `DECISIONS`."""
PROFILES: Final = f"{ROOT}/profiles"
"""The profiles' texts: `head`, and the chunks by number (`broker.core.filter_record`)."""
ORDERS: Final = f"{ROOT}/order"
"""Where the broker's orders to dom0's agent are; the agent's results are in `ORDER_RESULTS`."""
ORDER_RESULTS: Final = f"{REPORTS}/0/order"
"""A list of the kinds of order that the agent takes, and below it one result for each place."""
ORDER_PLACES: Final = tuple(str(place) for place in range(8))
"""The names of the nodes in both: so many orders can be under way."""
INTRODUCE: Final = "@introduceDomain"
RELEASE: Final = "@releaseDomain"

_DROPS: Final = "drops"
_AGENT: Final = "agent"
_FILTER_COUNTS: Final = "filters"
_OF_AGENT: Final = (_DROPS, _AGENT, _FILTER_COUNTS)
"""These stand among the classes of a backend's reports, and are none: no channels are below."""
_DOMID: Final = re.compile(r"0|[1-9][0-9]{0,4}")
_DEVID: Final = re.compile(r"0|[1-9][0-9]{0,9}")
_KIND: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_FIRST_RESERVED_DOMID: Final = 0x7FF0
"""DOMID_FIRST_RESERVED of xen/include/public/xen.h: no real domain has this or more."""


class Channel(msgspec.Struct, frozen=True, order=True):
    """One split-driver connection, by its trusted path: who, of which class, to whom.

    `device_class` is the frontend's kind (`vbd` also where the backend's kind is `qdisk`);
    `device` is the devid's canonical decimal text.
    """

    backend: int
    device_class: str
    frontend: int
    device: str

    def __str__(self) -> str:
        """As people write it: `vif/3/0 -> 0`."""
        return f"{self.device_class}/{self.frontend}/{self.device} -> {self.backend}"


def parse_domid(text: str) -> int | None:
    """The domid that `text` names canonically (no sign, no leading zero), else None."""
    if not _DOMID.fullmatch(text):
        return None
    domid = int(text)
    return domid if domid < _FIRST_RESERVED_DOMID else None


def is_uuid(text: str) -> bool:
    """Whether `text` is a uuid as libxl writes it, in lower case."""
    return _UUID.fullmatch(text) is not None


def is_device(device_class: str, device: str) -> bool:
    """Whether these can name a device: a plain kind and a canonical decimal devid."""
    return bool(_KIND.fullmatch(device_class) and _DEVID.fullmatch(device))


def is_primary_console(channel: Channel) -> bool:
    """Whether this is a guest's primary console, which xenconsoled in domain 0 serves.

    The domain's builder sets it up, in `~/console` and without states, before the guest runs, and
    nothing can withhold it: it is a part of the domain, and no channel that is decided about.
    """
    return (channel.backend, channel.device_class, channel.device) == (0, "console", "0")


def domain_dir(domid: int) -> str:
    """A domain's home."""
    return f"{LOCAL_DOMAIN}/{domid}"


def frontend_dir(domid: int, device_class: str, device: str) -> str:
    """A frontend's directory; the guest owns it: evidence about the guest, never authority."""
    return f"{LOCAL_DOMAIN}/{domid}/device/{device_class}/{device}"


def backend_dir(backend: int, kind: str, frontend: int, device: str) -> str:
    """A backend's directory; `kind` is the backend's own (`vif`, `vbd`, `qdisk`)."""
    return f"{LOCAL_DOMAIN}/{backend}/backend/{kind}/{frontend}/{device}"


def libxl_device_dir(domid: int, device_class: str, device: str) -> str:
    """The toolstack's own copy of a device: what decisions are made on."""
    return f"{LIBXL}/{domid}/device/{device_class}/{device}"


def security_dir(uuid: str) -> str:
    """Where a domain's label is published."""
    return f"{VM}/{uuid}/security"


def decision_path(channel: Channel) -> str:
    """The node of a channel's decision record."""
    return (
        f"{DECISIONS}/{channel.backend}/{channel.device_class}/{channel.frontend}/{channel.device}"
    )


def filter_path(channel: Channel) -> str:
    """The node of a vif's filter record."""
    return f"{FILTERS}/{channel.backend}/{channel.device_class}/{channel.frontend}/{channel.device}"


def report_dir(channel: Channel) -> str:
    """Where the backend domain's agent reports on a channel: `nonce`, then `enforced`."""
    return f"{REPORTS}/{channel.backend}/{channel.device_class}/{channel.frontend}/{channel.device}"


def drops_path(backend: int) -> str:
    """Where the backend domain's agent reports the packets that it refused between vifs."""
    return f"{REPORTS}/{backend}/{_DROPS}"


def agent_path(backend: int) -> str:
    """Where the backend domain's agent reports that it lives (`broker.core.agent_report`)."""
    return f"{REPORTS}/{backend}/{_AGENT}"


def filter_counts_path(backend: int) -> str:
    """Where the backend domain's agent reports what filter profiles did."""
    return f"{REPORTS}/{backend}/{_FILTER_COUNTS}"


def of_agent(backend: int) -> tuple[str, str, str]:
    """All that an agent reports of itself: `drops_path`, `agent_path`, `filter_counts_path`."""
    return drops_path(backend), agent_path(backend), filter_counts_path(backend)


def parse_of_agent(path: str) -> int | None:
    """The backend domid of an exact path among `of_agent`, or None."""
    parts = path.split("/")
    if len(parts) != 6 or not path.startswith(f"{REPORTS}/") or parts[5] not in _OF_AGENT:
        return None
    return parse_domid(parts[4])


def parse_channel(root: str, path: str) -> tuple[Channel, str] | None:
    """The channel of a path below `DECISIONS` or `REPORTS`, and what follows it, or None."""
    if not path.startswith(root + "/"):
        return None
    parts = path[len(root) + 1 :].split("/", 4)
    if len(parts) < 4:
        return None
    backend, frontend = parse_domid(parts[0]), parse_domid(parts[2])
    if backend is None or frontend is None or not is_device(parts[1], parts[3]):
        return None
    return Channel(backend, parts[1], frontend, parts[3]), "".join(parts[4:])


def parse_backend_dir(path: str) -> tuple[int, str, int, str] | None:
    """Backend domid, backend kind, frontend domid, device of an exact backend directory path."""
    parts = path.split("/")
    if len(parts) != 8 or parts[:3] != ["", "local", "domain"] or parts[4] != "backend":
        return None
    backend, frontend = parse_domid(parts[3]), parse_domid(parts[6])
    if backend is None or frontend is None or not is_device(parts[5], parts[7]):
        return None
    return backend, parts[5], frontend, parts[7]
