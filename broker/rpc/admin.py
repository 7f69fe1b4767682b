"""What the broker implements to be administered: one function a method of the table.

A handler raises `RpcError` to refuse; any other exception is answered as `internal`, logged,
and shows nothing to the caller. A call that writes goes on when its caller hangs up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from broker.rpc.admin_filters import FilterAdmin

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.rpc import methods
    from broker.rpc.stream import Sender
    from broker.rpc.table import Arguments, Method

ROOT: Final = "root"
"""The role of local root, which may call everything; no policy can define one of this name."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls: `subject` for the audit, such as `local:uid=0,pid=4711`, in `role`.

    `person` is who that is, whatever the process or the role: nobody approves his own change.
    """

    subject: str
    role: str
    person: str


class Admin(FilterAdmin, Protocol):
    """The broker, as the RPC's server sees it."""

    def authorize(self, caller: Caller, method: Method, arguments: Arguments | None) -> None:
        """Let a call pass, or refuse it; asked before each handler.

        First without `arguments`, before the body is parsed: whether the role has the verb at
        all. Then with them: whether it has it on the object they name.

        Raises:
            RpcError: `denied`, and it is in the audit then.
        """
        ...

    def turned_away(self, untrusted_why: str) -> None:
        """Somebody was refused before it was known what he asks for, or who he is."""
        ...

    async def status(self, caller: Caller, arguments: methods.Nothing) -> methods.Status:
        """How the broker is; answers in every state, also with no store and no policy."""
        ...

    async def domain_list(
        self, caller: Caller, arguments: methods.Nothing
    ) -> tuple[methods.Domain, ...]:
        """The live domains by domid."""
        ...

    async def label_set(self, caller: Caller, arguments: methods.LabelSet) -> methods.LabelChange:
        """Store a label and act on it.

        Raises:
            RpcError: `bad_input` (the policy in force has no such label), `not_found` (no live
                domain of that domid), `denied` (the bootstrap domain), `unavailable`.
        """
        ...

    async def label_get(self, caller: Caller, arguments: methods.DomainSelector) -> methods.Label:
        """A domain's label; an unlabelled domain that lives is answered with `label` None.

        Raises:
            RpcError: `not_found` (neither a live domain nor a stored label).
        """
        ...

    async def label_rm(
        self, caller: Caller, arguments: methods.DomainSelector
    ) -> methods.LabelChange:
        """Forget a stored label and close what depended on it.

        Raises:
            RpcError: `not_found` (none is stored), `denied` (the bootstrap domain).
        """
        ...

    async def label_list(
        self, caller: Caller, arguments: methods.Nothing
    ) -> tuple[methods.Label, ...]:
        """Every stored label."""
        ...

    async def label_export(
        self, caller: Caller, arguments: methods.LabelExport
    ) -> methods.LabelTicket:
        """A signed ticket of a domain's label."""
        ...

    async def label_import(
        self, caller: Caller, arguments: methods.LabelImport
    ) -> methods.LabelChange:
        """Store the label of a ticket."""
        ...

    async def label_check(
        self, caller: Caller, arguments: methods.MigrationQuery
    ) -> methods.MigrationAnswer:
        """Whether a domain would be admitted here."""
        ...

    async def channel_list(
        self, caller: Caller, arguments: methods.ChannelFilter
    ) -> tuple[methods.Channel, ...]:
        """The channels that match, by frontend, class and device.

        Raises:
            RpcError: `not_found` (no domain of that domid, uuid or name runs).
        """
        ...

    async def channel_explain(
        self, caller: Caller, arguments: methods.ChannelSelector
    ) -> methods.Explanation:
        """Why one channel is decided as it is.

        Raises:
            RpcError: `not_found`; `bad_input` where two channels answer and no backend is given.
        """
        ...

    async def channel_connect(
        self, caller: Caller, arguments: methods.ChannelConnect
    ) -> methods.ChannelOrdered:
        """Give a running domain a device, if the policy grants it.

        Raises:
            RpcError: `denied` (by the policy, with its reasons; nothing was done), `bad_input`,
                `not_found`, `conflict` (dom0's agent did not do it), `unavailable`.
        """
        ...

    async def channel_disconnect(
        self, caller: Caller, arguments: methods.ChannelDisconnect
    ) -> methods.ChannelOrdered:
        """Take a device away from its guest, whether or not it lets go.

        Raises:
            RpcError: `not_found`, `bad_input`, `conflict`, `unavailable`.
        """
        ...

    async def channel_reset(
        self, caller: Caller, arguments: methods.ChannelSelector
    ) -> methods.ChannelOrdered:
        """Take a device away and set the same one up anew.

        Raises:
            RpcError: as `channel_disconnect`.
        """
        ...

    async def channel_watch(
        self,
        caller: Caller,
        arguments: methods.ChannelFilter,
        send: Callable[[methods.Decision], None],
    ) -> Callable[[], None]:
        """Call `send` for each event from now on, until the function answered here is called.

        `send` never blocks and never raises; a client that does not read loses events and is
        told how many.
        """
        ...

    async def decision_query(
        self, caller: Caller, arguments: methods.DecisionQuery
    ) -> methods.DecisionAnswer:
        """What would be decided about two domains.

        Raises:
            RpcError: `not_found` (one of them does not run), `bad_input` (two are meant).
        """
        ...

    async def policy_show(self, caller: Caller, arguments: methods.Nothing) -> methods.PolicyText:
        """The policy in force.

        Raises:
            RpcError: `unavailable` (none is in force).
        """
        ...

    async def policy_picture(
        self, caller: Caller, arguments: methods.Nothing
    ) -> methods.PolicyPicture:
        """Who may talk to whom by the policy in force.

        Raises:
            RpcError: `unavailable` (none is in force).
        """
        ...

    async def policy_load(
        self, caller: Caller, arguments: methods.PolicyLoad
    ) -> methods.PolicyChange:
        """Check a policy, and unless it is a dry run put it in force, or have it wait.

        Raises:
            RpcError: `bad_input` with every problem as `file:line:column: message`; `conflict`
                (`replaces` is not what is in force); `denied` (it changes what is governed, and
                the caller does not govern); `unavailable`.
        """
        ...

    async def agent_list(
        self, caller: Caller, arguments: methods.Nothing
    ) -> tuple[methods.Agent, ...]:
        """Every domain that is a backend or has an agent, by domid."""
        ...

    async def metrics(self, caller: Caller, arguments: methods.Nothing) -> methods.Metrics:
        """Everything counted; answers in every state."""
        ...

    async def net_drops(
        self, caller: Caller, arguments: methods.Nothing
    ) -> tuple[methods.NetDrops, ...]:
        """What each backend domain's agent reports of refused packets."""
        ...

    async def policy_observed(
        self, caller: Caller, arguments: methods.Nothing
    ) -> tuple[methods.Observed, ...]:
        """What observe mode granted since the policy in force was loaded."""
        ...

    async def policy_pending(
        self, caller: Caller, arguments: methods.Nothing
    ) -> tuple[methods.Proposal, ...]:
        """The policies that wait for a second person."""
        ...

    async def policy_review(
        self, caller: Caller, arguments: methods.ProposalSelector
    ) -> methods.Review:
        """A policy that waits.

        Raises:
            RpcError: `not_found`, `conflict` (it can replace what is in force no more).
        """
        ...

    async def policy_approve(
        self, caller: Caller, arguments: methods.Approval
    ) -> methods.PolicyChange:
        """Put a policy in force that somebody else proposed.

        Raises:
            RpcError: `denied` (it is the caller's own, or governed and he does not govern),
                `not_found`, `conflict`, `unavailable`.
        """
        ...

    async def policy_reject(
        self, caller: Caller, arguments: methods.ProposalSelector
    ) -> methods.Proposal:
        """Drop a policy that waits.

        Raises:
            RpcError: `not_found`, `unavailable`.
        """
        ...

    async def policy_withdraw(
        self, caller: Caller, arguments: methods.ProposalSelector
    ) -> methods.Proposal:
        """Drop a policy of the caller's own that waits.

        Raises:
            RpcError: `denied` (it is another's), `not_found`, `unavailable`.
        """
        ...

    async def audit_list(self, caller: Caller, arguments: methods.AuditSearch) -> methods.AuditPage:
        """The latest records of the audit log that match.

        Raises:
            RpcError: `internal` (the log cannot be read).
        """
        ...

    async def audit_tail(
        self, caller: Caller, arguments: methods.AuditFollow, send: Sender
    ) -> Callable[[], None]:
        """Send the records of the audit log that match, until the function answered is called.

        A client that does not read is waited for: the records are on the disk. It has lost some
        only if they were dropped there meanwhile.

        Raises:
            RpcError: `bad_input` (no record has that number yet), `internal` (the log cannot be
                read).
        """
        ...

    async def audit_checkpoint(
        self, caller: Caller, arguments: methods.Nothing
    ) -> methods.AuditRecord:
        """Sign a checkpoint of the audit log as it is now.

        Raises:
            RpcError: `unavailable` (the log cannot be written).
        """
        ...
