"""The policy in force: loaded by one function, whoever asks, and kept by its digest.

The same holds for a signal, the first start and the RPC: check everything, write it down, then
let it take effect. What does not load leaves the one in force as it is.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from broker.policy.load import load_policy
from broker.protocol.load import load_spec
from broker.rpc import methods
from broker.rpc.errors import RpcError
from broker.service import events
from broker.service.statedir import RefusedError
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from pathlib import Path

    from broker.core.policy import Policy
    from broker.service.engine import Engine
    from broker.service.statedir import StateDir

MOST_PROBLEMS: Final = 50
"""Problems of a refused policy that are audited; the caller is told all of them."""


class Policies:
    """Loads policies into the engine, and keeps the bytes of the one in force."""

    log = Logger()

    def __init__(self, engine: Engine, statedir: StateDir) -> None:
        self.data = b""
        self._engine = engine
        self._statedir = statedir

    def restore(self) -> bool:
        """Put the policy back in force that the state names; whether there is one.

        Raises:
            RefusedError: its file is missing or not what it was.
        """
        digest = self._engine.state.policy_digest
        if digest is None:
            return False
        path = self._statedir.policy_file(digest)
        try:
            data = path.read_bytes()
            policy = load_policy(data, str(path))
        except (OSError, ProblemsError) as error:
            raise RefusedError(
                f"the policy in force cannot be read: {error}; restore {path}"
            ) from None
        if policy.digest != digest:
            raise RefusedError(f"{path} is not the policy in force any more; restore it")
        self._engine.judge.policy = policy
        self.data = data
        return True

    def load(
        self,
        data: bytes,
        source: str,
        subject: str,
        role: str = "",
        *,
        replaces: str | None = None,
        dry_run: bool = False,
    ) -> methods.PolicyChange:
        """Check a policy and put it in force, or with `dry_run` say what that would do.

        Raises:
            RpcError: `bad_input` with every problem; `conflict` if `replaces`, or the policy's
                own `from`, is not what is in force; `unavailable` if it cannot be written down.
        """
        engine = self._engine
        current = engine.judge.policy
        try:
            policy = load_policy(data, source)
            _refuse_observe(policy)
        except ProblemsError as error:
            problems = tuple(str(problem) for problem in error.problems)
            self._refused(source, problems, (subject, role), dry_run=dry_run)
            raise RpcError("bad_input", f"{source} is not a good policy", problems) from None
        conflict = _conflict(policy, current, replaces)
        if conflict:
            self._refused(source, (conflict,), (subject, role), dry_run=dry_run)
            raise RpcError("conflict", conflict)
        renames = _renames(policy, current)
        change = self._change(policy, renames, dry_run=dry_run)
        if dry_run or not change.changed:
            return change
        line = events.PolicyLoaded(
            time.time(),
            policy.name,
            _version(policy),
            policy.digest,
            None if current is None else current.digest,
            subject,
            renames,
            role,
        )
        try:
            self._statedir.keep_policy(policy.digest, data)
        except OSError as error:
            raise RpcError("unavailable", f"the policy cannot be kept: {error}") from None
        if not engine.audit.commit([line]):
            raise RpcError("unavailable", f"the audit log cannot be written: {engine.audit.broken}")
        engine.judge.policy = policy
        self.data = data
        self.log.info(
            "policy {name} {version} ({digest}) is in force, loaded by {subject}",
            name=policy.name,
            version=_version(policy),
            digest=policy.digest,
            subject=subject,
        )
        engine.policy_changed()
        return change

    def _refused(
        self, source: str, problems: tuple[str, ...], who: tuple[str, str], *, dry_run: bool
    ) -> None:
        if not dry_run:
            line = events.PolicyRefused(time.time(), source, problems[:MOST_PROBLEMS], *who)
            self._engine.audit.note(line)

    def _change(
        self, policy: Policy, renames: dict[str, str], *, dry_run: bool
    ) -> methods.PolicyChange:
        """What changes when `policy` takes the place of the one in force."""
        engine = self._engine
        current = engine.judge.policy
        changed = current is None or current.digest != policy.digest
        standings = engine.judge.standings_under(policy, renames)
        opens: list[str] = []
        closes: list[str] = []
        for device in engine.mirror.devices() if changed else ():
            entry = engine.state.ledger.get(device.path)
            before = entry is not None and entry.decision.verdict == "grant"
            judged = engine.judge.judge_by(policy, standings, device)
            after = judged.decision.verdict == "grant"
            if after != before:
                (opens if after else closes).append(str(device))
        return methods.PolicyChange(
            policy=summary(policy),
            previous=None if current is None else summary(current),
            changed=changed,
            dry_run=dry_run,
            opens=tuple(opens),
            closes=tuple(closes),
            unlabels=tuple(
                str(domid)
                for domid, standing in engine.judge.standings.items()
                if standing.label is not None and standings[domid].label is None
            ),
        )


def summary(policy: Policy) -> methods.PolicySummary:
    """Which policy, in short."""
    return methods.PolicySummary(name=policy.name, version=_version(policy), digest=policy.digest)


def load_specs(directory: Path) -> dict[str, str]:
    """The digest of every protocol description in a directory, by name.

    Raises:
        ProblemsError: one of them is not good, or there is no such directory.
    """
    problems: list[Problem] = []
    digests: dict[str, str] = {}
    if not directory.is_dir():
        problems.append(Problem(str(directory), 1, 1, "no such directory of descriptions"))
    for path in sorted(directory.glob("*.yaml")):
        try:
            spec = load_spec(path.read_bytes(), str(path))
        except ProblemsError as error:
            problems += error.problems
        except OSError as error:
            problems.append(Problem(str(path), 1, 1, str(error)))
        else:
            digests[spec.name] = spec.digest
    if problems:
        raise ProblemsError(problems)
    return digests


def _refuse_observe(policy: Policy) -> None:
    """Nothing honours observe mode yet: a policy that counts on it must not seem to work.

    Raises:
        ProblemsError: the policy observes.
    """
    observe = policy.definition.observe
    if observe is not None:
        file, line, column = observe.where.rsplit(":", 2)
        said = "observe mode is not available yet; write 'mode: enforce'"
        raise ProblemsError([Problem(file, int(line), int(column), said)])


def _conflict(policy: Policy, current: Policy | None, replaces: str | None) -> str:
    """Why this policy may not take the place of the one in force (empty: it may)."""
    in_force = "nothing" if current is None else f"{current.name} {_version(current)}"
    if replaces is not None and (current is None or current.digest != replaces):
        held = "nothing" if current is None else current.digest
        return f"it was to replace {replaces}, but {held} is in force; look at it and try again"
    wanted = policy.definition.replaces
    if current is None or wanted is None or current.digest == policy.digest:
        return ""
    if wanted != (current.name, current.version):
        version = f"{wanted[1][0]}.{wanted[1][1]}"
        return f"it says from: {wanted[0]} {version}, but {in_force} is in force"
    return ""


def _renames(policy: Policy, current: Policy | None) -> dict[str, str]:
    """The labels that are called otherwise in the new policy, by their former name."""
    if current is None:
        return {}
    renames: dict[str, str] = {}
    for label in policy.labels:
        former = policy.renamed_from(label)
        if former is not None and current.has_label(former) and not policy.has_label(former):
            renames[former] = label
    return renames


def _version(policy: Policy) -> str:
    return f"{policy.version[0]}.{policy.version[1]}"
