"""The agent's configuration, etc/agent.yaml: checked like a policy, problems with their places."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from broker.core.order import KINDS, Kind
from broker.net.model import InvalidError, interface_name
from broker.text.marked_yaml import load_struct
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from pathlib import Path

Domid = Annotated[int, msgspec.Meta(ge=0, lt=0x7FF0)]
Uuid = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


class BootstrapDevice(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A device that opens without a record: exactly this domain, class, devid and params."""

    uuid: Uuid
    device_class: Literal["vif", "vbd"] = msgspec.field(name="class")
    devid: Annotated[int, msgspec.Meta(ge=0)]
    params: str


class HelperConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """dom0's helper: who the broker is, by one of the two."""

    broker_domid: Domid | None = None
    broker_uuid: Uuid | None = None


class OrdersConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which of the broker's orders dom0's agent takes; `disks` are paths or globs."""

    kinds: list[Kind] = msgspec.field(default_factory=lambda: list(KINDS))
    disks: list[str] = []


class AgentConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One agent; etc/agent.yaml explains each key. Relative paths start at the file's place."""

    store: str
    domid: Domid
    broker_key: str
    state: str
    gates: Literal["real", "simulated"] = "real"
    strict: bool = False
    allow_observe: bool = False
    ungated: Literal["destroy", "report"] = "destroy"
    xl: str = "/usr/sbin/xl"
    hotplug_socket: str | None = None
    helper: HelperConfig | None = None
    orders: OrdersConfig | None = None
    bootstrap_devices: list[BootstrapDevice] = []
    bridges: list[str] = []
    policies: str | None = None
    route_through: str = "eth0"
    net_report: str = "/run/xen-policy-broker/net.json"


def load_config(path: Path) -> AgentConfig:
    """Read the configuration.

    Raises:
        OSError: it cannot be read.
        ProblemsError: it is not as it should be, or others than root may write it while it
            lists devices that open without a record.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(file.fileno())
        data = file.read()
    config = load_struct(data, str(path), AgentConfig)
    problems: list[str] = []
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if config.bootstrap_devices and (status.st_uid != 0 or writable):
        problems.append("bootstrap_devices are only taken from a file that root alone may write")
    problems += _dom0_problems(config)
    if config.store != "xenbus" and not config.store.startswith(("unix:", "xenbus:")):
        problems.append(f"store: {config.store!r} is not unix:PATH, xenbus or xenbus:PATH")
    if config.bridges and (config.policies is None or config.gates != "real"):
        problems.append("bridges needs policies: DIR (the policy files), and real gates")
    if config.policies is not None and config.gates != "real":
        problems.append("policies needs real gates: simulated ones pass no frames")
    for name in (*config.bridges, config.route_through):
        try:
            interface_name(name)
        except InvalidError as error:
            problems.append(str(error))
    if problems:
        raise ProblemsError(tuple(Problem(str(path), 1, 1, problem) for problem in problems))
    place = path.parent
    return msgspec.structs.replace(
        config,
        broker_key=str(place / config.broker_key),
        state=str(place / config.state),
        hotplug_socket=config.hotplug_socket and str(place / config.hotplug_socket),
        policies=config.policies and str(place / config.policies),
        net_report=str(place / config.net_report),
    )


def _dom0_problems(config: AgentConfig) -> list[str]:
    """What is wrong with what domain 0's agent alone has."""
    problems: list[str] = []
    if config.domid != 0 and (config.strict or config.helper or config.orders):
        problems.append("strict, helper and orders are for domain 0's agent alone")
    disks = [] if config.orders is None else config.orders.disks
    if any(not disk.startswith("/") for disk in disks):
        problems.append("orders: disks are absolute paths, or globs of such")
    helper = config.helper
    if helper and (helper.broker_domid is None) == (helper.broker_uuid is None):
        problems.append("helper: either broker_uuid or broker_domid")
    return problems


def load_key(path: Path) -> Ed25519PublicKey | None:
    """The broker's public key, from its PEM file; None if there is no such file yet.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no Ed25519 public key.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        key: object = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{path} holds no Ed25519 public key in PEM")  # noqa: TRY004 - a file's content
    return key
