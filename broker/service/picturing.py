"""The policy in force as administrators see it: its text, who changed it, and its picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import DeferredLock
from twisted.internet.threads import deferToThread

from broker.core.picture import picture
from broker.rpc import methods
from broker.rpc.errors import RpcError
from broker.service.policy_checks import summary

if TYPE_CHECKING:
    from broker.core.policy import Policy
    from broker.service.engine import Engine
    from broker.service.policies import Policies


class PolicyViews:
    """The policy in force of one engine."""

    def __init__(self, engine: Engine, policies: Policies) -> None:
        self._engine = engine
        self._policies = policies
        self._drawing = DeferredLock()
        self._drawn: tuple[Policy, methods.PolicyPicture] | None = None

    def text(self) -> methods.PolicyText:
        """Its exact text, and who put it in force.

        Raises:
            RpcError: `unavailable`, none is in force.
        """
        short = summary(self._in_force())
        loaded = self._engine.state.loaded
        changed = None
        if loaded is not None and loaded.digest == short.digest:
            changed = methods.PolicyChanged(
                time=loaded.t,
                subject=loaded.subject,
                role=loaded.role,
                approver=loaded.approver,
                approver_role=loaded.approver_role,
                signer=loaded.signer,
                replaces=loaded.replaces,
            )
        return methods.PolicyText(
            name=short.name,
            version=short.version,
            digest=short.digest,
            text=self._policies.data.decode("utf-8"),
            changed=changed,
        )

    async def picture(self) -> methods.PolicyPicture:
        """Who may talk to whom; made once for each policy, beside the decisions.

        Raises:
            RpcError: `unavailable`, none is in force.
        """
        # Who asks meanwhile waits for what is being drawn: threads take time from decisions.
        async with self._drawing:
            policy = self._in_force()
            if self._drawn is None or self._drawn[0] is not policy:
                self._drawn = policy, await deferToThread(_draw, policy)
            return self._drawn[1]

    def _in_force(self) -> Policy:
        policy = self._engine.judge.policy
        if policy is None:
            raise RpcError("unavailable", "no policy is in force; load one: brokerctl policy load")
        return policy


def _draw(policy: Policy) -> methods.PolicyPicture:
    drawn = picture(policy)
    return methods.PolicyPicture(
        title=drawn.title,
        classes=drawn.classes,
        nodes=tuple(
            methods.PictureNode(
                labels=it.labels,
                ste=it.ste,
                chinese_wall=it.chinese_wall,
                colours=it.colours,
                bootstrap=it.bootstrap,
            )
            for it in drawn.nodes
        ),
        edges=tuple(
            methods.PictureEdge(
                device_class=it.device_class,
                frontend=it.frontend,
                backend=it.backend,
                both=it.both,
                reading=it.reading,
                resources=it.resources,
            )
            for it in drawn.edges
        ),
        walls=tuple(
            methods.PictureWall(one=it.one, other=it.other, names=it.names) for it in drawn.walls
        ),
    )
