"""What administrators ask of channels: the functions of `channel.*`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.core.roles import NO_TARGET
from broker.rpc.errors import RpcError
from broker.service import questions
from broker.service.targets import selector_of
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.core.plan import Entry
    from broker.rpc import methods
    from broker.rpc.admin import Caller
    from broker.service.authority import Authority
    from broker.service.connecting import Connecting
    from broker.service.decider import Told
    from broker.service.engine import Engine
    from broker.service.labels import Labels
    from broker.service.mirror import Device
    from broker.service.targets import Targets
    from broker.service.views import ChannelViews


class ChannelCalls:
    """The part of the broker's administration that is about channels."""

    _engine: Engine
    _targets: Targets
    _authority: Authority
    _views: ChannelViews
    _connecting: Connecting
    labels: Labels

    async def channel_list(
        self, caller: Caller, arguments: methods.ChannelFilter
    ) -> tuple[methods.Channel, ...]:
        """The channels that match and the caller may see, by frontend, class and device."""
        # Whether a domain runs is not said to who may see some of them alone.
        sees_all = self._authority.sees(caller, "channel.list")(NO_TARGET)
        asked = None if arguments.domain is None else selector_of(arguments.domain)
        if asked is not None and sees_all and not self.labels.live(asked):
            raise RpcError(
                "not_found", f"no domain {escape(asked.value)} runs; see brokerctl domain list"
            )
        matches = self._matcher(caller, "channel.list", arguments)
        found = [self._views.channel(it) for it in self._engine.mirror.devices() if it.channel]
        return tuple(
            sorted(
                filter(matches, found),
                key=lambda it: (it.frontend, it.device_class, int(it.device)),
            )
        )

    async def channel_explain(
        self, caller: Caller, arguments: methods.ChannelSelector
    ) -> methods.Explanation:
        """Why one channel is decided as it is."""
        del caller
        return self._views.explain(questions.device_of(self.labels, arguments))

    async def channel_connect(
        self, caller: Caller, arguments: methods.ChannelConnect
    ) -> methods.ChannelOrdered:
        """Give a running domain a device, if the policy grants it."""
        return await self._connecting.connect(caller, arguments)

    async def channel_disconnect(
        self, caller: Caller, arguments: methods.ChannelDisconnect
    ) -> methods.ChannelOrdered:
        """Take a device away from its guest."""
        device = questions.device_of(self.labels, arguments)
        return await self._connecting.disconnect(caller, arguments, device)

    async def channel_reset(
        self, caller: Caller, arguments: methods.ChannelSelector
    ) -> methods.ChannelOrdered:
        """Take a device away and set it up anew."""
        device = questions.device_of(self.labels, arguments)
        return await self._connecting.reset(caller, device)

    async def channel_watch(
        self,
        caller: Caller,
        arguments: methods.ChannelFilter,
        send: Callable[[methods.Decision], None],
    ) -> Callable[[], None]:
        """Call `send` for each event that matches, until the answered function is called."""
        matches = self._matcher(caller, "channel.watch", arguments)
        subscribers = self._engine.decider.subscribers
        sees = self._authority.sees(caller, "channel.watch")
        # Who is going has no name any more, and may have another verdict: what was seen here
        # matches until it is gone, unless it has become another's meanwhile.
        seen = {
            it.path: (shown.frontend_label, shown.resource)
            for it in self._engine.mirror.devices()
            if it.channel and matches(shown := self._views.channel(it))
        }

        def subscriber(event: Told, device: Device, before: Entry | None) -> None:
            if device.channel is None:
                return
            decision = self._views.event(event, device, before)
            channel = decision.channel
            what = channel.frontend_label, channel.resource
            if event == "gone":
                was = seen.pop(device.path, None)
                wanted = was is not None and all(
                    now in (None, then) for now, then in zip(what, was, strict=True)
                )
            else:
                wanted = matches(channel)
                if wanted or (device.path in seen and sees(self._targets.of_channel(channel))):
                    seen[device.path] = what
            if wanted:
                send(decision)

        subscribers.append(subscriber)
        return lambda: subscribers.remove(subscriber)

    def _matcher(
        self, caller: Caller, verb: str, wanted: methods.ChannelFilter
    ) -> Callable[[methods.Channel], bool]:
        selector = None if wanted.domain is None else selector_of(wanted.domain)
        seen = self._authority.sees(caller, verb)

        def matches(channel: methods.Channel) -> bool:
            if not seen(self._targets.of_channel(channel)):
                return False
            if wanted.device_class not in (None, channel.device_class):
                return False
            if wanted.verdict not in (None, channel.verdict):
                return False
            if selector is None:
                return True
            domids = {domain.domid for domain in self.labels.live(selector)}
            return bool(domids & {channel.frontend, channel.backend})

        return matches
