"""A host with one guest, and dom0's agent taking orders in this process."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

from bed import Bed, until
from records import KEY, UUID
from twisted.internet import defer, reactor

from broker.agent.order_acts import Acts
from broker.agent.order_log import OrderLog
from broker.agent.order_rules import OrderRules
from broker.agent.orders import OrderSession
from broker.core.order import KINDS, Order, parse_result, sign_order
from broker.xenstore import wire
from broker.xenstore.devices import attach_requests, vbd, vif
from broker.xenstore.errors import NotFoundError
from broker.xenstore.paths import ORDER_RESULTS, ORDERS

GUEST, BROKER = 3, 1
MAC = "00:16:3e:00:00:03"
NIC = vif(0, MAC, bridge="xpbr0")
DISK = vbd(51712, "/dev/vg/red-1")
CONNECT_VIF = {
    "kind": "connect",
    "device_class": "vif",
    "device": "1",
    "details": {"bridge": "xpbr0", "mac": "00:16:3e:00:00:04"},
}
CONNECT_VBD = {
    "kind": "connect",
    "device_class": "vbd",
    "device": "51728",
    "details": {"params": "/dev/vg/red-2", "mode": "r"},
}
DESTROY = {"kind": "destroy", "backend": None, "device_class": None, "device": None}
RULES = {
    "kinds": KINDS,
    "disks": ["/dev/vg/*"],
    "spared": {0, BROKER},
    "protocol": "x86_64-abi",
}


def order(seq=1, *, key=KEY, **changes):
    """A signed order, by default to take the guest's vif/0 away."""
    fields = {
        "kind": "disconnect",
        "seq": seq,
        "id": str(uuid.UUID(int=seq)),
        "until": 100,
        "frontend": GUEST,
        "uuid": UUID,
        "backend": 0,
        "device_class": "vif",
        "device": "0",
        "reason": "a test",
    }
    return sign_order(Order(**{**fields, **changes}), key)


class OrdersBed(Bed):
    """The toolstack has made a guest with a vif and a disk."""

    def __init__(self, daemon, directory):
        super().__init__(daemon)
        self.directory = Path(directory)
        self.agent = None
        self.destroyed = []
        self.destroys = True
        self.beating_at = 50
        self.guest = daemon.guest(GUEST)  # C gives nodes only to a domain that it knows
        for domid in (0, GUEST):
            self.store.write(f"/local/domain/{domid}/name", "x")
        self.store.write(f"/local/domain/{GUEST}/vm", f"/vm/{UUID}")
        self.send(NIC)
        self.send(DISK)

    def send(self, device, domid=GUEST):
        """What libxl writes for a device."""
        tx = self.store.start()
        for operation, payload in attach_requests(domid, device):
            path, _, rest = payload.partition(b"\0")
            path = path.decode()
            if operation == wire.WRITE:
                self.store.write(path, rest, tx=tx)
            elif operation == wire.MKDIR:
                self.store.mkdir(path, tx=tx)
            elif operation == wire.RM:
                self.store.rm(path, tx=tx)
        self.store.end(tx)

    def start(self, *, patience=0.2, pause=0.05, **rules):
        """An agent that takes orders, on what it remembers."""
        made = OrderRules(**{**RULES, **rules})
        self.agent = OrderSession(
            self.daemon.address,
            reactor,
            key=KEY.public_key(),
            orders=OrderLog(self.directory),
            rules=made,
            make_acts=lambda connection: Acts(
                connection, reactor, made, self._destroy, patience=patience, pause=pause
            ),
            beat=lambda: self.beating_at,
        )
        self.agent.startService()
        return self.agent

    def _destroy(self, domid, reason):
        self.destroyed.append((domid, reason))
        return defer.succeed(self.destroys)

    async def stop(self):
        if self.agent is not None:
            agent, self.agent = self.agent, None
            await agent.stopService()

    def give(self, text, place="0"):
        self.store.write(f"{ORDERS}/{place}", text)

    def result(self, place="0"):
        line = self.read(f"{ORDER_RESULTS}/{place}")
        return parse_result(line) if line else None

    async def answered(self, seq, place="0"):
        """The result of an order, once it is told."""

        def told():
            result = self.result(place)
            return result if result is not None and result.seq == seq else None

        return await until(told, f"a result of order {seq}, not {self.result(place)}")

    async def done(self, seq, **changes):
        """Give an order, and wait for its result."""
        self.give(order(seq, **changes))
        return await self.answered(seq)

    def places(self, device_class, devid, domid=GUEST, backend=0):
        """Both ends' directories and the toolstack's copy."""
        return (
            f"/local/domain/{domid}/device/{device_class}/{devid}",
            f"/local/domain/{backend}/backend/{device_class}/{domid}/{devid}",
            f"/libxl/{domid}/device/{device_class}/{devid}",
        )

    def present(self, device_class, devid, **where):
        return [self.exists(path) for path in self.places(device_class, devid, **where)]

    def exists(self, path):
        with contextlib.suppress(NotFoundError):
            self.store.read(path)
            return True
        return False
