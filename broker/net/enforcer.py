"""Holds the kernel's tables to a target: one transaction a change, read back, repaired.

Nothing here opens on failure. A transaction is all or nothing; one that the kernel refuses means
that the kernel does not hold what it should (somebody changed our tables), so the whole target is
written anew, and if that fails too the caller learns it and leaves its gate closed. What is read
back and differs is an error, never a shrug. On stop the tables stay as they are.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Final

import msgspec

from broker.net.comparing import element_that_differs, set_that_differs
from broker.net.connections import Connections
from broker.net.conntrack import Conntrack
from broker.net.elements import ElementWriter, can_be_written
from broker.net.filters.held import HeldFilters
from broker.net.filters.programs import NO_FILTERS
from broker.net.libnftables import TransactionError
from broker.net.model import NetError, Port, Target
from broker.net.ruleset import (
    Addresses,
    Content,
    changes,
    commands,
    delete_filters,
    fill_filters,
    is_filters,
    make_filters,
    whole,
)
from broker.net.tables import BRIDGE, MARK_BASE, SETS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.net.filters.programs import Filters
    from broker.net.libnftables import Transactor
    from broker.net.probe import Abilities
    from broker.net.readback import Readback
    from broker.net.ruleset import Change

_ATTEMPTS: Final = 5
"""Times that a start is tried beside somebody else's transactions."""


class VerifyError(NetError):
    """The kernel does not hold what it was told, although it said it did."""


class PortEnforcer:
    """The ports, bridges and pairs in force. Every function raises `NetError` if it failed.

    `alarm` is told, in words, whatever an administrator must know: that our tables were changed
    by somebody else, and whether they are whole again.
    """

    def __init__(
        self,
        transactor: Transactor,
        readback: Readback,
        abilities: Abilities,
        alarm: Callable[[str], None],
    ) -> None:
        self._nft = transactor
        self._readback = readback
        self._abilities = abilities
        self._alarm = alarm
        self._conntrack = Conntrack()
        self._elements = ElementWriter()
        self._connections = Connections(self._elements, readback)
        self._target = Target()
        self._content: Content = {}
        self._held = HeldFilters(self._target.profiles)
        self._filters = NO_FILTERS
        self._digest = ""
        self._digest_of = NO_FILTERS
        self._in_doubt = False
        """Whether the last writing failed: the kernel may hold more than the target."""
        self._later: frozenset[tuple[int, int]] | None = None
        """The pairs that are to stay once `settle` is called; None if there are no others."""

    @property
    def target(self) -> Target:
        """What is in force."""
        return self._target

    def numbers_in_kernel(self) -> frozenset[int]:
        """Class numbers that ports have in the kernel now, whoever put them there."""
        marks = self._readback.elements(BRIDGE, "sender").values()
        return frozenset(int.from_bytes(mark, sys.byteorder) ^ MARK_BASE for mark in marks)

    def start(self, target: Target) -> None:
        """Make the tables, or take over those there are, and make them hold exactly `target`.

        Addresses that were learned for its ports are kept.
        """
        self._held = self._held.take(target, {})
        for index, addresses in self._leases_in_kernel(target).items():
            self._held.lease(index, addresses)
        content, self._later = self._held.content(target), None
        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(VerifyError):
                self._write_whole(target, content)
                break
        else:
            self._write_whole(target, content)
        self._connections.hold(self._held.noting(target))
        self._connections.forget_others(target.ports, whoever=True)

    def put(self, port: Port) -> None:
        """Give a port its class and its filter, or others."""
        self._settle_doubt()
        self._expire()
        old = self._target.ports.get(port.index)
        try:
            self._held.check_bound(port, self._target)
            for index, address in self._held.overruled(port, self._target):
                self.unlearn(index, address)
        except NetError:
            self.remove(port.index)  # whoever asked counts it as closed, whatever it was
            raise
        target = self._with_ports({**self._target.ports, port.index: port})
        try:
            self._connections.forget_others(self._target.ports)
            self._connections.hold(self._held.noting(target, port.index))
            self._put(port, old, target)
        except NetError:
            # Whoever asked leaves the gate closed; a later repair must not open it behind him.
            self._forget(port.index)
            raise

    def _put(self, port: Port, old: Port | None, target: Target) -> None:
        if _is_plain(port) and (old is None or _is_plain(old)):
            before = {} if old is None else self._held.content_of(old, self._target)
            if old is None or old.filter != port.filter:
                self._held.release(port.index)
            self._held.bind(port)
            self._change(before, self._held.content_of(port, target), target)
        else:
            self.update(target)

    def remove(self, index: int) -> None:
        """Close a port: nothing it sends or should receive passes from now on."""
        self._settle_doubt()
        old = self._target.ports.get(index)
        if old is None:
            return
        ports = dict(self._target.ports)
        del ports[index]
        target = self._with_ports(ports)
        if _is_plain(old):
            self._change(self._held.content_of(old, self._target), {}, target)
        else:
            self.update(target)
        self._held.release(index)
        self._cut(frozenset(old.ips))
        self._connections.forget_others(ports)

    def update(self, target: Target, during: frozenset[tuple[int, int]] | None = None) -> None:
        """Go to another target in one transaction.

        `during` (see `Classes.during`) holds what numbers that are being retired still need for
        packets on their way; it is in force until `settle`, which whoever asked need not await.
        """
        self._settle_doubt()
        self._expire()
        fewer = not self._target.pairs <= target.pairs
        self._held = self._held.take(target, self._held.leases, self._target)
        later = None
        if during is not None and during != target.pairs:
            later, target = target.pairs, msgspec.structs.replace(target, pairs=during)
        self._later = later
        self._connections.hold(self._held.noting(target))
        self._go(self._held.content(target), target)
        if fewer:
            self._cut(frozenset())
        self._connections.forget_others(target.ports)

    def settle(self) -> None:
        """Take away what only retired numbers needed, if that is still there.

        It is done before any other change: until then those numbers mean what they meant.
        """
        if self._later is not None:
            target = msgspec.structs.replace(self._target, pairs=self._later)
            self._go(self._held.content(target), target)
            self._later = None

    def check(self) -> bool:
        """Whether the kernel holds exactly what it should; if not, repair and raise an alarm."""
        try:
            wrong = self._wrong()
        except NetError as error:
            wrong = str(error)
        if not wrong:
            return True
        self._alarm(f"{wrong}: writing it anew")
        self._write_whole(self._target, self._content)
        self._alarm("tables are whole again; frames may have passed unchecked in between")
        return False

    def learns(self, index: int) -> bool:
        """Whether the port's addresses are learned from DHCP."""
        port = self._target.ports.get(index)
        return port is not None and bool(self._held.learned_by(port))

    def has_address(self, port: Port, address: int) -> bool:
        """Whether an IPv4 address is the port's by its configuration."""
        return self._held.has_address(port, address)

    def learned(self) -> Mapping[int, Addresses]:
        """The addresses learned so far by port, and when each lease ends (`time.monotonic`)."""
        self._expire()
        return self._held.leases

    def learn(self, index: int, address: int, seconds: float) -> None:
        """Bind an IPv4 address to a port for so long; the port it was leased to before loses it.

        Raises:
            NetError: the port does not learn, or the address is another's by configuration.
        """
        self._settle_doubt()
        self._expire()
        if not self.learns(index):
            raise NetError(f"port {index} learns no addresses")
        port = self._target.ports[index]
        for other in self._held.holders(port, address, self._target):
            self.unlearn(other.index, address)
        held = self._held.leases.get(index, {})
        self._lease(port, {**held, address: time.monotonic() + seconds})

    def unlearn(self, index: int, address: int) -> None:
        """The port has this learned address no more."""
        self._settle_doubt()
        held = self._held.leases.get(index, {})
        if index in self._target.ports and address in held:
            left = {it: end for it, end in held.items() if it != address}
            self._lease(self._target.ports[index], left)

    def _lease(self, port: Port, addresses: Addresses) -> None:
        before = self._held.content_of(port, self._target)
        self._held.lease(port.index, addresses)
        self._change(before, self._held.content_of(port, self._target), self._target)

    def _expire(self) -> None:
        if self._held.expire(time.monotonic()):
            self._content = self._held.content(self._target)

    def _leases_in_kernel(self, target: Target) -> dict[int, Addresses]:
        """What an earlier helper learned for these ports, as long as the kernel still holds it."""
        now = time.monotonic()
        learning = {it.index: self._held.learned_by(it) for it in target.ports.values()}
        found: dict[int, Addresses] = {}
        for name in frozenset().union(*learning.values()):
            for key, left in self._readback.ends(BRIDGE, name).items():
                index = int.from_bytes(key[:4], sys.byteorder)
                if name in learning.get(index, ()):
                    found.setdefault(index, {})[int.from_bytes(key[4:8], "big")] = now + left
        return found

    def _forget(self, index: int) -> None:
        ports = {i: port for i, port in self._target.ports.items() if i != index}
        self._target = self._with_ports(ports)
        self._held.release(index)
        self._content = self._held.content(self._target)

    def _with_ports(self, ports: dict[int, Port]) -> Target:
        return msgspec.structs.replace(self._target, ports=ports)

    def _change(self, before: Content, after: Content, target: Target) -> None:
        """A small change: only these elements, each asked back by its key."""
        places = {*before, *after}
        for place in places:
            kept = self._content.setdefault(place, {})
            for key in before.get(place, {}):
                kept.pop(key, None)
            kept.update(after.get(place, {}))
        self._run(changes(before, after), target)
        self._compared(element_that_differs(self._readback, self._content, before, after))

    def _go(self, content: Content, target: Target) -> None:
        """From what is in force to this, in one transaction; then what changed is read back."""
        old, self._content = self._content, content
        listed = changes(old, content)
        self._run(listed, target)
        changed = {(it.table, it.spec.name) for it in listed}
        self._compared(set_that_differs(self._readback, content, changed))

    def _run(self, listed: list[Change], target: Target) -> None:
        """One transaction; if the kernel does not hold what it should, the whole target."""
        self._target = target
        old, self._filters = self._filters, self._held.filters()
        try:
            if (old is self._filters or old == self._filters) and can_be_written(listed):
                self._elements.write(listed)
            else:
                self._run_by_nft(listed, old)
        except (TransactionError, VerifyError) as error:
            self._alarm(f"{error}: our tables were changed by somebody else; writing them anew")
            self._write_whole(self._target, self._content)

    def _run_by_nft(self, listed: list[Change], old: Filters) -> None:
        gone, come = commands(listed, time.monotonic())
        no_more = old.names() - self._filters.names()
        generation = self._readback.generation()
        self._nft.run(
            [
                *make_filters(old, self._filters),
                *gone,
                *fill_filters(old, self._filters),
                *come,
                *delete_filters(no_more),
            ]
        )
        if old.chains != self._filters.chains:
            self._digest, self._digest_of = self._learnt_digest(generation), self._filters

    def _write_whole(self, target: Target, content: Content) -> None:
        self._target, self._content = target, content
        self._filters = self._held.filters()
        self._in_doubt = True
        there = [name for name in self._readback.names(BRIDGE) if is_filters(name)]
        before = self._readback.generation()
        self._nft.run(
            whole(
                content,
                knows_bridge=self._abilities.knows_bridge,
                filters=self._filters,
                there=there,
                now=time.monotonic(),
            )
        )
        if not self._digest or self._digest_of.chains != self._filters.chains:
            self._digest, self._digest_of = self._learnt_digest(before), self._filters
        wrong = self._wrong()
        if wrong:
            raise VerifyError(wrong)
        self._in_doubt = False

    def _learnt_digest(self, before: int) -> str:
        """What our rules look like as the kernel shows them; only profiles in use change them.

        Only if nobody else's transaction came between: what he had made of them must not become
        the measure.
        """
        digest = self._readback.rules_digest()
        if self._readback.generation() != (before + 1) & 0xFFFFFFFF:
            raise VerifyError("somebody else changed nftables meanwhile; start again")
        return digest

    def _settle_doubt(self) -> None:
        """Nothing is called done before what a failure or retired numbers left is written."""
        if self._in_doubt:
            self._write_whole(self._target, self._content)
        self.settle()

    def _wrong(self) -> str:
        """What differs between the kernel and what it should hold, in words; empty if nothing."""
        if self._readback.rules_digest() != self._digest:
            return "rules or chains of our tables were changed by somebody else"
        places = {(table, spec.name) for table, fixed in SETS.items() for spec in fixed}
        places |= {(BRIDGE, group.name) for group in self._filters.groups}
        differs = set_that_differs(self._readback, self._content, places)
        return f"elements of {differs} were changed by somebody else" if differs else ""

    def _compared(self, differs: str) -> None:
        """What was just written must be there."""
        if differs:
            self._alarm(f"{differs} does not hold what was just written; writing it anew")
            self._write_whole(self._target, self._content)

    def _cut(self, gone: frozenset[str]) -> None:
        """End conntrack entries of addresses that are gone, or whose ports may not talk now.

        The frames are refused whether or not this succeeds, so a failure is an alarm alone.
        """
        try:
            self._conntrack.cut_of(self._target, gone)
        except NetError as error:
            self._alarm(str(error))


def _is_plain(port: Port) -> bool:
    """A bridge port that changes nothing for other ports: no uplink, not routed."""
    return port.bridge is not None and not port.uplink
