"""How large domains are, for people: read from what libxl wrote, when somebody asks.

Nothing is decided on it. libxl writes `memory/target` and `memory/static-max` (KiB) and
`cpu/<n>/availability` into a domain's home, where its guest can only read them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from broker.xenstore import paths
from broker.xenstore.together import together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.xenstore.client import StoreConnection
    from broker.xenstore.errors import StoreError

_KIB: Final = re.compile(rb"[0-9]{1,12}")
_MOST_VCPUS: Final = 512
"""Xen's own limit for one domain."""


class Size(msgspec.Struct, frozen=True):
    """Memory in KiB and the VCPUs online; None where the store does not say."""

    memory: int | None = None
    vcpus: int | None = None


async def read_sizes(store: StoreConnection, domids: Sequence[int]) -> dict[int, Size]:
    """The size of each domain, in two rounds whatever their number.

    Raises:
        ConnectionLostError: the connection ended.
    """
    homes = [paths.domain_dir(domid) for domid in domids]
    keys = ("memory/target", "memory/static-max")
    memory, listings = await together(
        store.read_many([f"{home}/{key}" for home in homes for key in keys]),
        store.directory_many([f"{home}/cpu" for home in homes]),
    )
    cpus = [
        [f"{home}/cpu/{name}/availability" for name in names[:_MOST_VCPUS] if name.isdecimal()]
        if isinstance(names, list)
        else []
        for home, names in zip(homes, listings, strict=True)
    ]
    answers = iter(await store.read_many([path for of_one in cpus for path in of_one]))
    sizes = {}
    for domid, target, most, of_one in zip(domids, memory[::2], memory[1::2], cpus, strict=True):
        said = [next(answers) for _ in of_one]
        online = said.count(b"online") if said and all(_is_bytes(it) for it in said) else None
        known = _kib(target)
        sizes[domid] = Size(_kib(most) if known is None else known, online)
    return sizes


def _kib(answer: bytes | StoreError) -> int | None:
    return int(answer) if isinstance(answer, bytes) and _KIB.fullmatch(answer) else None


def _is_bytes(answer: bytes | StoreError) -> bool:
    return isinstance(answer, bytes)
