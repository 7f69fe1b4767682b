"""Runs scenarios on one machine after the other and tells what held."""

from __future__ import annotations

import importlib
import json
import shutil
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tools.testbed import images, kernel
from tools.testbed.bed import Bed
from tools.testbed.cache import HERE, WORK, command, say
from tools.testbed.dom0 import FailedError
from tools.testbed.machine import Machine, MachineError

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARED = WORK / "shared"
RESULTS = WORK / "results"
KEY = "/var/lib/xen-policy-broker/broker.pub"


class Outcome:
    """One scenario's."""

    def __init__(self, name: str, about: str) -> None:
        self.name = name
        self.about = about
        self.asserted: list[str] = []
        self.problem = ""
        self.seconds = 0.0


class Runner:
    """Machines, one at a time, and what happens on them.

    `product` is a tree of the product that is run instead of its packages.
    """

    def __init__(self, product: Path | None = None, *, shell: bool = False) -> None:
        linux = kernel.Kernel()
        self._xen, self._linux = kernel.hypervisor(), linux
        # Another tree takes the place of what is in the packages.
        debs = images.packages(any_build=product is not None)
        self._root = images.root_image(linux, debs)
        self._initrd = images.dom0_initrd(linux)
        self._initrds = {
            "guest-initrd": images.guest_initrd(linux),
            "driver-initrd": images.driver_initrd(linux),
        }
        self._product = product
        self._shell = shell
        self._machine: Machine | None = None
        self._boots = 0
        shutil.rmtree(RESULTS, ignore_errors=True)
        RESULTS.mkdir(parents=True)

    def machine(self) -> Machine:
        """The running machine, booted and with the product at work if there was none.

        Raises:
            MachineError, FailedError: it does not come up.
        """
        if self._machine is not None:
            return self._machine
        self._share()
        self._boots += 1
        results = RESULTS / f"boot-{self._boots}"
        results.mkdir()
        machine = Machine(
            xen=self._xen,
            kernel=self._linux.vmlinuz,
            initrd=self._initrd,
            root=self._root,
            shared=SHARED,
            results=results,
            shell=self._shell,
        )
        try:
            say(f"dom0 is up after {machine.boot():.1f} s")
            start = time.monotonic()
            bed = Bed(machine, "boot", results)
            bed.dom0.run("sh /host/inside/product install")
            bed.start("brokerd")
            bed.dom0.until(
                "brokerd has made its key", lambda: bed.dom0.try_run(f"test -e {KEY}")[0] == 0, 120
            )
            bed.start("broker-agent")
            bed.enforcing()
            say(f"the broker decides after {time.monotonic() - start:.1f} s more")
        except BaseException:
            machine.stop()
            raise
        self._machine = machine
        self._results = results
        return machine

    def run(self, names: Sequence[str]) -> list[Outcome]:
        """Run these scenarios; each outcome is told as it comes."""
        try:
            return [self._one(name) for name in names]
        finally:
            self.stop()

    def stop(self) -> None:
        """End the machine."""
        if self._machine is not None:
            self._machine.stop()
            self._machine = None

    def _one(self, name: str) -> Outcome:
        module = importlib.import_module(f"tools.testbed.scenarios.{name}")
        outcome = Outcome(name, (module.__doc__ or name).splitlines()[0])
        start = time.monotonic()
        try:
            machine = self.machine()
            start = time.monotonic()
            bed = Bed(machine, name, self._results)
            outcome.asserted = bed.asserted
            try:
                module.run(bed)
            finally:
                self._collect(bed)
        except (FailedError, MachineError) as error:
            outcome.problem = str(error)
        except Exception:  # noqa: BLE001 - a scenario that is wrong is a failed one
            outcome.problem = traceback.format_exc()
        outcome.seconds = time.monotonic() - start
        say(f"{name}: {'ok' if not outcome.problem else 'FAILED'} in {outcome.seconds:.1f} s")
        if outcome.problem:
            say(outcome.problem)
        self._clear(name, fresh=getattr(module, "LEAVES_A_WRECK", False))
        return outcome

    def _clear(self, name: str, *, fresh: bool) -> None:
        """As before the scenario; by a new machine where that cannot be had otherwise."""
        if self._machine is None:
            return
        if not fresh:
            try:
                Bed(self._machine, name, self._results).clear()
            except (FailedError, MachineError) as error:
                say(f"after {name} the machine is not what it was ({error}): a new one")
                fresh = True
        if fresh:
            self.stop()

    def _collect(self, bed: Bed) -> None:
        """What dom0 has to say after a scenario, into its directory."""
        place = f"/results/{bed.scenario}"
        # xl and xenstore-ls never end without a xenstored.
        commands = (
            "dmesg > dmesg.txt",
            "cp /var/log/xen/console/* .",
            "ip -d addr > links.txt",
            "nft list ruleset > nft.txt",
            "timeout 20 xl dmesg > xl-dmesg.txt",
            "timeout 20 xenstore-ls -fp > xenstore.txt",
            "timeout 20 xl list -l > xl-list.json",
        )
        try:
            bed.dom0.try_run(f"mkdir -p {place}; cd {place}; {'; '.join(commands)}")
        except MachineError as error:
            say(f"nothing could be collected: {error}")

    def _share(self) -> None:
        shutil.rmtree(SHARED, ignore_errors=True)
        SHARED.mkdir(parents=True)
        for name in ("inside", "config"):
            shutil.copytree(HERE / name, SHARED / name)
        for name, initrd in self._initrds.items():
            shutil.copy(initrd, SHARED / name)
        if self._product is not None:
            self._pack_product(self._product, SHARED / "product.tar")

    @staticmethod
    def _pack_product(product: Path, archive: Path) -> None:
        """The tree as it is, compiled, for the site-packages of dom0's Python."""
        with tempfile.TemporaryDirectory(prefix="xs-e2e-") as name:
            tree = Path(name)
            ignored = shutil.ignore_patterns("__pycache__")
            for part in ("broker",):
                shutil.copytree(product / part, tree / part, ignore=ignored)
            unchecked = ["--invalidation-mode", "unchecked-hash"]
            command(["/usr/bin/python3", "-m", "compileall", "-q", *unchecked, tree / "broker"])
            command(["tar", "-C", tree, "-cf", archive, "."])


def tell(outcomes: Sequence[Outcome]) -> bool:
    """The table, and results.json beside the rest; whether all held."""
    table = Table(title="real Xen", show_lines=True)
    table.add_column("scenario")
    table.add_column("asserted", ratio=1)
    table.add_column("seconds", justify="right")
    for it in outcomes:
        lines = [it.about, *(f"  + {what}" for what in it.asserted)]
        if it.problem:
            lines.append(f"  - FAILED: {it.problem}")
        table.add_row(it.name, "\n".join(lines), f"{it.seconds:.1f}")
    Console(width=120, markup=False).print(table)
    report = [
        {"scenario": it.name, "asserted": it.asserted, "problem": it.problem, "seconds": it.seconds}
        for it in outcomes
    ]
    (RESULTS / "results.json").write_text(json.dumps(report, indent=1))
    passed = sum(not it.problem for it in outcomes)
    print(f"{passed} passed, {len(outcomes) - passed} failed")
    return passed == len(outcomes)
