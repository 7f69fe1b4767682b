"""What has to be read again: watch events, deduplicated, bounded and fair between domains.

An event is a hint; its path alone says what to re-read, and on whose account. Paths a guest can
write are charged to that guest: however fast it writes, its set stays small and each turn takes
only so much of it.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from functools import lru_cache
from typing import Final

import msgspec

from broker.core.record import INPUT_KEYS
from broker.xenstore import paths

HOST: Final = -1
"""The account of what only the toolstack and the broker write."""
GUEST_LIMIT: Final = 512
"""Paths one domain may have waiting; one more, and the whole domain is read instead."""
HOST_LIMIT: Final = 65_536
"""The same for the host's account: more, and everything is read again."""
GUEST_SHARE: Final = 256
"""Paths of one domain in one turn."""
HOST_SHARE: Final = 512
LATER_SHARE: Final = 128
DEVICE_KEYS: Final = frozenset({"backend", *INPUT_KEYS})
"""The keys of a device under `/libxl` that a decision looks at."""
SECURITY_KEYS: Final = ("acm_label/labelname", "acm_label/policyname", "ssidref", "status")
"""What the broker keeps in `/vm/<uuid>/security` for each domain."""


class Kind(Enum):
    """What to read again."""

    WORLD = auto()  # which domains there are
    DOMAIN = auto()  # one domain, whole
    VM = auto()  # /vm/<uuid>: name and security
    SHOWN = auto()  # the verdict shown for one device
    DEVICE = auto()  # one device, whole
    FRONTEND = auto()  # what the guest says of one device, or of all (no device_class)
    NONCE = auto()
    ENFORCED = auto()
    RECORD = auto()
    REPORTS = auto()  # every report of one backend domain
    RECORDS = auto()  # every record towards one backend domain
    DROPS = auto()  # what one backend domain's agent says of itself; all (no domid): HOST


class Item(msgspec.Struct, frozen=True):
    """One thing to read again; `path` is its identity, `account` whom it is charged to."""

    kind: Kind
    account: int
    path: str
    domid: int = 0
    device_class: str = ""
    device: str = ""
    channel: paths.Channel | None = None
    uuid: str = ""


WORLD: Final = Item(Kind.WORLD, HOST, "/")


def classify(path: str) -> Item | None:
    """What an event on `path` asks to read again, judged by the path alone; None for nothing."""
    if path.startswith("/broker/"):
        return _broker_item(path)
    parts = path.split("/")
    top = parts[1] if len(parts) > 1 else ""
    if top == "local":
        return _local_item(parts)
    if top == "libxl":
        return _libxl_item(parts)
    if top == "vm":
        return _vm_item(path, parts)
    return WORLD if path in (paths.INTRODUCE, paths.RELEASE, "/") else None


def domain_item(domid: int) -> Item:
    """The whole of one domain; on its own account, so that it cannot delay the others."""
    return Item(Kind.DOMAIN, domid, paths.domain_dir(domid), domid)


def frontend_item(domid: int, device_class: str, device: str) -> Item:
    """What a guest says of one of its devices."""
    home = paths.frontend_dir(domid, device_class, device)
    return Item(Kind.FRONTEND, domid, home, domid, device_class, device)


def drops_item(backend: int) -> Item:
    """What one backend domain's agent says of itself: that it lives, what it refused."""
    return Item(Kind.DROPS, backend, paths.drops_path(backend), backend)


def _local_item(parts: list[str]) -> Item | None:
    if len(parts) < 4:
        return WORLD
    domid = paths.parse_domid(parts[3])
    if domid is None:
        return None
    if len(parts) == 4 or (len(parts) == 5 and parts[4] == "vm"):
        return domain_item(domid)
    if parts[4] != "device" or len(parts) > 8:
        return None
    if len(parts) < 7:
        return Item(Kind.FRONTEND, domid, f"{paths.domain_dir(domid)}/device", domid)
    if len(parts) == 8 and parts[7] not in ("backend", "backend-id"):
        return None
    if not paths.is_device(parts[5], parts[6]):
        return None
    return frontend_item(domid, parts[5], parts[6])


def _libxl_item(parts: list[str]) -> Item | None:
    if len(parts) < 3:
        return WORLD
    domid = paths.parse_domid(parts[2])
    if domid is None:
        return None
    if len(parts) == 3 or (parts[3] == "device" and len(parts) < 6):
        return Item(Kind.DOMAIN, HOST, paths.domain_dir(domid), domid)
    if parts[3] != "device" or not paths.is_device(parts[4], parts[5]):
        return None
    if len(parts) == 6 or (len(parts) == 7 and parts[6] in DEVICE_KEYS):
        home = paths.libxl_device_dir(domid, parts[4], parts[5])
        return Item(Kind.DEVICE, HOST, home, domid, parts[4], parts[5])
    return None


def _vm_item(path: str, parts: list[str]) -> Item | None:
    if len(parts) < 3:
        return WORLD
    uuid = parts[2]
    below = path[len("/vm/") + len(uuid) + 1 :]
    if len(parts) == 7 and parts[3:5] == ["security", "channel"]:
        return Item(Kind.SHOWN, HOST, path, 0, parts[5], parts[6], uuid=uuid)
    if below not in ("", "name") and not (below + "/").startswith("security/"):
        return None
    return Item(Kind.VM, HOST, f"{paths.VM}/{uuid}", uuid=uuid)


@lru_cache(maxsize=16_384)
def _broker_item(path: str) -> Item | None:
    # The same few nodes of each channel, over and over, and none of them a guest can name.
    backend = paths.parse_of_agent(path)
    if backend is not None:
        return drops_item(backend)
    if path == paths.REPORTS:
        return Item(Kind.DROPS, HOST, path, HOST)
    report = path.startswith(paths.REPORTS)
    parsed = paths.parse_channel(paths.REPORTS if report else paths.DECISIONS, path)
    if parsed is not None:
        channel, leaf = parsed
        if report and leaf in ("nonce", "enforced"):
            kind = Kind.NONCE if leaf == "nonce" else Kind.ENFORCED
            return Item(kind, channel.backend, path, channel=channel)
        if not report and not leaf:
            return Item(Kind.RECORD, HOST, path, channel=channel)
        if leaf:
            return None
    for root, kind in ((paths.REPORTS, Kind.REPORTS), (paths.DECISIONS, Kind.RECORDS)):
        if path.startswith(root + "/"):
            backend = paths.parse_domid(path[len(root) + 1 :].partition("/")[0])
            if backend is not None:
                account = backend if kind is Kind.REPORTS else HOST
                return Item(kind, account, f"{root}/{backend}", backend)
    return None


class DirtySet:
    """What waits to be read again: one queue for each account, and one for what can wait."""

    def __init__(self) -> None:
        self._accounts: dict[int, dict[str, Item]] = {}
        self._order: deque[int] = deque()
        self._later: dict[str, Item] = {}

    def __bool__(self) -> bool:
        """Whether anything waits that should not wait longer."""
        return bool(self._accounts)

    def __len__(self) -> int:
        return sum(map(len, self._accounts.values())) + len(self._later)

    @property
    def has_later(self) -> bool:
        """Whether anything is left of what could wait."""
        return bool(self._later)

    def add(self, item: Item) -> None:
        """Note one thing to read; what waits already is not noted twice."""
        waiting = self._accounts.get(item.account)
        if waiting is None:
            waiting = self._accounts[item.account] = {}
            self._order.append(item.account)
        waiting[item.path] = item
        if item.account == HOST:
            if len(waiting) > HOST_LIMIT:
                waiting.clear()
                waiting["*"] = Item(Kind.WORLD, HOST, "*")
        elif len(waiting) > GUEST_LIMIT:
            whole = domain_item(item.account)
            reports = f"{paths.REPORTS}/{item.account}"
            waiting.clear()
            waiting[whole.path] = whole
            waiting[reports] = Item(Kind.REPORTS, item.account, reports, item.account)

    def add_later(self, item: Item) -> None:
        """Note what to read when there is time: echoes of what the broker itself wrote."""
        self._later[item.path] = item
        if len(self._later) > HOST_LIMIT:
            self._later.clear()
            self._later["*"] = Item(Kind.WORLD, HOST, "*")

    def take(self) -> list[Item]:
        """One turn's worth: every account in its turn, none more than its share."""
        result: list[Item] = []
        for _ in range(len(self._order)):
            account = self._order.popleft()
            waiting = self._accounts[account]
            share = HOST_SHARE if account == HOST else GUEST_SHARE
            if len(waiting) <= share:
                result += waiting.values()
                del self._accounts[account]
                continue
            for path in list(waiting)[:share]:
                result.append(waiting.pop(path))
            self._order.append(account)
        return result

    def take_later(self) -> list[Item]:
        """One turn's worth of what could wait."""
        return [self._later.pop(path) for path in list(self._later)[:LATER_SHARE]]

    def clear(self) -> None:
        """Forget everything: it will all be read anyway."""
        self._accounts.clear()
        self._order.clear()
        self._later.clear()
