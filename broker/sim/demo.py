"""`make demo`: the broker's main job, told as it happens, on simulated domains.

The store, brokerd and broker-agent are the product's own programs; the demo plays the toolstack,
the guests and the administrator, and checks what it shows: it fails where a gate is not as told.
"""

from __future__ import annotations

import shutil
import tempfile
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from twisted.internet import task
from twisted.internet.defer import Deferred

from broker.audit.directory import PUBLIC_KEY, read_key, verify_directory
from broker.rpc.methods import LabelSet
from broker.sim.host import Domain, HostError, SimulatedHost
from broker.sim.protocol_mutations import Mutations
from broker.sim.toolstack import Device, vbd, vif
from broker.text.escape import escape, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.core.record import Verdict
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transport import Reactor

ROOT: Final = Path(__file__).parents[2]
RED_DISK: Final = "/dev/vg/red-web1"
BLUE_DISK: Final = "/dev/vg/blue-db1"
ROGUE_DISK: Final = "/dev/vg/red-rogue"
WIDTH: Final = 79
BROKEN: Final = (("mac", ".fixed"), ("ring-ref", ".type"))
"""A key of a frontend's, and how it breaks the rules of it: of a vif's, of a vbd's."""
STYLES: Final = {"grant": "bold green", "deny": "bold red", "pending": "bold yellow"}


class Demo:
    """The story, a chapter a function; `checks` counts what was asserted on the way."""

    def __init__(self, host: SimulatedHost, console: Console) -> None:
        self._host = host
        self._console = console
        self.checks = 0
        self.verdicts = {"grant": 0, "deny": 0}

    async def run(self) -> None:
        """Tell it all.

        Raises:
            HostError: something is not as it should be.
        """
        web = await self._customers()
        await self._denied()
        await self._relabelled(web)
        await self._wall()
        await self._hostile(web)
        await self._broken()
        await self._crash()
        self._chapter("The audit log has every decision, written before it took effect")
        state = self._host.directory / "state"
        report = verify_directory(state, [read_key(state / PUBLIC_KEY)])
        if not report.good:
            raise HostError(f"the audit log is not whole: {report.problems[0]}")
        self.checks += 1
        self._say(f"{report.last} durable records in the state directory's audit.jsonl, each")
        self._say("chained to the one before: brokerctl audit verify finds nothing wrong")

    async def _customers(self) -> Domain:
        self._chapter("Two customers boot, each with a network device and a disk of its own")
        web = await self._boot("red-web", "web_red", [vif(0, _mac(1)), vbd(51712, RED_DISK)])
        await self._expect_all(web, "grant")
        database = await self._boot("blue-db", "db_blue", [vif(0, _mac(2)), vbd(51712, BLUE_DISK)])
        await self._expect_all(database, "grant")
        return web

    async def _denied(self) -> None:
        self._chapter("A red domain asks for the blue customer's disk")
        thief = await self._boot("red-thief", "web_red", [vbd(51712, BLUE_DISK)])
        await self._expect_all(thief, "deny")
        self._chapter("A domain that nobody labelled")
        stray = await self._boot("stray", None, [vif(0, _mac(3))])
        await self._expect_all(stray, "deny")
        await self._host.destroy(thief)
        await self._host.destroy(stray)

    async def _relabelled(self, web: Domain) -> None:
        self._chapter("The administrator gives red-web to the blue customer, while it runs")
        self._label("red-web", "web_blue", web)
        await self._expect(web, web.devices[1], "deny")
        await self._expect(web, web.devices[0], "grant")
        self._say("its disk is revoked; its network device is decided afresh for the new label")
        self._label("red-web", "web_red", web)
        await self._expect_all(web, "grant")

    async def _wall(self) -> None:
        self._chapter("Two rival banks and a Chinese Wall: never both on one host")
        first = await self._boot("bank-a", "bank_a", [vif(0, _mac(4))])
        await self._expect_all(first, "grant")
        second = await self._boot("bank-b", "bank_b", [vif(0, _mac(5))])
        await self._expect_all(second, "deny")
        self._say("bank-a is destroyed")
        await self._host.destroy(first)
        await self._expect_all(second, "grant")
        await self._host.destroy(second)

    async def _hostile(self, web: Domain) -> None:
        self._chapter("A guest rewrites its own directory: backend-id, backend, 2,000 times")
        front = web.devices[0].frontend_dir(web.domid)
        guest = self._guest(web)
        for number in range(1000):
            await guest.write(f"{front}/backend-id", str(number).encode())
            await guest.write(f"{front}/backend", b"/local/domain/%d/\xff" % number)
        await self._expect(web, web.devices[0], "deny")
        await self._expect(web, web.devices[1], "grant")
        self._say("nobody believed it: decisions rest on the toolstack's own copy; but it broke")
        self._say("the protocol of its network device, is named for it, and loses that channel")

    async def _broken(self) -> None:
        self._chapter("A guest breaks one rule of each device's protocol, as described")
        rogue = await self._boot("rogue", "web_red", [vif(0, _mac(7)), vbd(51712, ROGUE_DISK)])
        await self._expect_all(rogue, "grant")
        for device, (key, broken) in zip(rogue.devices, BROKEN, strict=True):
            spec = self._host.specs[device.kind]
            mutations = Mutations(spec).of_key("frontend", key)
            mutation = next(it for it in mutations if it.rule.endswith(broken))
            error = mutation.changes[-1]
            self._say(f"rogue: {_title(device)}: {mutation.what}")
            path = f"{device.frontend_dir(rogue.domid)}/{error.key}"
            await self._guest(rogue).write(path, (error.value or "").encode())
            reason = await self._expect(rogue, device, "deny")
            # One write may break several rules of a key; which is told first is the monitor's.
            if f"{mutation.party} broke frontend.{key}." not in reason:
                raise HostError(f"the party or the rule is not named: {reason}")
            self.checks += 1
        await self._host.destroy(rogue)

    async def _crash(self) -> None:
        self._chapter("brokerd is killed: what is open stays, nothing new opens")
        self._host.kill("brokerd")
        late = await self._boot("late", None, [vif(0, _mac(6))])
        nic = late.devices[0]
        held = f"{nic.frontend_dir(late.domid)}/state"

        async def frontend_waits() -> bool:
            return await self._host.read(held) == b"4"

        await self._host.until_true(frontend_waits, "the frontend to wait for its backend")
        if await self._host.read(f"{nic.backend_dir(late.domid)}/state") != b"2":
            raise HostError("a gate opened without a broker")
        self.checks += 1
        self._say("late: vif 0 waits, closed; no broker, no grant")
        await self._host.start_brokerd()
        self._label("late", "web_red", late)
        await self._expect_all(late, "grant")

    def _guest(self, domain: Domain) -> StoreConnection:
        if domain.connection is None:
            raise HostError(f"{domain.name} has no connection")
        return domain.connection

    async def _boot(self, name: str, label: str | None, devices: Sequence[Device]) -> Domain:
        """Label a name, then create the domain, as an operator would."""
        if label is not None:
            self._label(name, label)
        domain = await self._host.create(name, _uuid(name), devices)
        domain.label = label
        kinds = ", ".join(_title(device) for device in devices)
        self._say(f"domain {domain.domid}, {name}, boots: label {label or 'none'}; {kinds}")
        return domain

    def _label(self, name: str, label: str, domain: Domain | None = None) -> None:
        if domain is not None:
            domain.label = label
        self._host.rpc().call("label.set", LabelSet(domain=f"name:{name}", label=label))
        self._say(f"$ brokerctl label set {name} {label}")

    async def _expect_all(self, domain: Domain, verdict: Verdict) -> None:
        for device in domain.devices:
            await self._expect(domain, device, verdict)

    async def _expect(self, domain: Domain, device: Device, verdict: Verdict) -> str:
        """Wait until the record, the agent and the backend all say so; show and answer why."""
        gate, backend_state = ("open", b"4") if verdict == "grant" else ("closed", b"2")
        reason = ""

        async def as_told() -> bool:
            nonlocal reason
            record = await self._host.record(domain, device)
            enforced = await self._host.enforced(domain, device)
            state = await self._host.read(f"{device.backend_dir(domain.domid)}/state")
            reason = record.reason if record is not None else ""
            said = enforced.split(" ", 1)[0]
            return (
                record is not None
                and record.verdict == verdict
                and record.labels[0] == domain.label
                and f"seq={record.seq} " in enforced
                and (said == gate if verdict == "grant" else said in ("closed", "suspended"))
                and (verdict != "grant" or state == backend_state)
            )

        await self._host.until_true(as_told, f"{domain.name} {_title(device)}: {verdict}")
        self.checks += 1
        self.verdicts["grant" if verdict == "grant" else "deny"] += 1
        self._console.print(f"  [{STYLES[verdict]}]{verdict.upper():7}[/]", end="")
        self._console.print(f"{domain.name}: {_title(device)}", markup=False)
        self._print(reason, indent=9, style="dim")
        return reason

    def _chapter(self, title: str) -> None:
        self._console.print(f"\n{title}", style="bold", markup=False)

    def _say(self, text: str) -> None:
        self._print(text, indent=2)

    def _print(self, text: str, *, indent: int, style: str | None = None) -> None:
        for line in textwrap.wrap(printable(text, 1000), WIDTH - indent, break_on_hyphens=False):
            self._console.print(" " * indent + line, style=style, markup=False)


def _title(device: Device) -> str:
    if device.kind == "vbd":
        return f"disk {device.details['params']}"
    return f"vif {device.devid} on {device.details['bridge']}"


def _mac(number: int) -> str:
    return f"00:16:3e:00:00:{number:02x}"


def _uuid(name: str) -> str:
    return f"00000000-0000-4000-8000-{name.encode().hex()[:12]:0>12}"


async def _main(reactor: Reactor) -> None:
    console = Console(highlight=False, soft_wrap=True)
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="xpb-demo-"))
    host = SimulatedHost(
        reactor, directory, policy=ROOT / "etc" / "policy.yaml", specs=ROOT / "protocol_specs"
    )
    try:
        console.print("xen-policy-broker demo", style="bold")
        console.print("store, brokerd and broker-agent are real; domains and gates simulated")
        await host.start()
        demo = Demo(host, console)
        await demo.run()
    except HostError as error:
        console.print(f"\nFAILED: {escape(str(error), 2000)}", style="bold red", markup=False)
        console.print(f"Logs are kept in {directory}", markup=False)
        await host.stop()
        raise SystemExit(1) from None
    await host.stop()
    shutil.rmtree(directory)
    seconds = time.monotonic() - began
    console.print(
        f"\n{demo.verdicts['grant']} grants and {demo.verdicts['deny']} denials, each seen at the "
        f"record, the agent and the backend;\n{demo.checks} checks, {seconds:.1f} s. "
        "Nothing opened that should not.",
        markup=False,
    )


def main() -> None:
    """Run the demo; the process ends with 0, or with 1 where something is not as told."""
    task.react(lambda reactor: Deferred.fromCoroutine(_main(reactor)))


if __name__ == "__main__":
    main()
