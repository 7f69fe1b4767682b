"""Where the broker runs in a machine: in a domain of its own, in dom0, or nowhere yet."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tools.testbed.bed import Bed

KEY: Final = "/var/lib/xen-policy-broker/broker.pub"
"""The broker's public key, for dom0's agent."""
CONSOLE: Final = "/var/log/xen/console/guest-broker.log"
MEMORY_MIB: Final = 160
"""The mini-domain's: config/broker.cfg."""
_STATE: Final = "/broker/v1/state"
_ALIVE_SECONDS: Final = 300.0


class InDom0:
    """brokerd as one more program of dom0's."""

    name: Final = "dom0"
    rpc: Final[dict[str, Any]] = {"socket": "/run/xen-policy-broker/broker.sock"}

    def begin(self, bed: Bed) -> list[str]:
        """Start both programs for the first time; nothing is measured."""
        _install(bed, self.name)
        bed.start("brokerd")
        bed.dom0.until(
            "brokerd has made its key",
            lambda: bed.dom0.exists(KEY),
            _ALIVE_SECONDS,
        )
        bed.start("broker-agent")
        bed.enforcing()
        return []


class InDomain:
    """brokerd in the mini-domain: unprivileged, its RPC over vchan, its key from its console."""

    name: Final = "domain"
    rpc: Final[dict[str, Any]] = {
        "socket": "/run/xen-policy-broker/vchan-0.sock",
        "tls": "/etc/xen-policy-broker/pki",
    }

    def begin(self, bed: Bed) -> list[str]:
        """Start the agent, the domain, and the agent again with the key; what was measured."""
        _install(bed, self.name)
        bed.start("broker-agent")
        bed.listening()
        bed.dom0.run("sh /host/inside/product create-broker")
        before, worked = bed.uptime(), bed.machine.worked()
        bed.dom0.until(
            "the mini-domain enforces", lambda: bed.dom0.read(_STATE) == "enforcing", _ALIVE_SECONDS
        )
        seconds, worked = bed.uptime() - before, bed.machine.worked() - worked
        bed.dom0.until(
            "its key is on its console",
            lambda: bed.dom0.try_run(f"grep -q 'END PUBLIC KEY' {CONSOLE}")[0] == 0,
        )
        bed.stop("broker-agent")
        bed.dom0.run(f"sed -n '/BEGIN PUBLIC/,/END PUBLIC/p' {CONSOLE} | tr -d '\\r' > {KEY}")
        bed.start("broker-agent")
        bed.dom0.run("sh /host/inside/product ways-in")
        bed.enforcing()
        console = bed.dom0.run(f"cat {CONSOLE}")
        memory = re.search(r"memory: (\d+ of \d+ MiB available)", console)
        decided = f"{seconds:.1f} s after xl create returned ({worked:.1f} s of processor time)"
        return [
            f"first decision: {decided}",
            f"memory: {MEMORY_MIB} MiB, {memory[1] if memory else 'not told'}",
        ]


class Nowhere:
    """No broker: the packages are installed, and nothing was done with them."""

    name: Final = "nowhere"
    rpc: Final[dict[str, Any]] = {}

    def begin(self, _bed: Bed) -> list[str]:
        """Start nothing."""
        return []


Placement = InDom0 | InDomain | Nowhere
PLACEMENTS: Final[dict[str, Placement]] = {it.name: it for it in (InDom0(), InDomain(), Nowhere())}


def _install(bed: Bed, name: str) -> None:
    """Configure the product for the test bed."""
    bed.dom0.run(f"sh /host/inside/product install {name}")
