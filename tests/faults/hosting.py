"""What a toolstack does on a host, in the store and in the kernel, and whom that touches."""

from __future__ import annotations

from broker.sim.toolstack import create_requests, destroy_requests
from broker.xenstore.devices import attach_requests, detach_requests


class Guest:
    """A domain: `devices` by kind and devid, each a kernel's."""

    def __init__(self, domid, uuid):
        self.domid = domid
        self.uuid = uuid
        self.devices = {}
        self.lost = False
        """Whether the store has lost it: it runs, and nobody can see it."""


class Hosting:
    """The toolstack's part of a `World`, which has the `store`, the `kernel` and the `guests`."""

    # the toolstack

    def create(self, domid, uuid):
        self._transact(create_requests(domid, uuid, f"d{domid}"))
        self.store.dom0.introduce(domid)
        self.guests[domid] = Guest(domid, uuid)
        return self.guests[domid]

    def destroy(self, guest):
        """The domain is gone, in the hypervisor and, if that knows of it, in the store."""
        for device in list(guest.devices.values()):
            self.detach(guest, device)
        del self.guests[guest.domid]
        if not self.guests:
            self.out_of_sight.update(self.log.admitted, [guest.domid])
        if guest.domid in self.backends:
            self._end_backend(guest.domid)
        if not guest.lost:
            self._transact(destroy_requests(guest.domid, guest.uuid))
            self.store.dom0.release(guest.domid)

    def _end_backend(self, domid):
        """With a driver domain go its agent and all that it served."""
        self.backends.discard(domid)
        agent = self.agents.pop(domid, None)
        if agent is not None and not agent.dead:
            agent.kill()
        for guest in self.guests.values():
            for device in list(guest.devices.values()):
                if device.device.backend == domid:
                    self.detach(guest, device)

    def attach(self, guest, device):
        """A new device; one of that name that was there is gone."""
        self.undisturbed.pop(guest.devices.get((device.kind, device.devid)), None)
        if not guest.lost:
            self._transact(attach_requests(guest.domid, device))
        made = self.kernel.make(guest.domid, device)
        guest.devices[device.kind, device.devid] = made
        return made

    def detach(self, guest, device):
        self.undisturbed.pop(device, None)
        what = device.device
        del guest.devices[what.kind, what.devid]
        self.kernel.drop(guest.domid, what)
        if not guest.lost:
            self._transact(detach_requests(guest.domid, what))

    def exchange(self, guest, device, params):
        """Another disk in the place of one in both of the toolstack's copies: no new life."""
        self.undisturbed.pop(device, None)
        what = device.device
        device.keys["params"] = params.encode()
        for top in (what.libxl_dir(guest.domid), what.backend_dir(guest.domid)):
            if self.read(f"{top}/params") is not None:
                self.store.dom0.write(f"{top}/params", params.encode())

    def _transact(self, changes):
        store = self.store.dom0
        tx = store.start()
        for operation, payload in changes:
            store.request(operation, payload, tx)
        store.end(tx)
        self.store.embedded.wake()

    # what is disturbed

    def disturb(self, touched):
        """What `touched(device)` says was touched may close and open as it has to."""
        for device in [it for it in self.undisturbed if touched(it)]:
            del self.undisturbed[device]

    def disturb_domain(self, uuid):
        """All that a domain takes part in, and whoever a wall keeps apart from it."""
        self.disturb(lambda it: uuid in self.ends(it) or self._walled(it))

    def ends(self, device):
        """The uuids of a device's two domains."""
        found = (self.guests.get(device.domid), self.guests.get(device.device.backend))
        return [it.uuid for it in found if it is not None]

    def _walled(self, device):
        return any((self.log.labels.get(it) or "").startswith("bank") for it in self.ends(device))
