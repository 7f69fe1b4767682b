"""Labels on the bridges: from what the agent remembers of records to classes in the kernel.

Stands between the enforcer, which knows records and lives, and broker/net, which knows ports,
labels and policies. The label of a vif is the one in the grant that its life opened on; the policy
is the one that the newest record accepted was decided under, if the operator has put its file
where the agent finds it. In every other case a port has no class, and then nothing passes.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from twisted.internet import task
from twisted.logger import Logger

from broker.agent.bridge_counts import BridgeCounts
from broker.agent.bridge_report import BridgeReport
from broker.agent.durable import HeldPort
from broker.agent.gates.base import GateError
from broker.agent.gates.labelled import open_port
from broker.agent.policies import MissingPolicyError, find_policy
from broker.net.links import LinkTable
from broker.net.messages import Alarm, Dropped
from broker.net.model import NetError
from broker.net.policy_rules import PolicyRules
from broker.net.ports import LabelledPorts, OpenPort
from broker.net.report import Report
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from broker.agent.durable import DurableState, Known
    from broker.agent.gates.base import Device
    from broker.agent.net_helper import NetHelper
    from broker.agent.vif_filters import VifFilters
    from broker.core.consumer import Memory
    from broker.net.client import HelperClient
    from broker.net.messages import Event
    from broker.net.model import PortFilter
    from broker.net.policy_rules import Rules, Uplink
    from broker.xenstore.transport import Reactor

_LOOK_AGAIN: Final = 1.0
"""Seconds between looks at what no event tells of: a policy file that came, a helper that went."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_NO_RECORD: Final = "no record of the broker's says yet which policy is in force"


class _NoRules:
    """No policy: there is no label, and nothing passes."""

    names: Sequence[str] = ()
    bootstrap = ""
    uplinks: Sequence[Uplink] = ()

    def frames(self, a: str, b: str) -> bool:  # noqa: ARG002 - the protocol's
        """Nothing passes."""
        return False

    def alike(self, name: str) -> str:
        """There is no name to tell from another."""
        return name


class Bridges:
    """Holds the frames of this domain's vifs to labels, on the bridges named; see `docs/bridge.md`.

    It is the vif gate's port filter. `changed` is called when vifs that the enforcer knows should
    be looked at again. `report` is the file that `brokerctl net show` reads.
    """

    log = Logger()

    def __init__(
        self,
        names: Sequence[str],
        *,
        policies: Path,
        report: Path,
        durable: DurableState,
        helper: NetHelper,
        reactor: Reactor,
        filters: VifFilters | None = None,
    ) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._names = names
        self._policies = policies
        self.counts = BridgeCounts(
            lambda: None if self._ports is None else self._ports.report(), helper, reactor
        )
        self._report = BridgeReport(report, reactor, self._described)
        self._durable = durable
        self._reactor = reactor
        self._boot = _BOOT_ID.read_text(encoding="ascii").strip()
        self._links = LinkTable()
        self._helper = helper
        self._filters = filters
        self._ports: LabelledPorts | None = None
        self._seq = -1
        self._digest = ""
        self._rules: Rules = _NoRules()
        self._without = _NO_RECORD
        """Why there are no rules, or empty."""
        self._looking = task.LoopingCall(self._look)
        self._looking.clock = reactor

    def start(self) -> None:
        """From the helper's start on, take over each one.

        What is open by a grant stays open, everything else on the bridges closes.
        """
        known = self._durable.saved.slots.values()
        self._newest(it.memory for it in known)
        if self._digest:
            self._find_rules()
        self._helper.took_up = self._take_up
        self._helper.heard = self._heard
        self._helper.alarm = self._report.alarm
        self._looking.start(_LOOK_AGAIN, now=False)

    def stop(self) -> None:
        """Every port stays as it is."""
        if self._looking.running:
            self._looking.stop()
        self._report.stop()

    @property
    def policy(self) -> str:
        """The digest of the policy whose labels hold here; empty where its file is missing."""
        return "" if self._without else self._digest

    # the vif gate's filter

    def admit(self, device: Device, link: str) -> None:
        """Put the port's elements in place; raises `GateError` if they are not."""
        if self._without:
            raise GateError(f"{link}: {self._without}")
        label = self._label(device)
        if label is None:
            raise GateError(f"{link}: no label is granted for {device.channel}")
        try:
            self._hold(device, open_port(device, link, label, self._filter(device)))
        except NetError as error:
            raise GateError(f"{link}: {error}") from error

    def expel(self, device: Device, link: str) -> None:
        """Drop the port's frames at once and take its elements away; raises `GateError`."""
        known = self._known(device)
        names = {link}
        if known is not None and known.port is not None:
            names.add(known.port.port.name)  # it may have been renamed meanwhile
            known.port = None
        try:
            for name in names:
                self._in_force().expel(name)
            self._report.soon()
        except NetError as error:
            raise GateError(f"{device.channel}: {link}: {error}") from error

    # the enforcer's

    def follow(self, memories: Iterable[Memory]) -> None:
        """Records were accepted: if the newest names another policy, that is now in force."""
        if self._newest(memories):
            self._find_rules()
            self._apply_rules()

    def keep(self, device: Device, *, may_move: bool) -> str:
        """See that an open vif has the class of its label; why it has to be closed, or empty.

        `may_move` is whether it may now be given another label's class.
        """
        if self._without:
            return self._without
        label, known = self._label(device), self._known(device)
        if label is None:
            return "no label is granted"
        if known is None or known.port is None:
            return "it is open without its label's class"
        name = known.port.port.name
        try:
            if self._links.get(known.port.index) is None:
                return "its interface is another one now, without its label's class"
            wanted = open_port(device, name, label, self._filter(device))
            if wanted == known.port.port:
                return ""
            if not may_move:
                what = "a filter" if label == known.port.port.label else f"label {label}"
                return f"{what} is granted, but it cannot be acted upon yet"
            self._hold(device, wanted)
        except (NetError, GateError) as error:
            return str(error)
        self.log.info("{port}: its label is now {label}", port=name, label=escape(label))
        return ""

    def follow_filters(self, *, may_move: bool) -> None:
        """Bring what is told of filters into force for all open vifs: one transaction, or nothing.

        What cannot be brought into force so, `keep` does for each vif or closes it.
        """
        ports, filters = self._ports, self._filters
        if ports is None or filters is None or not may_move:
            return
        asked: dict[str, tuple[Known, HeldPort, PortFilter | None]] = {}
        for known in self._durable.saved.slots.values():
            if known.port is None:
                continue
            with contextlib.suppress(GateError):
                wanted = filters.of(known)
                if wanted != known.port.port.filter:
                    asked[known.port.port.name] = known, known.port, wanted
        if not asked and filters.texts == ports.profiles:
            return
        try:
            ports.set_filters(filters.texts, {name: it[2] for name, it in asked.items()})
        except NetError as error:
            self._report.alarm(f"filter profiles stay as they were: {error}")
            return
        for known, held, wanted in asked.values():
            port = msgspec.structs.replace(held.port, filter=wanted)
            known.port = msgspec.structs.replace(held, port=port)
        self.log.info("filters: {vifs} vifs have others", vifs=len(asked))
        self._report.soon()

    def links_changed(self) -> None:
        """Uplinks may have come, or come back."""
        self._try(lambda ports: ports.refresh_uplinks())

    def _hold(self, device: Device, port: OpenPort) -> None:
        known = self._known(device)
        if known is None:
            raise GateError(f"{port.name}: its life is not known")
        known.port = None
        # Saved at the pass's end; if that never comes, the next start closes the port.
        known.port = HeldPort(port, self._in_force().admit(port), self._boot)
        self._report.soon()

    def _known(self, device: Device) -> Known | None:
        channel = device.channel
        key = f"{device.kind}/{channel.frontend}/{channel.device}"
        return self._durable.saved.slots.get(key)

    def _filter(self, device: Device) -> PortFilter | None:
        return None if self._filters is None else self._filters.of_device(device)

    def _label(self, device: Device) -> str | None:
        """The frontend's label in the grant that this life of the device may be open on."""
        known = self._known(device)
        if known is None or not device.nonce or known.nonce != device.nonce:
            return None
        return known.memory.label if known.memory.granted == known.nonce else None

    # policies

    def _newest(self, memories: Iterable[Memory]) -> bool:
        """Note the policy of the newest record; whether it is another than before."""
        before = self._digest
        for memory in memories:
            if memory.policy is not None and memory.seq > self._seq:
                self._seq, self._digest = memory.seq, memory.policy
        return self._digest != before

    def _find_rules(self) -> None:
        """The rules of the policy that is in force, or none."""
        try:
            policy = find_policy(self._policies, self._digest)
        except MissingPolicyError as error:
            if str(error) != self._without:
                self._report.alarm(f"nothing passes the bridges: {error}")
            self._rules, self._without = _NoRules(), str(error)
            return
        self._rules, self._without = PolicyRules(policy), ""
        if self._filters is not None:
            self._filters.attached = bool(policy.definition.filters)
        self.log.info(
            "bridges follow policy {name} {digest}", name=escape(policy.name), digest=self._digest
        )

    def _apply_rules(self) -> None:
        lost: list[str] = []
        self._try(lambda ports: lost.extend(ports.set_rules(self._rules)))
        self._forget(lost)
        self.changed()

    def _forget(self, lost: Sequence[str]) -> None:
        """These have no class any more."""
        for known in self._durable.saved.slots.values():
            if known.port is not None and known.port.port.name in lost:
                known.port = None

    # the helper

    def _take_up(self, client: HelperClient) -> None:
        """A helper has been started: it is told what is to be in force."""
        self._ports = None
        ports = LabelledPorts(client, self._links, self._names)
        texts = {} if self._filters is None else self._filters.texts
        rules = None if self._without else self._rules
        self._forget(ports.start(rules, self._open_now(), texts))
        self._ports = ports
        self._report.write()

    def _open_now(self) -> list[OpenPort]:
        """What was given a class and is open: by the agent's memory, and by the kernel.

        An interface's index is not used again in one boot: so it is the same interface.
        """
        found = []
        for known in self._durable.saved.slots.values():
            held, memory = known.port, known.memory
            known.port = None
            if held is None or held.boot != self._boot or held.port.label != memory.label:
                continue
            if self._is_open(held) and known.nonce and memory.granted == known.nonce:
                known.port = held
                found.append(held.port)
        return found

    def _is_open(self, held: HeldPort) -> bool:
        """Whether the interface is still up under its name, in its bridge or (routed) in none."""
        link = self._links.get(held.index)
        bridge = None if held.port.bridge is None else self._links.named(held.port.bridge)
        if link is None or link.name != held.port.name or not link.up:
            return False
        if held.port.bridge is None:
            return not link.master
        return bridge is not None and link.master == bridge.index

    def _in_force(self) -> LabelledPorts:
        self._helper.client  # noqa: B018 - raises if none runs: then nothing can be put in force
        if self._ports is None:
            raise NetError("labels are not in force yet")
        return self._ports

    def _try(self, change: Callable[[LabelledPorts], object]) -> None:
        """Change what is in force; if that fails, everything is put in force anew."""
        if self._ports is None:
            return
        try:
            change(self._ports)
        except NetError as error:
            self._ports = None
            self._helper.lost(error)
        self._report.soon()

    def _heard(self, event: Event) -> None:
        """What the helper says unasked."""
        if isinstance(event, Alarm):
            self._report.alarm(event.text)
        elif isinstance(event, Dropped):
            self._sample(event)

    def _look(self) -> None:
        self._helper.hear()
        if self._without and self._digest:
            self._find_rules()
            if not self._without:
                self._apply_rules()
        self.links_changed()
        ports, filters = self._ports, self._filters
        if ports is not None and filters is not None and filters.texts != ports.profiles:
            self.changed()

    def _sample(self, dropped: Dropped) -> None:
        ends = [self._name(index) for index in (dropped.sender, dropped.receiver)]
        if not dropped.sender and self._ports is not None:
            # dom0's own, or what it relayed for somebody.
            ends[0] = f"dom0 ({self._ports.report().end(dropped.label) or 'no label'})"
        self._report.sample(f"{ends[0]} -> {ends[1]}: {dropped.packet}")

    def _name(self, index: int) -> str:
        if not index:
            return "dom0"
        label = None if self._ports is None else self._ports.label_of(index)
        try:
            link = self._links.get(index)
        except NetError:
            link = None
        return f"{link.name if link else index} ({label or 'no class'})"

    def _described(self) -> Report:
        report = Report() if self._ports is None else self._ports.report()
        return msgspec.structs.replace(report, policy=self._digest, problem=self._without)
