"""Who may: the roles of the policy in force, asked before each call, and of each item shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Never

import msgspec

from broker.core.roles import (
    GOVERN,
    LOAD,
    NO_TARGET,
    Permission,
    Role,
    may_ever,
    permit,
    roles_of,
)
from broker.rpc.admin import ROOT, Caller
from broker.rpc.errors import RpcError
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.core.policy import Policy
    from broker.core.roles import Target
    from broker.rpc.table import Arguments, Method
    from broker.service.engine import Engine
    from broker.service.targets import Targets

_ALL: Final = Permission(granted=True, alone=True)


class Requester(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants the policy changed: `alone` if no second person is needed for what all may."""

    caller: Caller
    alone: bool
    governs: bool

    @property
    def is_root(self) -> bool:
        """Whether it is local root."""
        return self.caller.role == ROOT


def local_root(subject: str) -> Requester:
    """Root on this machine, by other ways than a call: a signal, the first start."""
    caller = Caller(subject=subject, role=ROOT, person="local:uid=0")
    return Requester(caller=caller, alone=True, governs=True)


class Authority:
    """The roles in force; local root may do everything, also before any policy."""

    def __init__(self, engine: Engine, targets: Targets) -> None:
        self._engine = engine
        self._targets = targets
        self._policy: Policy | None = None
        self._roles: dict[str, Role] = {}

    def authorize(self, caller: Caller, method: Method, arguments: Arguments | None) -> None:
        """Let a call pass, or refuse it: by its verb, and with `arguments` by their object too.

        Raises:
            RpcError: `denied`; `bad_input`, the arguments name a domain as none can be.
        """
        if caller.role == ROOT:
            return
        role = self._role(caller.role)
        if role is None:
            self._deny(caller, method.verb, f"the policy in force has no role {caller.role}")
        reads = not method.writes
        if arguments is None or method.object == "each":
            if not may_ever(role, method.verb, reads=reads):
                self._deny(caller, method.verb, f"role {caller.role} may not {method.verb}")
            return
        target = self._targets.of_call(method, arguments)
        if not permit(role, method.verb, target, reads=reads).granted:
            words = f"role {caller.role} may not {method.verb} on {_shown(target)}"
            self._deny(caller, method.verb, words)

    def require(self, caller: Caller, verb: str, target: Target) -> None:
        """Let a call do what takes another verb beside its own, or refuse it.

        Raises:
            RpcError: `denied`.
        """
        if caller.role == ROOT:
            return
        if not permit(self._role(caller.role) or (), verb, target, reads=False).granted:
            self._deny(caller, verb, f"role {caller.role} may not {verb} on {_shown(target)}")

    def requester(self, caller: Caller) -> Requester:
        """The caller, with what he may do to the policy in force."""
        return Requester(
            caller=caller,
            alone=self._permission(caller, LOAD).alone,
            governs=self._permission(caller, GOVERN).granted,
        )

    def sees(self, caller: Caller, verb: str) -> Callable[[Target], bool]:
        """What the caller is shown of the items that a method of this verb answers."""
        if caller.role == ROOT:
            return lambda _: True

        def seen(target: Target) -> bool:
            # Asked anew each time: a policy that takes the role away ends what it sees.
            return permit(self._role(caller.role) or (), verb, target, reads=True).granted

        return seen

    def _permission(self, caller: Caller, verb: str) -> Permission:
        if caller.role == ROOT:
            return _ALL
        return permit(self._role(caller.role) or (), verb, NO_TARGET, reads=False)

    def _role(self, name: str) -> Role | None:
        policy = self._engine.judge.policy
        if policy is not self._policy:
            self._policy = policy
            self._roles = {} if policy is None else roles_of(policy.definition)
        return self._roles.get(name)

    def _deny(self, caller: Caller, verb: str, why: str) -> Never:
        self._engine.audit.call_denied(caller, verb, escape(why))
        raise RpcError("denied", f"{escape(why)}; nothing was done")


def _shown(target: Target) -> str:
    """What was asked for, as far as the caller said it himself."""
    parts = [named.name or named.uuid or "a domain that does not run" for named in target.domains]
    if target.device_class is not None:
        parts.append(target.device_class)
    return " ".join(list(dict.fromkeys(parts))[:3]) or "the broker"
