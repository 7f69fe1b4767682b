"""Policing: who breaks a channel's protocol is named, written down, and dealt with by the policy.

Both ends of every channel are looked at as they change. It runs beside the engine's turns and only
ever takes away: what it finds makes a grant a denial, never the other way. A change is a hint; a
look reads both ends in one transaction.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from broker.core.revocations import parse_report
from broker.core.sanctions import SEVERITY, End, action_for, damped
from broker.protocol.life import NEVER, Violation
from broker.service import events
from broker.service.ends import UnreadableError, read_ends
from broker.text.escape import escape
from broker.xenstore import paths
from broker.xenstore.errors import ConnectionLostError, StoreError
from broker.xenstore.together import together

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from broker.core.definition import Action
    from broker.protocol.life import Life
    from broker.protocol.monitor import Monitor
    from broker.service.audit import Audit
    from broker.service.judge import Judge
    from broker.service.mirror import Device, Mirror
    from broker.service.specs import Description
    from broker.xenstore.client import StoreConnection

    Punish = Callable[[Action, Device, int | None, str | None, str], object]

PAUSE: Final = 0.1
"""Seconds between two looks at one channel, however fast it changes."""
_STALL: Final = "deadline."
_ENDS: Final = f"{paths.LOCAL_DOMAIN}/"
UNREADABLE: Final = 10.0
"""Seconds that an end may hide what could be read before; dom0's helper opens it in less."""
AT_ONCE: Final = 8
"""Channels looked at together: the rest of the store's time is the decisions'."""


class Police:
    """One monitor for each description, one life for each channel.

    `on_sanction(device, domid)` is called when a channel, or with a domid all of that domain's,
    has to be judged anew; `on_punish(action, device, domid, uuid, reason)` for what takes more
    than a denial: `reset` and `destroy`.
    """

    log = Logger()

    def __init__(
        self,
        mirror: Mirror,
        judge: Judge,
        audit: Audit,
        clock: IReactorTime,
        *,
        on_sanction: Callable[[Device, int | None], None],
    ) -> None:
        self.untouchable: frozenset[int] = frozenset({0})
        self._mirror = mirror
        self._judge = judge
        self._audit = audit
        self._clock = clock
        self._on_sanction = on_sanction
        self.on_punish: Punish = lambda *_: None
        self._descriptions: Mapping[str, Description] = {}
        self._connection: StoreConnection | None = None
        self._lives: dict[Device, tuple[int, Monitor, Life]] = {}
        self._marked: dict[Device, None] = {}
        self._looked: dict[Device, float] = {}
        self._hidden: dict[Device, float] = {}
        self._call: IDelayedCall | None = None
        self._busy = False

    def teach(self, descriptions: Mapping[str, Description]) -> None:
        """Take the descriptions, by name."""
        self._descriptions = descriptions

    def begin(self, connection: StoreConnection) -> None:
        """A store to look at: every channel is looked at once."""
        self._connection = connection
        for device in self._mirror.devices():
            self.mark(device)

    def end(self) -> None:
        """The store is gone, and with it what was seen."""
        self._connection = None
        self._lives.clear()
        self._marked.clear()
        self._looked.clear()
        self._hidden.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def event(self, path: str) -> None:
        """A node changed; the ends' directories are below `/local/domain`."""
        if not path.startswith(_ENDS):
            return
        parts = path.split("/", 8)
        if len(parts) < 7:
            return
        if parts[4] == "device":
            owner = self._mirror.domains.get(paths.parse_domid(parts[3]) or 0)
            device = None if owner is None else owner.devices.get((parts[5], parts[6]))
            if device is not None:
                self.mark(device)
        elif parts[4] == "backend" and len(parts) > 7:
            owner = self._mirror.domains.get(paths.parse_domid(parts[6]) or 0)
            home = "/".join(parts[:8]).encode("utf-8", "surrogateescape")
            for device in () if owner is None else owner.devices.values():
                if device.keys.get("backend") == home:
                    self.mark(device)

    def mark(self, device: Device) -> None:
        """Look at a channel before long, if it is open; one that is not costs nothing more."""
        if not self._settled(device):
            self._lives.pop(device, None)
            return
        self._marked[device] = None
        if self._call is None and not self._busy and self._connection is not None:
            self._call = self._clock.callLater(PAUSE, self._patrol)

    def meet(self, device: Device) -> None:
        """A channel that may be new, or open anew: its ends can have changed before that."""
        entry = self._audit.state.ledger.get(device.path)
        held = self._lives.get(device)
        if held is None or entry is None or held[0] != entry.seq:
            self.mark(device)

    def accuse(self, device: Device, evidence: str) -> None:
        """The guest's copy of what the toolstack wrote is not what the toolstack wrote.

        That needs no look at what was there before; it is written down already.
        """
        if self._judge.policy is not None and device.channel is not None:
            said = Violation("frontend", "frontend.backend.fixed", evidence, self._clock.seconds())
            self._punish(device, [said])

    def tick(self) -> None:
        """Called now and then: whose deadline has passed is looked at, who is gone forgotten."""
        now = self._clock.seconds()
        for device, (_, monitor, life) in list(self._lives.items()):
            if device.gone:
                del self._lives[device]
                self._looked.pop(device, None)
            elif monitor.due(life) < now or device in self._hidden:
                self.mark(device)
        for device in [it for it in self._hidden if it not in self._lives]:
            del self._hidden[device]

    def _patrol(self) -> None:
        self._call = None
        self._busy = True
        patrolling = Deferred.fromCoroutine(self._look_at_marked())
        patrolling.addErrback(self._failed).addBoth(self._rest)

    def _failed(self, failure: Failure) -> None:
        # It took nothing away, and opened nothing either; the next change makes it look again.
        if not failure.check(ConnectionLostError, CancelledError):
            self.log.failure("policing failed", failure)
            self._audit.failed(f"policing failed: {escape(failure.getErrorMessage())}")

    def _rest(self, _: object) -> None:
        self._busy = False
        for device in list(self._marked)[:1]:
            self.mark(device)

    async def _look_at_marked(self) -> None:
        now = self._clock.seconds()
        due = [it for it in self._marked if now - self._looked.get(it, -NEVER) >= PAUSE]
        for start in range(0, len(due), AT_ONCE):
            chunk = due[start : start + AT_ONCE]
            for device in chunk:
                self._marked.pop(device, None)
            looks = [Deferred.fromCoroutine(self._look(device)) for device in chunk]
            await together(*looks)

    async def _look(self, device: Device) -> None:
        connection, policy = self._connection, self._judge.policy
        if device.gone or connection is None or policy is None or device.channel is None:
            return
        description = self._descriptions.get(policy.protocol_of(device.device_class) or "")
        back = device.keys.get("backend")
        if description is None or back is None:
            return
        if not self._settled(device):
            self._lives.pop(device, None)
            return
        self._looked[device] = self._clock.seconds()
        front = paths.frontend_dir(device.domid, device.device_class, device.device)
        try:
            ends = await read_ends(connection, front, back.decode("ascii"))
        except ConnectionLostError:
            raise
        except UnreadableError as error:
            self._unreadable(device, error)
            return
        except StoreError as error:
            self.log.debug("{device} cannot be looked at: {e}", device=device, e=error)
            return
        entry = self._audit.state.ledger.get(device.path)
        if entry is None or not self._settled(device):
            return
        if ends is None or device.gone:
            self.mark(device)  # it changes faster than it can be read: later
            return
        self._hidden.pop(device, None)
        held, monitor = self._lives.get(device), description.monitor()
        known = held is not None and held[:2] == (entry.seq, monitor)
        life = held[2] if held is not None and known else monitor.begin()
        life, violations = monitor.step(life, self._clock.seconds(), *ends)
        self._lives[device] = (entry.seq, monitor, life)
        if violations:
            self._deal_with(device, violations)

    def _unreadable(self, device: Device, error: UnreadableError) -> None:
        """An end hides what could be read before: nothing is taken for changed by it, for a while.

        Dom0's helper lets the broker read again what an end hid from it, and may be late, as it may
        be before the first look.
        """
        now = self._clock.seconds()
        if device not in self._lives or now - self._hidden.setdefault(device, now) < UNREADABLE:
            return
        self._hidden[device] = now
        said = Violation(error.side, f"{error.side}.readable", escape(str(error), 200), now)
        self._deal_with(device, (said,))

    def _settled(self, device: Device) -> bool:
        """Whether the channel is open, as decided last.

        While the agent closes or opens it, a driver is unbound and bound again, and what a gate
        was opened with goes: no protocol knows that, and it is nobody's fault. Nor is what is left
        there of a channel that is closed. When the agent says that it is open, a life begins.
        """
        entry = self._audit.state.ledger.get(device.path)
        report = parse_report(device.untrusted_enforced)
        if entry is None or report is None:
            return False
        told = (report.state, report.seq, report.nonce)
        return told == ("open", entry.seq, entry.decision.nonce)

    def _deal_with(self, device: Device, violations: tuple[Violation, ...]) -> None:
        """Write violations down, then do what they lead to."""
        channel = device.channel
        domids = (
            {} if channel is None else {"frontend": channel.frontend, "backend": channel.backend}
        )
        for it in violations:
            self._audit.broke(device, domids.get(it.party), it.party, it.rule, it.evidence)
        self._punish(device, violations)

    def _punish(self, device: Device, violations: Sequence[Violation]) -> None:
        """Do the most severe of what violations lead to."""
        policy, channel = self._judge.policy, device.channel
        if policy is None or channel is None:
            return
        ends = {
            "frontend": End(channel.frontend, self._judge.protects(channel.frontend)),
            "backend": End(channel.backend, self._judge.protects(channel.backend)),
        }
        worst: tuple[Action, Violation] | None = None
        for violation in violations:
            action = action_for(
                policy.definition.on_violation,
                device.device_class,
                violation.party,
                stall=violation.rule.startswith(_STALL),
                ends=ends,
                untouchable=self.untouchable,
            )
            if worst is None or SEVERITY[action] > SEVERITY[worst[0]]:
                worst = (action, violation)
        if worst is not None and worst[0] != "report":
            self._sanction(device, ends, *worst)

    def _sanction(
        self, device: Device, ends: Mapping[str, End], action: Action, violation: Violation
    ) -> None:
        state = self._audit.state
        entry = state.ledger.get(device.path)
        if entry is None:
            return  # nothing is decided yet, and so nothing open
        held = state.sanctions.get(device.path)
        same_life = held is not None and held.holds(entry.decision.nonce)
        if held is not None and same_life and SEVERITY[held.action] >= SEVERITY[action]:
            return
        now = time.time()
        end = ends.get(violation.party)
        blamed = None if end is None else self._mirror.domains.get(end.domid)
        uuid = None if blamed is None else blamed.uuid
        reason = f"{violation.party} broke {violation.rule}: {violation.evidence}"
        lines: list[events.Event] = [
            events.Sanctioned(
                now, device.path, entry.decision.nonce, action, violation.party, uuid, reason[:400]
            )
        ]
        if uuid is not None and end is not None and end.domid not in self.untouchable:
            pause = damped(state.damping.get(uuid), now)
            lines.append(events.Damped(now, uuid, pause.count, pause.until))
            if action == "quarantine":
                lines.append(events.Quarantined(now, uuid, end.domid, reason[:400]))
        if self._audit.commit(lines):
            self.log.warn(
                "{action} {device}: {reason}", action=action, device=device, reason=reason
            )
            self._on_sanction(device, None if end is None else end.domid)
            if action in ("reset", "destroy"):
                victim: tuple[int | None, str | None] = (None, None)
                if violation.party == "frontend" and end is not None:
                    victim = (end.domid, uuid)
                self.on_punish(action, device, *victim, reason)
