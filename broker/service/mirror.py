"""The broker's picture of the store: domains, their devices, reports and published records.

Only what decisions and displays need is kept. Whatever a guest or an agent wrote is `untrusted_…`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from broker.core.record import INPUT_KEYS, inputs_digest
from broker.text.escape import escape
from broker.xenstore import paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HIDDEN: Final = b"\0hidden"
"""Stands for a value that the broker may not read; a NUL never begins a value the kernel wrote."""
_NO_INPUTS: Final = inputs_digest({})
_VM_PREFIX: Final = b"/vm/"


class Device:
    """One device of one domain, as the toolstack's copy has it, and what is known around it."""

    __slots__ = (
        "backend",
        "channel",
        "device",
        "device_class",
        "display_path",
        "domid",
        "gone",
        "inputs",
        "inputs_digest",
        "keys",
        "nonce_path",
        "path",
        "problem",
        "published",
        "report_path",
        "shown",
        "untrusted_backend",
        "untrusted_backend_id",
        "untrusted_enforced",
        "untrusted_nonce",
    )

    def __init__(self, domid: int, device_class: str, device: str) -> None:
        self.domid = domid
        self.device_class = device_class
        self.device = device
        self.gone = False
        self.keys: Mapping[str, bytes] = {}
        self.inputs: Mapping[str, bytes] = {}
        self.inputs_digest = _NO_INPUTS
        self.problem = "the device has no backend"
        self.backend: int | None = None
        self.channel: paths.Channel | None = None
        self.path = ""
        self.report_path = ""
        self.nonce_path = ""
        self.display_path = ""
        self.published: bytes | None = None
        self.shown: bytes | None = None
        self.untrusted_backend: bytes | None = None
        self.untrusted_backend_id: bytes | None = None
        self.untrusted_nonce: bytes | None = None
        self.untrusted_enforced: bytes | None = None

    @property
    def mode(self) -> Literal["r", "w"]:
        """`r` where it only reads, else `w`."""
        return "r" if self.keys.get("mode") == b"r" else "w"

    def set_keys(self, keys: dict[str, bytes]) -> bool:
        """Take the toolstack's keys; whether the channel (its backend) is another now."""
        self.keys = keys
        self.inputs = {key: keys[key] for key in INPUT_KEYS if key in keys}
        self.inputs_digest = inputs_digest(self.inputs)
        before = self.channel
        self.backend, self.problem = _parse_backend(self.domid, self.device, keys.get("backend"))
        self.channel = (
            None
            if self.backend is None
            else paths.Channel(self.backend, self.device_class, self.domid, self.device)
        )
        if self.channel is not None and paths.is_primary_console(self.channel):
            self.channel = None
        if self.channel != before:
            self.path = "" if self.channel is None else paths.decision_path(self.channel)
            self.report_path = "" if self.channel is None else paths.report_dir(self.channel)
            self.nonce_path = f"{self.report_path}/nonce"
            self.published = self.untrusted_nonce = self.untrusted_enforced = None
        return self.channel != before

    @property
    def copies(self) -> tuple[bytes | None, bytes | None]:
        """The guest's own `backend` and `backend-id`, as last read."""
        return self.untrusted_backend, self.untrusted_backend_id

    def set_copies(self, untrusted_copies: tuple[bytes | None, bytes | None]) -> None:
        """Take what was read of them."""
        self.untrusted_backend, self.untrusted_backend_id = untrusted_copies

    def set_shown(self, _: str, value: bytes) -> None:
        """The broker wrote the verdict that people see."""
        self.shown = value

    def __str__(self) -> str:
        """As people write it."""
        if self.channel is not None:
            return str(self.channel)
        return f"{self.device_class}/{self.domid}/{self.device}"

    def frontend_violation(self) -> tuple[str, str]:
        """What the guest made of its own copy of `backend`, where it is not the truth.

        Its kind, and the evidence, escaped; both empty where all is well.
        """
        if HIDDEN in (self.untrusted_backend, self.untrusted_backend_id):
            return "its frontend directory is unreadable", ""
        truth = self.keys.get("backend")
        if truth is not None and self.untrusted_backend not in (None, truth):
            said = escape(self.untrusted_backend or b"", 80)
            return "its frontend's backend is not the toolstack's", f": {said}"
        domid = b"" if self.backend is None else str(self.backend).encode("ascii")
        if domid and self.untrusted_backend_id not in (None, domid):
            said = escape(self.untrusted_backend_id or b"", 80)
            return "its frontend's backend-id is not the toolstack's", f": {said}"
        return "", ""


class Domain:
    """One domain.

    `dying`: its home is gone while the store still knows it. `listed`: its devices could be.
    `written` is what the broker wrote into its security directory. `refused_label` says why a
    label found there was not adopted; it is remembered, since what was found is put back.
    """

    __slots__ = (
        *("devices", "domid", "dying", "listed", "name", "problem", "refused_label"),
        *("security", "uuid", "written"),
    )

    def __init__(self, domid: int) -> None:
        self.domid = domid
        self.dying = False
        self.listed = False
        self.uuid: str | None = None
        self.problem = ""
        self.name: str | None = None
        self.refused_label = ""
        self.security: dict[str, bytes | None] = {}
        self.written: dict[str, bytes] = {}
        self.devices: dict[tuple[str, str], Device] = {}

    def set_shown(self, path: str, value: bytes) -> None:
        """The broker wrote a node of the security directory."""
        key = path.partition("/security/")[2]
        self.security[key] = self.written[key] = value

    def set_name(self, value: bytes | None) -> bool:
        """Take `/vm/<uuid>/name`; whether it is another one. What is not UTF-8 is no name."""
        before = self.name
        try:
            self.name = value.decode("utf-8") if value else None
        except UnicodeDecodeError:
            self.name = None
        return self.name != before


class Mirror:
    """All domains, which devices each one is backend of, and what its agent says of itself.

    `agents_heard` is when that was news last, by the monotonic clock.
    """

    def __init__(self) -> None:
        self.domains: dict[int, Domain] = {}
        self.backends: dict[int, dict[Device, None]] = {}
        self.untrusted_drops: dict[int, bytes] = {}
        self.untrusted_agents: dict[int, bytes] = {}
        self.untrusted_filter_counts: dict[int, bytes] = {}
        self.agents_heard: dict[int, float] = {}
        self._uuids: dict[str, set[int]] = {}

    def clear(self) -> None:
        """Forget everything, before it is read anew."""
        self.domains.clear()
        self.backends.clear()
        self.untrusted_drops.clear()
        self.untrusted_agents.clear()
        self.untrusted_filter_counts.clear()
        self.agents_heard.clear()
        self._uuids.clear()

    def of_uuid(self, uuid: str) -> list[Domain]:
        """The domains that claim a uuid, the lowest domid first."""
        return [self.domains[domid] for domid in sorted(self._uuids.get(uuid, ()))]

    def add(self, domain: Domain) -> None:
        """Take a domain in, once its uuid is known."""
        self.domains[domain.domid] = domain
        if domain.uuid is not None:
            self._uuids.setdefault(domain.uuid, set()).add(domain.domid)

    def drop(self, domid: int) -> Domain | None:
        """Forget a domain with all its devices; the domain, if it was known."""
        domain = self.domains.get(domid)
        if domain is None:
            return None
        for device in list(domain.devices.values()):
            self.drop_device(device)
        del self.domains[domid]
        self.untrusted_drops.pop(domid, None)
        self.untrusted_agents.pop(domid, None)
        self.untrusted_filter_counts.pop(domid, None)
        self.agents_heard.pop(domid, None)
        if domain.uuid is not None:
            same = self._uuids[domain.uuid]
            same.discard(domid)
            if not same:
                del self._uuids[domain.uuid]
        return domain

    def devices(self) -> Iterator[Device]:
        """Every device of every domain."""
        for domain in self.domains.values():
            yield from domain.devices.values()

    def device_of(self, channel: paths.Channel) -> Device | None:
        """The device a channel belongs to, if that is its backend now."""
        domain = self.domains.get(channel.frontend)
        if domain is None:
            return None
        device = domain.devices.get((channel.device_class, channel.device))
        return device if device is not None and device.channel == channel else None

    def index(self, device: Device, former: int | None) -> None:
        """Keep `backends` right after a device's backend changed."""
        if former is not None and former in self.backends:
            self.backends[former].pop(device, None)
        if device.backend is not None and not device.gone:
            self.backends.setdefault(device.backend, {})[device] = None

    def drop_device(self, device: Device) -> None:
        """A device is gone."""
        device.gone = True
        self.index(device, device.backend)
        self.domains[device.domid].devices.pop((device.device_class, device.device), None)


def departed(channel: paths.Channel) -> Device:
    """A device that is gone already, to speak of: it has its channel, and nothing else."""
    device = Device(channel.frontend, channel.device_class, channel.device)
    home = paths.backend_dir(
        channel.backend, channel.device_class, channel.frontend, channel.device
    )
    device.set_keys({"backend": home.encode("ascii")})
    device.gone = True
    return device


def parse_vm(value: bytes | None) -> tuple[str | None, str]:
    """The uuid that `/local/domain/<domid>/vm` names, or what is wrong with it."""
    if value is None:
        return None, "it has no uuid"
    text = value.decode("latin-1")
    if value.startswith(_VM_PREFIX) and paths.is_uuid(text[len(_VM_PREFIX) :]):
        return text[len(_VM_PREFIX) :], ""
    return None, f"its vm node {escape(value, 80)} names no uuid"


def _parse_backend(domid: int, device: str, value: bytes | None) -> tuple[int | None, str]:
    """The backend domid of a device, and what is malformed about it (empty: nothing)."""
    if value is None:
        return None, "the device has no backend"
    parsed = paths.parse_backend_dir(value.decode("latin-1"))
    if parsed is None:
        return None, f"the device's backend path {escape(value, 200)} is not canonical"
    backend, _, frontend, devid = parsed
    if (frontend, devid) != (domid, device):
        return backend, f"the device's backend path {escape(value, 200)} is another device's"
    return backend, ""
