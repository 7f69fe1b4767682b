"""Deciding while the RPC is abused, beside deciding in quiet: p99 may at most double.

`abuser.py` does what it can without a certificate, and with one of a role that may do nothing.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from broker.pki.authority import Authority
from broker.pki.names import Names
from tools.bench.decisions import BROKER, latencies
from tools.bench.item import item
from tools.bench.rig import Rig, process

if TYPE_CHECKING:
    from collections.abc import Iterator

DOMAINS, DEVICES = 100, 4
REQUESTS = 2000
TARGET = 2.0


def items() -> Iterator[dict[str, Any]]:
    """p99 of a decision, quiet and abused, on C xenstored."""
    rig = Rig("C", DOMAINS, DEVICES)
    pki = rig.directory / "pki"
    authority, now = Authority(pki), datetime.now(UTC)
    authority.init(("localhost",), now)
    authority.issue(Names("mallory", "nothing"), now)
    tls = rig.directory / "tls.sock"
    keys = (
        f'  listen: ["unix:{tls}"]\n  tls: {{certificate: {pki}/broker.crt, '
        f"key: {pki}/broker.key, ca: {pki}/ca.crt, revoked: {pki}/revoked}}\n"
    )
    try:
        with rig.brokerd(keys):
            quiet = latencies(rig, BROKER, REQUESTS)
            words = [sys.executable, "-m", "tools.bench.abuser", str(tls), str(pki)]
            with process(words, rig.log) as it:
                rig.wait_for(it, lambda: b"abusing" in rig.log.read_bytes())
                abused = latencies(rig, BROKER, REQUESTS)
    finally:
        rig.close()
    yield item("abuse-p50", abused[0], "us", floor=quiet[0])
    yield item("abuse-p99", abused[1], "us", floor=quiet[1], target=TARGET)
