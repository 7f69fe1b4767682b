"""Any bytes as a file a person wrote: read, or refused with places. The first byte says which.

A policy, a filter profile, libvirt's XML, ACM's XML, map, resources and compiled policy.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from support import acm

from broker.filters.load import load_profile
from broker.filters.nwfilter import convert
from broker.policy.acm.binary import read_binary
from broker.policy.acm.load import import_acm
from broker.policy.acm.map_file import read_map
from broker.policy.acm.read import Source
from broker.policy.acm.resource_file import read_resources
from broker.policy.load import load_policy
from broker.policy.xl_config import read_xl_config
from broker.text.problems import ProblemsError
from tools.fuzz.expected import UnexpectedError, refused_well

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).parents[2]


def _policy(data: bytes) -> None:
    policy = load_policy(data, "fuzz")
    for device_class in ("vif", "vbd", "no-class"):
        for label in (policy.bootstrap, "nobody"):
            request = device_class, label, policy.bootstrap
            if policy.decide(*request) != policy.explain(*request).granted:
                raise UnexpectedError(f"decided and explained differ: {request}")


def _libvirt(data: bytes) -> None:
    load_profile(convert(data, "fuzz").text.encode(), "fuzz")


def _acm(data: bytes) -> None:
    import_acm(Source(data, "fuzz"))


_KINDS = (
    _policy,
    lambda data: load_profile(data, "fuzz"),
    _libvirt,
    _acm,
    lambda data: read_map(data, "fuzz"),
    lambda data: read_resources(data, "fuzz", "site.tenants"),
    lambda data: read_binary(data, "fuzz"),
    lambda data: read_xl_config(data, "fuzz"),
)


def run(data: bytes) -> None:
    """Read `data` as the file its first byte says.

    Raises:
        UnexpectedError: it is refused without a place, or what it makes contradicts itself.
    """
    if not data:
        return
    try:
        _KINDS[data[0] % len(_KINDS)](data[1:])
    except ProblemsError as error:
        refused_well(error)


def seeds() -> Iterator[bytes]:
    """The shipped policies and profiles, and ACM's files as tests have them."""
    policies = [*(_ROOT / "etc").glob("*policy*.yaml"), *(_ROOT / "docs").glob("*.yaml")]
    yield from (b"\0" + path.read_bytes() for path in sorted(policies))
    yield from (b"\1" + path.read_bytes() for path in sorted((_ROOT / "etc/filters").glob("*")))
    yield b"\2<filter name='a' chain='ipv4'><rule action='drop' direction='out' priority='5'>"
    yield b"\2<filter name='a'><filterref filter='b'/><rule action='accept' direction='in'><tcp/>"
    yield b"\3" + acm.NEW.encode()
    yield b"\4" + acm.MAP.encode()
    yield b"\5{'phy:/dev/a': ('ACM', 'site.tenants', 'zinc')}"
    yield b"\6" + bytes(64)
    yield b"\7name = 'a'\naccess_control = ['policy=p,label=l']\nacm_label = ['l']\n"


def words() -> Iterator[bytes]:
    """Every word of the seeds."""
    for seed in seeds():
        yield from re.findall(rb"[A-Za-z0-9_-]+:?", seed)
