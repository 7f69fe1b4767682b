"""What is asked of filter profiles at work: whose vifs have them, and what they do to a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from broker.filters.bind import BindError, parse_bound, variables_of
from broker.filters.connections import connection_of
from broker.filters.evaluate import Asking, evaluate
from broker.filters.frame import Frame
from broker.net.frame import describe
from broker.rpc.errors import RpcError
from broker.rpc.methods import filters as methods
from broker.service.drops import reported_filters
from broker.service.filters import VIF
from broker.service.targets import selector_of
from broker.text.escape import escape

if TYPE_CHECKING:
    from broker.filters.connections import State
    from broker.filters.evaluate import Outcome
    from broker.rpc.admin import Caller
    from broker.rpc.methods import Nothing
    from broker.service.authority import Authority
    from broker.service.engine import Engine
    from broker.service.labels import Labels
    from broker.service.mirror import Device
    from broker.service.targets import Targets


class FilterLooks:
    """The functions of `filter.*` that look at vifs."""

    _engine: Engine
    _targets: Targets
    _authority: Authority
    labels: Labels

    async def filter_show(self, caller: Caller, arguments: methods.FilterVif) -> methods.VifFilters:
        """What a vif has."""
        del caller
        return self._on(self._vif(arguments))

    async def filter_vifs(
        self, caller: Caller, arguments: Nothing
    ) -> tuple[methods.FilteredVif, ...]:
        """The vifs that have profiles and the caller may see."""
        del arguments
        seen, found = self._authority.sees(caller, "filter.vifs"), []
        for domid, domain in sorted(self._engine.mirror.domains.items()):
            vifs = [it for it in domain.devices.values() if it.device_class == VIF]
            filtered = [it for it in vifs if self._engine.filters.attached(it)]
            if not filtered or not seen(self._targets.of_domain(domain)):
                continue
            found += [
                methods.FilteredVif(
                    **msgspec.structs.asdict(self._on(device)),
                    frontend=domid,
                    frontend_name=domain.name,
                    device=device.device,
                    backend=device.backend,
                )
                for device in filtered
                if device.backend is not None
            ]
        return tuple(found)

    async def filter_counts(
        self, caller: Caller, arguments: Nothing
    ) -> tuple[methods.FilterCounts, ...]:
        """What each backend domain's agent reports of them."""
        del caller, arguments
        return reported_filters(self._engine.mirror)

    async def filter_test(
        self, caller: Caller, arguments: methods.FilterTest
    ) -> methods.FilterOutcome:
        """What becomes of a frame."""
        del caller
        filters, device = self._engine.filters, self._vif(arguments)
        library = filters.profiles.library
        untrusted_frame = bytes.fromhex(arguments.frame)
        try:
            found = filters.wanted(device)
            environment = dict(found.environment)
            if arguments.learned:
                declared = variables_of(library, found.profiles)
                for name in found.learned:
                    environment[name] = parse_bound(declared[name], arguments.learned)
        except BindError as error:
            raise RpcError("unavailable", f"{device} is closed: {error}") from None
        outcomes = {
            state: evaluate(
                Asking(library, environment, arguments.direction, Frame(untrusted_frame, state)),
                found.profiles,
            )
            for state in _states(untrusted_frame, arguments.state)
        }
        return _outcome(outcomes, describe(untrusted_frame))

    def _on(self, device: Device) -> methods.VifFilters:
        filters = self._engine.filters
        attached = filters.attached(device)
        found, problem = None, ""
        try:
            found = filters.wanted(device)
            problem = filters.refusal(device, claiming=False)
        except BindError as error:
            problem = str(error)
        return methods.VifFilters(
            vif=str(device),
            profiles=tuple(it.profile for it in attached),
            from_where=tuple(it.where for it in attached),
            variables={} if found is None else dict(found.given),
            learned=() if found is None else found.learned,
            problem=problem,
        )

    def _vif(self, arguments: methods.FilterVif) -> Device:
        live = self.labels.live(selector_of(arguments.domain))
        found = [
            device
            for domain in live
            if (device := domain.devices.get((VIF, arguments.device))) is not None
        ]
        if not found:
            said = escape(f"{arguments.domain} has no vif {arguments.device}")
            raise RpcError("not_found", f"no running domain {said}")
        if len(found) > 1:
            raise RpcError("bad_input", "two domains answer; say which by domid")
        return found[0]


def _states(untrusted_frame: bytes, said: methods.State | None) -> tuple[State, ...]:
    """The states to try: the one that was said, or all that such a frame can have.

    Raises:
        RpcError: it cannot have the one that was said.
    """
    possible = connection_of(Frame(untrusted_frame)).states
    if said is None:
        return possible
    if said not in possible:
        can = " or ".join(possible)
        raise RpcError("bad_input", f"such a frame is never {said}: it is {can}")
    return (said,)


def _outcome(outcomes: dict[State, Outcome], frame: str) -> methods.FilterOutcome:
    """The one there is, or what it depends on."""
    verdicts = {it.verdict for it in outcomes.values()}
    last = next(reversed(outcomes.values()))
    alike = len(set(outcomes.values())) == 1
    return methods.FilterOutcome(
        verdict=last.verdict if len(verdicts) == 1 else "depends",
        rule=last.rule if alike else "",
        where=last.where if alike else "",
        reason=last.reason if alike else "",
        unreadable=any(it.unreadable for it in outcomes.values()),
        frame=frame,
        by_state=()
        if alike
        else tuple(
            methods.FilterStateOutcome(
                state=state,
                verdict=it.verdict,
                rule=it.rule,
                where=it.where,
                reason=it.reason,
            )
            for state, it in outcomes.items()
        ),
    )
