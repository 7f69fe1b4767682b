"""One machine at a time, its broker at work, and the scenarios that are run on it."""

from __future__ import annotations

import importlib
import itertools
import time
import traceback
from typing import TYPE_CHECKING

from tools.testbed.bed import Bed
from tools.testbed.cache import WORK, say
from tools.testbed.dom0 import FailedError
from tools.testbed.machine import Machine, MachineError, NoBootError
from tools.testbed.placement import PLACEMENTS, InDom0

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tools.testbed.built import Built
    from tools.testbed.placement import Placement

RESULTS = WORK / "results"
_BOOTS = itertools.count(1)
_ALWAYS = (
    "dmesg > dmesg.txt",
    "cp /var/log/xen/console/* .",
    # It never ends without a xenstored; nor does xl.
    "timeout 20 xenstore-ls -fp > xenstore.txt",
)
_FAILED = (
    "cp /var/log/xen/*.log /var/log/unit-*.log .",
    "ip -d addr > links.txt",
    "nft list ruleset > nft.txt",
    "timeout 20 xl dmesg > xl-dmesg.txt",
    "timeout 20 xl list -l > xl-list.json",
)
"""What is looked at after a scenario, and what only after one that failed."""


class Scenario:
    """A scenario by its name: `same_label`, or `domain/same_label` to have the broker elsewhere."""

    def __init__(self, name: str) -> None:
        place, _, module = name.rpartition("/")
        self.name = name
        self.module = importlib.import_module(f"tools.testbed.scenarios.{module}")
        self.placement = PLACEMENTS[place or getattr(self.module, "BROKER", InDom0.name)]
        self.about = (self.module.__doc__ or name).splitlines()[0]
        self.leaves_a_wreck: bool = getattr(self.module, "LEAVES_A_WRECK", False)


class Outcome:
    """One scenario's."""

    def __init__(self, scenario: Scenario) -> None:
        self.name = scenario.name
        self.about = scenario.about
        self.placement = scenario.placement.name
        self.asserted: list[str] = []
        self.problem = ""
        self.seconds = 0.0
        self.worked = 0.0
        """Seconds of processor time that the machine took, whatever else went on beside it."""


class Host:
    """Machines, one after the other; `measured` is what they told of the mini-domain."""

    def __init__(self, built: Built, shared: Path, *, shell: bool = False) -> None:
        self._built = built
        self._shared = shared
        self._shell = shell
        self._machine: Machine | None = None
        self._placement: str | None = None
        self._results = RESULTS
        self.measured: list[str] = []

    def machine(self, placement: Placement) -> Machine:
        """A running machine with the broker in that place; another one is ended for it.

        Raises:
            MachineError, FailedError: it does not come up.
        """
        if self._machine is not None and self._placement == placement.name:
            return self._machine
        self.stop()
        try:
            machine = self._boot(placement)
        except NoBootError as error:
            # Before dom0's first program: nothing of the product's ran yet.
            say(f"{error}: once more")
            machine = self._boot(placement)
        try:
            start = time.monotonic()
            bed = Bed(machine, "boot", self._results)
            self.measured += placement.begin(bed)
            seconds = time.monotonic() - start
            say(f"the broker, in {placement.name}, decides after {seconds:.1f} s more")
        except BaseException:
            machine.stop()
            raise
        self._machine, self._placement = machine, placement.name
        return machine

    def run(self, name: str) -> Outcome:
        """One scenario, on the machine there is or another."""
        scenario = Scenario(name)
        outcome = Outcome(scenario)
        start = time.monotonic()
        try:
            machine = self.machine(scenario.placement)
            start, worked = time.monotonic(), machine.worked()
            bed = Bed(machine, name.rpartition("/")[2], self._results)
            outcome.asserted = bed.asserted
            try:
                scenario.module.run(bed)
            except BaseException:
                self._collect(bed, (*_ALWAYS, *_FAILED))
                raise
            else:
                self._collect(bed, _ALWAYS)
            finally:
                outcome.worked = machine.worked() - worked
        except (FailedError, MachineError) as error:
            outcome.problem = str(error)
        except Exception:  # noqa: BLE001 - a scenario that is wrong is a failed one
            outcome.problem = traceback.format_exc()
        outcome.seconds = time.monotonic() - start
        how = "ok" if not outcome.problem else "FAILED"
        say(f"{name}: {how} in {outcome.seconds:.1f} s ({outcome.worked:.1f} s of processor time)")
        if outcome.problem:
            say(outcome.problem)
        if outcome.problem and self._machine is not None:
            self._machine.lasting.clear()
        self._clear(name, fresh=scenario.leaves_a_wreck)
        return outcome

    def stop(self) -> None:
        """End the machine."""
        if self._machine is not None:
            self._machine.stop()
            self._machine = None

    def _boot(self, placement: Placement) -> Machine:
        self._results = RESULTS / f"boot-{next(_BOOTS)}"
        self._results.mkdir()
        machine = Machine(
            xen=self._built.xen,
            kernel=self._built.vmlinuz,
            initrd=self._built.initrd,
            root=self._built.root,
            shared=self._shared,
            results=self._results,
            rpc=placement.rpc,
            shell=self._shell,
        )
        try:
            say(f"dom0 is up after {machine.boot():.1f} s")
        except BaseException:
            machine.stop()
            raise
        return machine

    def _clear(self, name: str, *, fresh: bool) -> None:
        """As before the scenario; by a new machine where that cannot be had otherwise."""
        if self._machine is None:
            return
        if not fresh:
            try:
                Bed(self._machine, "clear", self._results).clear()
            except (FailedError, MachineError) as error:
                say(f"after {name} the machine is not what it was ({error}): a new one")
                fresh = True
        if fresh:
            self.stop()

    def _collect(self, bed: Bed, commands: Sequence[str]) -> None:
        """What dom0 has to say after a scenario, into its directory."""
        place = f"/results/{bed.scenario}"
        try:
            bed.dom0.try_run(f"mkdir -p {place}; cd {place}; {'; '.join(commands)}")
        except MachineError as error:
            say(f"nothing could be collected: {error}")
