"""What a call is about, in the words that roles select by: domains, labels, class, resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.core.record import RecordError
from broker.core.roles import NO_TARGET, Named, Target
from broker.core.ticket import read_ticket
from broker.rpc.errors import RpcError
from broker.rpc.selector import Selector, parse_selector

if TYPE_CHECKING:
    from broker.rpc import methods
    from broker.rpc.table import Arguments, Method
    from broker.service.engine import Engine
    from broker.service.events import Bound
    from broker.service.labels import Labels
    from broker.service.mirror import Device, Domain


def selector_of(text: str) -> Selector:
    """Which domain is meant.

    Raises:
        RpcError: `bad_input`.
    """
    try:
        return parse_selector(text)
    except ValueError as error:
        raise RpcError("bad_input", str(error)) from None


class Targets:
    """The targets of calls on one engine."""

    def __init__(self, engine: Engine, labels: Labels) -> None:
        self._engine = engine
        self._labels = labels

    def of_call(self, method: Method, arguments: Arguments) -> Target:
        """What the arguments name.

        A domain is the field `domain`, or what a `ticket` or `uuid` says; a channel the fields
        `frontend` (or `domain`), `device_class`, `device`, `resource`, as far as the method has
        them.

        Raises:
            RpcError: `bad_input`, a domain is named as none can be.
        """
        if method.object == "domain":
            return self._domain(arguments)
        if method.object == "channel":
            return self._channel(arguments)
        return NO_TARGET

    def of_domain(self, domain: Domain) -> Target:
        """A live domain."""
        return Target(domains=(_named(domain),), labels=(self._label(domain),))

    def of_label(self, label: methods.Label) -> Target:
        """A stored label: for whom it is, and what it is."""
        return Target(domains=(Named(label.name, label.uuid),), labels=(label.label,))

    def of_bound(self, bound: Bound, key: str) -> Target:
        """What is stored for a uuid or a name, and the labels that domains have by it."""
        domains, labels = self._selected(Selector(bound, key))
        return Target(domains=domains, labels=labels)

    def of_channel(self, channel: methods.Channel) -> Target:
        """A channel, also one that is gone."""
        domain = self._engine.mirror.domains.get(channel.frontend)
        uuid = None if domain is None else domain.uuid
        return Target(
            domains=(Named(channel.frontend_name, uuid),),
            labels=(channel.frontend_label,),
            device_class=channel.device_class,
            resource=channel.resource,
        )

    def _domain(self, arguments: Arguments) -> Target:
        """A domain and its label; to be given a new one, that has to be granted as well."""
        selector, new = _asked(arguments)
        if selector is None:
            return Target(domains=(Named(None, None),), labels=(None,))
        domains, labels = self._selected(selector)
        if new is not None:
            labels = (*(label for label in labels if label is not None), new)
        return Target(domains=domains, labels=labels)

    def _channel(self, arguments: Arguments) -> Target:
        frontend = _field(arguments, "frontend") or _field(arguments, "domain") or ""
        selector = selector_of(frontend)
        domains, labels = self._selected(selector)
        device_class = _field(arguments, "device_class")
        resource = _field(arguments, "resource")
        device = _field(arguments, "device")
        if device_class is not None and device is not None:
            found = self._devices(selector, device_class, device)
            resources = {self._engine.judge.judge(it).decision.resource for it in found}
            resource = resources.pop() if len(resources) == 1 else None
        if device_class is None and resource is not None:
            device_class = self._class_of(resource)
        return Target(domains=domains, labels=labels, device_class=device_class, resource=resource)

    def _selected(self, selector: Selector) -> tuple[tuple[Named, ...], tuple[str | None, ...]]:
        """Every domain that a selector stands for now, and the labels they have or would have."""
        live = self._labels.live(selector)
        domains = [_named(domain) for domain in live]
        labels = [self._label(domain) for domain in live]
        if selector.kind != "domid":
            # A name stands for every domain that will have it, too.
            by_name = selector.kind == "name"
            asked = Named(selector.value, None) if by_name else Named(None, selector.value)
            if by_name or not live:
                domains.append(asked)
            stored = self._engine.state.labels.get((selector.kind, selector.value))
            if stored is not None:
                labels.append(stored.label)
        if not domains:
            domains.append(Named(None, None))
        return tuple(domains), tuple(labels) or (None,)

    def _devices(self, selector: Selector, device_class: str, device: str) -> list[Device]:
        key = (device_class, device)
        return [it.devices[key] for it in self._labels.live(selector) if key in it.devices]

    def _class_of(self, resource: str) -> str | None:
        policy = self._engine.judge.policy
        resources = () if policy is None else policy.definition.resources
        return next((it.device_class for it in resources if it.name == resource), None)

    def _label(self, domain: Domain) -> str | None:
        return self._engine.judge.standing(domain.domid).label


def _asked(arguments: Arguments) -> tuple[Selector | None, str | None]:
    """Which domain, and the label it is to have; a ticket says both. None: it names no domain."""
    untrusted_ticket, uuid = _field(arguments, "ticket"), _field(arguments, "uuid")
    if untrusted_ticket is not None:
        try:
            ticket = read_ticket(untrusted_ticket.strip().encode("utf-8"))
        except RecordError:
            return None, None  # no ticket: its method says so
        return Selector("uuid", ticket.uuid), ticket.label
    if uuid is not None:
        return Selector("uuid", uuid), None
    domain = _field(arguments, "domain")
    return None if domain is None else selector_of(domain), _field(arguments, "label")


def _named(domain: Domain) -> Named:
    return Named(domain.name, domain.uuid)


def _field(arguments: Arguments, name: str) -> str | None:
    value = getattr(arguments, name, None)
    return value if isinstance(value, str) else None
