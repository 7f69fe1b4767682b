"""What a scenario is given: guests to create, the product to stop and start, things to assert."""

from __future__ import annotations

import re
import time
import uuid
from typing import TYPE_CHECKING

from tools.testbed.dom0 import PATIENCE, Dom0, FailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tools.testbed.machine import Machine

GUEST_MIB = 96
XVDA = 51712
"""A guest's first disk: docs/man/xen-vbd-interface.7."""
AGENT_SOCKET = "/run/xen-policy-broker/agent.sock"
_LOOKS_FOR_THE_DEAD = 10
_NAMES = uuid.UUID("b3f6a1de-0000-4000-8000-000000000000")


class Guest:
    """One domain under one name and uuid; its domid changes with each of its lives."""

    def __init__(self, bed: Bed, name: str) -> None:
        self._bed = bed
        self.name = name
        self.uuid = str(uuid.uuid5(_NAMES, f"{bed.scenario}/{name}"))
        self.domid = -1

    def try_run(self, command: str, timeout: float = PATIENCE) -> tuple[int | None, str]:
        """A command in the guest: status (None: no answer in time) and what it said."""
        return self._bed.dom0.on_console(self.domid, command, timeout)

    def run(self, command: str, timeout: float = PATIENCE) -> str:
        """What a command in the guest said.

        Raises:
            FailedError: it failed, or gave no answer.
        """
        status, output = self.try_run(command, timeout)
        if status != 0:
            raise FailedError(f"{self.name}: {command}: {status}: {output}")
        return output

    def up(self, address: int, card: str = "eth0") -> None:
        """Give a network card 10.0.0.`address` and fd00::`address`, and wait until it runs."""
        self._bed.connected(self, "vif", int(card.removeprefix("eth")))
        self.run(
            f"echo 0 > /proc/sys/net/ipv6/conf/{card}/accept_dad;"
            f"ip link set {card} up && ip addr add 10.0.0.{address}/24 dev {card} &&"
            f"ip addr add fd00::{address}/64 dev {card}"
        )

    def try_up(self, address: int, card: str = "eth0") -> None:
        """As `up`, of a guest that is to get nowhere: it may have no such card, or lose it."""
        loaded = "test -e /run/xen-netfront"
        self._bed.dom0.until("netfront is loaded", lambda: self.try_run(loaded)[0] == 0)
        self.try_run(
            f"ip link set {card} up; ip addr add 10.0.0.{address}/24 dev {card};"
            f"ip addr add fd00::{address}/64 dev {card}"
        )

    def reaches(self, address: int) -> bool:
        """Whether an IPv4 echo comes back, tried for some seconds."""
        return self.try_run(f"ping -c 4 -i 0.5 -W 1 -q 10.0.0.{address}")[0] == 0

    def listen(self, card: str = "eth0") -> None:
        """Begin to count what its network card receives, by sender."""
        self.run(f"rm -f /run/heard; (listen {card} /run/heard) > /dev/null 2>&1 &")

    def heard(self) -> set[str]:
        """The link addresses of those whose frames it has received."""
        lines = self.try_run("cat /run/heard")[1].splitlines()
        return {line.split()[0] for line in lines if line.count(":") == 5}

    def marks(self) -> set[int]:
        """The marks (frames.py) of the frames it has received."""
        lines = self.try_run("cat /run/heard")[1].splitlines()
        return {int(line.split()[1]) for line in lines if line.startswith("marked ")}

    def send(self, frame: bytes, card: str = "eth0") -> None:
        """Send a frame as it is."""
        self.run(f"send {card} {frame.hex()}")

    def mac(self, number: int = 0) -> str:
        """The link address of one of its network cards."""
        return self._bed.mac(self.name, number)


class Bed:
    """One scenario's view of the machine."""

    def __init__(self, machine: Machine, scenario: str, results: Path) -> None:
        self.scenario = scenario
        self.machine = machine
        self.dom0 = Dom0(machine)
        self.results = results
        self.asserted: list[str] = []
        self.guests: list[Guest] = []
        self._asked_in_vain = 0

    # asserting

    def check(self, what: str, holds: object, detail: object = "") -> None:
        """Assert `what`; what held is told in the table.

        Raises:
            FailedError: it does not.
        """
        if not holds:
            raise FailedError(f"{what}: no{f': {detail}' if detail else ''}")
        self.asserted.append(what)

    def soon(self, what: str, holds: Callable[[], object], timeout: float = PATIENCE) -> object:
        """Assert that `what` comes true in `timeout` seconds."""
        value = self.dom0.until(what, holds, timeout)
        self.asserted.append(what)
        return value

    # domains

    def guest(
        self,
        name: str,
        label: str | None,
        *,
        vifs: Sequence[str] = (),
        disks: Sequence[str] = (),
        extra: str = "",
        memory: int = GUEST_MIB,
        initrd: str = "guest-initrd",
        start: bool = True,
    ) -> Guest:
        """A domain with `vifs` (xl's text; `bridge=…`) and `disks` (paths below /srv) or xl's text.

        Raises:
            FailedError: it could not be created.
        """
        guest = Guest(self, name)
        self.guests.append(guest)
        if label is not None:
            self.dom0.rpc("label.set", domain=f"uuid:{guest.uuid}", label=label)
        macs = [self.mac(name, number) for number in range(len(vifs))]
        cards = ", ".join(f'"mac={mac},{vif}"' for mac, vif in zip(macs, vifs, strict=True))
        specs = [
            disk
            if "target=" in disk
            else f"format=raw,vdev=xvd{'abcdef'[number]},access=w,target={disk}"
            for number, disk in enumerate(disks)
        ]
        images = [spec.rpartition("target=")[2] for spec in specs]
        made = " ".join(f"[ -e {image} ] || truncate -s 16M {image};" for image in images)
        text = "\n".join(
            [
                f'name = "{name}"',
                f'uuid = "{guest.uuid}"',
                'kernel = "/boot/vmlinux"',
                f'ramdisk = "/root/{initrd}"',
                f"memory = {memory}",
                "vcpus = 1",
                'extra = "console=hvc0 quiet mitigations=off apparmor=0 cryptomgr.notests"',
                f"vif = [ {cards} ]",
                f"disk = [ {', '.join(map(repr, specs))} ]",
                extra,
            ]
        )
        self.dom0.run(f"{made} cat > /root/{name}.cfg <<'END'\n{text}\nEND")
        if start:
            self.create(guest)
        return guest

    def create(self, guest: Guest, options: str = "") -> None:
        """`xl create`."""
        self.dom0.run(f"xl create {options} /root/{guest.name}.cfg")
        guest.domid = int(self.dom0.run(f"xl domid {guest.name}"))

    def destroy(self, guest: Guest) -> None:
        """`xl destroy`."""
        self.dom0.run(f"xl destroy {guest.domid}")
        guest.domid = -1

    @staticmethod
    def mac(name: str, number: int) -> str:
        """The link address of a guest's network card."""
        digits = uuid.uuid5(_NAMES, name).hex
        return f"00:16:3e:{digits[:2]}:{digits[2:4]}:{number:02x}"

    # what the product says and does

    def record(self, guest: Guest, kind: str, device: int = 0, backend: int = 0) -> dict[str, str]:
        """The decision published for a channel: its fields, with the verdict as `verdict`."""
        path = f"/broker/v1/decision/{backend}/{kind}/{guest.domid}/{device}"
        text = self.dom0.read(path) or ""
        verdict, *fields = text.split(" ")
        return {"verdict": verdict, **dict(field.split("=", 1) for field in fields)}

    def enforced(self, guest: Guest, kind: str, device: int = 0, backend: int = 0) -> str:
        """What the agent reports for a channel: `open`, `closed`, ..., or empty."""
        path = f"/broker/v1/report/{backend}/{kind}/{guest.domid}/{device}/enforced"
        return (self.dom0.read(path) or "").partition(" ")[0]

    def connected(self, guest: Guest, kind: str, device: int, timeout: float = PATIENCE) -> None:
        """Wait until the guest's frontend says so."""
        path = f"/local/domain/{guest.domid}/device/{kind}/{device}/state"
        self.dom0.until(f"{path} is 4", lambda: self.dom0.read(path) == "4", timeout)

    def link(self, guest: Guest, device: int = 0) -> str:
        """What dom0's kernel says of a vif's link; empty if there is none."""
        return self.dom0.try_run(f"ip -o link show vif{guest.domid}.{device}")[1]

    def vif_is_open(self, guest: Guest, device: int = 0) -> bool:
        """Whether the vif's link is up and bridged."""
        link = self.link(guest, device)
        return " master " in link and "UP" in re.sub(r"NO-CARRIER|LOWER_UP", "", link.split(">")[0])

    def loops(self, *images: str) -> str:
        """The loop devices that serve these images."""
        return self.dom0.run(f"for it in {' '.join(images)}; do losetup -j $it; done")

    def physical_device(self, guest: Guest, device: int = XVDA) -> str | None:
        """A disk's `physical-device`: without it blkback serves nothing."""
        return self.dom0.read(f"/local/domain/0/backend/vbd/{guest.domid}/{device}/physical-device")

    def frontend_state(self, guest: Guest, kind: str, device: int) -> str | None:
        """The guest's end of a channel."""
        return self.dom0.read(f"/local/domain/{guest.domid}/device/{kind}/{device}/state")

    def blkback_threads(self, guest: Guest) -> str:
        """The kernel threads that serve this guest's disks."""
        return self.dom0.try_run(f"ps -eo comm | grep '^{guest.domid}\\.xvd'")[1]

    def netback_threads(self, guest: Guest) -> str:
        """The kernel threads that serve this guest's network cards."""
        return self.dom0.try_run(f"ps -eo comm | grep '^vif{guest.domid}\\.'")[1]

    def start(self, program: str) -> None:
        """Start brokerd or broker-agent."""
        self.dom0.run(f"sh /host/inside/product start {program}")

    def alive(self, program: str) -> bool:
        """Whether it runs."""
        return self.dom0.try_run(f"sh /host/inside/product alive {program}")[0] == 0

    def stop(self, program: str, signal: str = "TERM") -> None:
        """End it, and wait until it has."""
        self.dom0.run(f"sh /host/inside/product stop {program} {signal}")
        if program == "broker-agent":
            self.dom0.run(f"rm -f {AGENT_SOCKET}")

    def enforcing(self, timeout: float = PATIENCE) -> None:
        """Wait for the broker to enforce, and for the agent to take hotplug scripts' calls."""
        self.dom0.until("the broker's state is enforcing", self._is_enforcing, timeout)
        self.listening(timeout)

    def listening(self, timeout: float = PATIENCE) -> None:
        """Wait for the agent to take hotplug scripts' calls."""
        self.dom0.until("broker-agent listens", self._is_listening, timeout)

    def _is_listening(self) -> bool:
        """Whether broker-agent does; if it has ended it is started again, as by its unit."""
        if self.dom0.exists(AGENT_SOCKET):
            return True
        # Its start takes long, and asking costs it time.
        self._asked_in_vain += 1
        if self._asked_in_vain % _LOOKS_FOR_THE_DEAD == 0 and not self.alive("broker-agent"):
            self.start("broker-agent")
        return False

    def _is_enforcing(self) -> bool:
        try:
            return bool(self.dom0.rpc("status")["enforcing"])
        except FailedError:
            return False

    def destroy_all(self) -> None:
        """End every domain but dom0, the broker's and those that last (lasting.py)."""
        spared = "|".join(["broker", *(it.name for it in self.machine.lasting.values())])
        self.dom0.run(
            f"for it in $(xl list | awk 'NR > 2 && $1 !~ /^({spared})$/ {{ print $(NF - 4) }}'); do"
            " xl destroy $it & done; wait"
        )

    def clear(self) -> None:
        """Destroy what the scenario made, and see that the product's programs run."""
        self.destroy_all()
        for program in ("brokerd", "broker-agent"):
            if not self.alive(program):
                self.start(program)
        self.enforcing()

    def uptime(self) -> float:
        """dom0's own clock: emulated time, however slow the machine outside."""
        return float(self.dom0.run("cut -d' ' -f1 /proc/uptime"))

    def pause(self, seconds: float) -> None:
        """Let emulated time pass, where the point is that nothing happens in it."""
        time.sleep(seconds)
