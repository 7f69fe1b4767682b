"""The one way to change durable state: a line on the disk first, then the state.

Also what the broker says aloud: alarms, violations, the last thing that went wrong.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from broker.service import events
from broker.service.budget import Budget, Ledger
from broker.service.dirty import HOST
from broker.service.journal import Journal, JournalError
from broker.service.snapshot import encode_snapshot
from broker.text.escape import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime

    from broker.core.channels import Standing
    from broker.core.plan import Entry
    from broker.rpc.admin import Caller
    from broker.service.mirror import Device, Domain
    from broker.service.state import State

MOST_LOGGED: Final = 20
"""Decisions or domains of one turn with a line of their own in the log; more have one together."""
MOST_ALARMS: Final = 8
FRONTEND_DIR: Final = "frontend-dir"
"""The rule that a guest leaves what the toolstack wrote into its directory as it is."""
_LONGEST_REASON: Final = 400
_MAX_NOTES: Final = 10_000
"""Outcomes held while the audit log cannot be written; older ones are dropped and counted."""


class Audit:
    """Journal and state together.

    `on_note` is called when something waits to be written, each of `readers` when something was.
    `unrotated` says why the log grows beyond its size, if it does.
    """

    log = Logger()

    def __init__(self, journal: Journal, state: State, budget: Budget, clock: IReactorTime) -> None:
        self.state = state
        self.last_error: tuple[float, str] | None = None
        self.unrotated: str | None = None
        self.on_note: Callable[[], None] = lambda: None
        self.readers: list[Callable[[], None]] = []
        self._journal = journal
        self._ledger = Ledger(budget)
        self.clock = clock
        self.alarms: deque[tuple[float, str, str]] = deque(maxlen=MOST_ALARMS)
        """The latest alarms: when (`clock`), what of, and what was seen."""
        self.alarmed = 0
        self.denied_calls = 0
        self.violations: Counter[tuple[str, str, str]] = Counter()
        """Violations by class, rule and party, each time that one was seen."""
        self._notes: list[events.Event] = []

    @property
    def journal(self) -> Journal:
        """What is written, for those who read it."""
        return self._journal

    @property
    def broken(self) -> str | None:
        """Why the audit log cannot be written, if so: nothing may be granted then."""
        return self._journal.error

    @property
    def lines(self) -> int:
        """The number of the last line."""
        return self._journal.head.n

    def commit(
        self, lines: Sequence[events.Event], entries: Sequence[tuple[str, Entry]] = ()
    ) -> bool:
        """Make lines durable, then take them into the state; False if they could not be.

        `entries` are the parsed decisions among the lines, by path.
        """
        if not lines:
            return True
        notes, self._notes = self._notes, []
        try:
            self._journal.commit([*notes, *lines])
        except JournalError as error:
            self._notes = notes
            self._cannot_write(error)
            return False
        for line in lines:
            if not isinstance(line, events.Decided):
                self.state.apply(line)
        for path, entry in entries:
            self.state.decided(path, entry.text, entry)
        self._journal.set_in_force(self.state.policy_digest)
        if self._journal.full:
            self._rotate()
        self._appended()
        return True

    def note(self, line: events.Event) -> None:
        """A line that nothing waits for: durable with the next commit, or at the stop."""
        self._notes.append(line)
        if len(self._notes) > _MAX_NOTES:
            del self._notes[: _MAX_NOTES // 2]
            self._ledger.charge(HOST, "lines lost while the audit log could not be written", "", 0)
        self.on_note()

    def flush(self) -> None:
        """Write outcomes down."""
        if not self._notes or self._journal.error is not None:
            return
        notes, self._notes = self._notes, []
        try:
            self._journal.note(notes)
        except JournalError as error:
            self._notes = notes
            self._cannot_write(error)
            return
        self._appended()

    def sign(self) -> None:
        """Sign a checkpoint if there is something new; called now and then."""
        self.flush()
        if self._journal.error is None:
            try:
                self._journal.sign()
            except JournalError as error:
                self._cannot_write(error)
            else:
                self._appended()

    def checkpoint(self, subject: str, role: str) -> bytes:
        """Sign a checkpoint of all that was written so far, for somebody; answers its line.

        Raises:
            JournalError: the audit log cannot be written.
        """
        self.flush()
        try:
            line = self._journal.checkpoint(subject, role)
        except JournalError as error:
            self._cannot_write(error)
            raise
        self._appended()
        return line

    def probe(self) -> bool:
        """Try a journal that failed again, with a line that says so; whether it is well now."""
        detail = f"could not be written for a time: {self.broken}"
        if not self.commit([events.Alarm(time.time(), "audit log", detail)]):
            return False
        self.log.info("the audit log can be written again")
        return True

    def repeats(self) -> None:
        """Write down how often things were counted instead of written; called now and then."""
        for subject, count in self._ledger.counted().items():
            self.note(events.Repeated(time.time(), subject, count))

    def stand(self, changed: Sequence[int], standings: Mapping[int, Standing]) -> None:
        """Log how domains stand that stand otherwise than before, or are gone."""
        if len(changed) > MOST_LOGGED:
            self.log.info("{count} domains stand otherwise than before", count=len(changed))
            return
        for domid in changed:
            standing = standings.get(domid)
            words = "gone"
            if standing is not None:
                words = printable(standing.words, _LONGEST_REASON)
                words = f"{words} ({standing.label})" if standing.label else words
            self.log.info("domain {domid} is {words}", kind="standing", domid=domid, words=words)

    def decided(self, made: Sequence[tuple[Device, Entry]]) -> None:
        """Log decisions: the devices, and what was decided."""
        if len(made) > MOST_LOGGED:
            verdicts = Counter(entry.decision.verdict for _, entry in made)
            self.log.info(
                "decided {count} channels: {verdicts}; records {first} to {last}",
                count=len(made),
                verdicts=", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()),
                first=made[0][1].seq,
                last=made[-1][1].seq,
            )
            return
        for device, entry in made:
            decision = entry.decision
            self.log.info(
                "{verdict} {device} ({labels}) seq={seq}: {reason}",
                kind="decision",
                device_class=device.device_class,
                domid=device.domid,
                verdict=decision.verdict,
                device=device,
                labels=",".join(label or "-" for label in decision.labels),
                seq=entry.seq,
                reason=printable(decision.reason, _LONGEST_REASON),
            )

    def failed(self, what: str) -> None:
        """Remember and log the last thing that went wrong."""
        self.last_error = (time.time(), what)
        self.log.error("{what}", what=what)

    def alarm(self, subject: str, detail: str) -> None:
        """Something that an operator should look at; repeats are counted."""
        self.alarmed += 1
        self.alarms.append((self.clock.seconds(), subject, detail))
        if self._ledger.charge(HOST, subject, detail, self.clock.seconds()) == "write":
            self.log.warn(
                "alarm: {subject}: {detail}", kind="alarm", subject=subject, detail=detail
            )
            self.note(events.Alarm(time.time(), subject, detail))

    def call_denied(self, caller: Caller | None, verb: str, detail: str) -> None:
        """A call was refused (`caller` None: before it was known whose); repeats are counted."""
        self.denied_calls += 1
        person = "unknown" if caller is None else caller.person
        charge = self._ledger.charge(
            f"rpc {person}", f"denied calls of {person}", f"{verb} {detail}", self.clock.seconds()
        )
        if charge == "write":
            subject, role = ("", "") if caller is None else (caller.subject, caller.role)
            self.log.warn(
                "denied {who}: {detail}",
                kind="call_denied",
                who=subject or person,
                verb=verb,
                detail=detail,
            )
            self.note(events.CallDenied(time.time(), subject, role, verb, detail))

    def unpublished(self, path: str, seq: int, error: str) -> None:
        """The store did not take a record; repeats are counted."""
        charge = self._ledger.charge(HOST, path, f"{seq} {error}", self.clock.seconds())
        if charge == "write":
            self.log.warn("{path} is not published yet: {error}", path=path, error=error)
            self.note(events.Unpublished(time.time(), path, seq, error))

    def reported(self, device: Device, text: str) -> None:
        """A backend's agent says what it enforces; on that domain's account."""
        account = HOST if device.backend is None else device.backend
        charge = self._ledger.charge(account, f"report {device}", text, self.clock.seconds())
        if charge == "write":
            self.note(events.Reported(time.time(), str(device), text))

    def violation(self, domain: Domain, device: Device, kind: str, evidence: str) -> None:
        """A domain did what it may not: written once for each kind, whatever the evidence.

        A guest that goes on is only counted: it neither fills the log nor loses what it has.
        """
        self.violations[(device.device_class, FRONTEND_DIR, "frontend")] += 1
        subject = f"frontend {device}: {kind}"
        if self._ledger.charge(domain.domid, subject, kind, self.clock.seconds()) == "write":
            detail = f"{kind}{evidence}"
            self.log.warn(
                "domain {domid}: {detail}",
                kind="violation",
                domid=domain.domid,
                device=device,
                device_class=device.device_class,
                rule=FRONTEND_DIR,
                party="frontend",
                detail=detail,
            )
            self.note(
                events.Violation(
                    time.time(), domain.domid, domain.uuid, str(device), FRONTEND_DIR, detail
                )
            )

    def broke(
        self, device: Device, blamed: int | None, party: str, rule: str, evidence: str
    ) -> None:
        """A channel's protocol was broken: written once for each rule, else counted.

        On the account of who is blamed; where that is nobody, or domain 0, on the broker's own.
        """
        self.violations[(device.device_class, rule, party)] += 1
        account = blamed or HOST
        subject = f"{device}: {party} broke {rule}"
        if self._ledger.charge(account, subject, rule, self.clock.seconds()) == "write":
            self.log.warn(
                "{subject}: {evidence}",
                kind="violation",
                domid=device.domid if blamed is None else blamed,
                device=device,
                device_class=device.device_class,
                rule=rule,
                party=party,
                subject=subject,
                evidence=evidence,
            )
            self.note(
                events.Violation(
                    time.time(),
                    device.domid if blamed is None else blamed,
                    None,
                    str(device),
                    rule,
                    f"{party}: {evidence}",
                )
            )

    def may_renew(self, device: Device, nonce: str | None) -> bool:
        """Whether a backend's agent may have one more life of this channel written down."""
        subject = f"lives of {device}"
        now = self.clock.seconds()
        return self._ledger.charge(device.path, subject, nonce or "-", now) != "exhausted"

    def forget(self, account: int | str) -> None:
        """The domain, or the channel of this path, is gone; another starts afresh."""
        self._ledger.forget(account)

    def _rotate(self) -> None:
        """Begin a new segment; if that fails the old one goes on growing, and says so."""
        try:
            self._journal.rotate(encode_snapshot(self.state, self._journal.head))
        except JournalError as error:
            self._cannot_write(error)
        except OSError as error:
            self.unrotated = f"{self._journal.path} grows beyond its size: {error}"
            self.failed(f"the audit log cannot be rotated: {error}")
            self.alarm("audit log", f"cannot be rotated: {error}")
        else:
            self.unrotated = None

    def _appended(self) -> None:
        for told in list(self.readers):
            told()

    def _cannot_write(self, error: JournalError) -> None:
        what = f"the audit log cannot be written, so nothing is granted: {error}"
        if self.last_error is None or self.last_error[1] != what:
            self.failed(what)
        self.last_error = (time.time(), what)
