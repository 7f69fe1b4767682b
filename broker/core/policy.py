"""A compiled policy: who may share a channel, who may run, and why. Immutable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.core import explain
from broker.core.chinese_wall import ChineseWall
from broker.core.class_table import ClassTable
from broker.core.definition import GROUP, NEEDS_RESOURCE
from broker.core.frames import Frames
from broker.core.masks import Numbering
from broker.core.observation import Observation
from broker.core.resources import ResourceIndex
from broker.core.verdict import Reason, Verdict, denied
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.core.definition import Action, Attached, Definition, Rule, Verb

__all__ = ["Policy", "Reason", "Verdict"]


class Policy:
    """What `broker.policy.load_policy` makes of a file.

    Labels are named as in the policy; a mode is `r` (reading) or `w` (reading and writing).
    """

    def __init__(self, definition: Definition) -> None:
        """Compile a definition whose names have been checked.

        Raises:
            KeyError: the definition uses a type or colour, or a label, that it does not define.
        """
        self.definition = definition
        self.name = definition.name
        self.version = definition.version
        self.digest = definition.digest
        self.bootstrap = definition.bootstrap
        self.labels = tuple(label.name for label in definition.labels)
        self.host_authorization = definition.host_authorization
        self.protected = frozenset(definition.protected)
        self._types = Numbering(definition.ste_types)
        self._labels = {label.name: label for label in definition.labels}
        self._types_of = {label.name: self._types.mask(label.ste) for label in definition.labels}
        self._resources = {resource.name: resource for resource in definition.resources}
        colours = dict.fromkeys(c for label in definition.labels for c in label.colours)
        colours.update(dict.fromkeys(c for r in definition.resources for c in r.colours))
        numbered_colours = Numbering(colours)
        self._tables = {
            device_class.name: ClassTable(definition, device_class, self._types, numbered_colours)
            for device_class in definition.classes
        }
        self._judges = {name: table.judge for name, table in self._tables.items()}
        self._wall = ChineseWall(
            definition.chinese_wall_types, definition.conflict_sets, definition.labels
        )
        self._frames = Frames(definition.betweens)
        self._index = ResourceIndex(definition.resources)
        self._observation = Observation(definition.observe, definition.groups)
        self._references = _references(definition)

    def has_label(self, label: str) -> bool:
        """Whether a domain may carry this label."""
        return label in self._labels

    def has_class(self, device_class: str) -> bool:
        """Whether the policy speaks of this class."""
        return device_class in self._tables

    def protocol_of(self, device_class: str) -> str | None:
        """The name of the class's protocol description; None for an unknown class."""
        table = self._tables.get(device_class)
        return None if table is None else table.device_class.protocol

    def needs_resource(self, device_class: str) -> bool:
        """Whether channels of this class always involve a resource."""
        return device_class in NEEDS_RESOURCE

    def on_violation(self, device_class: str) -> Action:
        """What to do to a channel of this class that breaks its protocol."""
        actions = self.definition.on_violation
        return actions.get(device_class) or actions["default"]

    def filters_of(self, label: str) -> tuple[Attached, ...]:
        """The filter profiles of a label's vifs: its own, then those of the groups it is in."""
        definition = self.definition
        found = list(definition.filters.get(label, ()))
        for group, members in definition.groups.items():
            if label in members:
                found += definition.filters.get(GROUP + group, ())
        return tuple(found)

    def renamed_from(self, label: str) -> str | None:
        """The name a label had in the policy this one replaces (`was`), if it had another."""
        return self._labels[label].was

    def renames_since(self, previous: Policy) -> dict[str, str]:
        """What labels of `previous` are called here: each former name with the one of now.

        Labels that keep their name are not in it. A name counts as former only where `previous`
        has it, so that a policy may keep its `was` for good.
        """
        return {
            label.was: label.name
            for label in self.definition.labels
            if label.was is not None and previous.has_label(label.was)
        }

    def successors(self, previous: Policy) -> dict[str, str | None]:
        """For each label of `previous`, what its domains are labelled here; None: no more.

        A name that another label has taken over does not stand for the one it belonged to.
        """
        renames = self.renames_since(previous)
        taken = frozenset(renames.values())
        kept = {
            name: name for name in previous.labels if name in self._labels and name not in taken
        }
        return {name: renames.get(name, kept.get(name)) for name in previous.labels}

    def observing(self, now: float) -> bool:
        """Whether observe mode opens anything at `now`, POSIX seconds."""
        return self._observation.active(now)

    def observes(
        self,
        now: float,
        device_class: str,
        frontend: str,
        backend: str,
        resource: str | None = None,
    ) -> bool:
        """Whether observe mode opens a channel that would be denied; `now` is POSIX seconds.

        Only between labels of this policy, for classes it has, and up to the end of `until`
        (UTC). Anything unknown is not opened.
        """
        if device_class not in self._tables:
            return False
        if frontend not in self._labels or backend not in self._labels:
            return False
        return self._observation.opens(now, device_class, frontend, backend, resource)

    def decide(
        self,
        device_class: str,
        frontend: str,
        backend: str,
        resource: str | None = None,
        mode: str = "w",
    ) -> bool:
        """Whether labels, rules and resource grant a channel; anything unknown is a denial.

        The Chinese Wall and host authorization are asked with `admit`.
        """
        try:
            return not self._judges[device_class](frontend, backend, resource, mode)
        except Exception:  # noqa: BLE001 - whatever goes wrong while deciding, the answer is no
            return False

    def errs(
        self, device_class: str, frontend: str, backend: str, resource: str | None, mode: str
    ) -> bool:
        """Whether deciding about names that the policy has would fail; `decide` denies then."""
        try:
            self._judges[device_class](frontend, backend, resource, mode)
        except Exception:  # noqa: BLE001 - any failure is the answer
            return True
        return False

    def explain(
        self,
        device_class: str,
        frontend: str,
        backend: str,
        resource: str | None = None,
        mode: str = "w",
    ) -> Verdict:
        """What `decide` answers, with every reason."""
        try:
            return self._explain(device_class, frontend, backend, resource, mode)
        except Exception as error:  # noqa: BLE001 - as in `decide`
            return denied("error", f"deciding failed: {escape(repr(error))}")

    def _explain(
        self, device_class: str, frontend: str, backend: str, resource: str | None, mode: str
    ) -> Verdict:
        table = self._tables.get(device_class)
        if table is None:
            return denied("class", f"class {_shown(device_class)} is not in the policy")
        unknown = [Reason(*words) for words in self._unknown(frontend, backend, resource, mode)]
        if unknown:
            return Verdict(granted=False, reasons=tuple(unknown))
        request = frontend, backend, resource, mode
        against = table.judge(*request)
        labels = self._labels[frontend], self._labels[backend]
        if not against:
            allowing = table.rules.speaking("allow", *request)
            reasons = tuple(explain.grant_reasons(table, *labels, allowing))
            return Verdict(granted=True, reasons=reasons)
        target = None if resource is None else self._resources[resource]
        reasons = (
            *map(explain.rule_reason, table.rules.speaking("deny", *request)),
            *explain.deny_reasons(table, *labels, target, against),
        )
        return Verdict(granted=False, reasons=reasons)

    def _unknown(
        self, frontend: str, backend: str, resource: str | None, mode: str
    ) -> list[tuple[str, str]]:
        found = [
            ("label", f"{side} label {_shown(label)} is not in the policy")
            for side, label in (("frontend", frontend), ("backend", backend))
            if label not in self._labels
        ]
        if resource is not None and resource not in self._resources:
            found.append(("resource", f"resource {_shown(resource)} is not in the policy"))
        if mode not in ("r", "w"):
            found.append(("mode", f"mode {_shown(mode)} is neither r nor w"))
        return found

    def speaking(self, verb: Verb, request: tuple[str, str, str, str | None, str]) -> list[Rule]:
        """The rules of one verb that a request (as `decide` is asked) meets, in their order.

        Raises:
            KeyError: the mode is neither `r` nor `w`.
        """
        device_class, frontend, backend, resource, mode = request
        table = self._tables.get(device_class)
        if table is None:
            return []
        return table.rules.speaking(verb, frontend, backend, resource, mode)

    def resource_for(self, device_class: str, device: Mapping[str, str]) -> str | None:
        """The resource that a device is, by the `match` of resources; None where it is none.

        `device` holds the device's own keys (`params`, `bridge`, ...), toolstack-written.
        """
        return self._index.find(device_class, device)

    def ssidref(self, label: str) -> int:
        """The local reference of a label or resource.

        Labels are numbered from 1 in the file's order, the bootstrap label first; that number
        stands in both halves. Resources follow; theirs stands in the STE (upper) half alone.

        Raises:
            KeyError: the policy has neither a label nor a resource of this name.
        """
        return self._references[label]

    def admit(self, running: Sequence[str], label: str) -> Verdict:
        """Whether a domain of `label` may run beside domains of the labels `running`.

        Chinese Wall and, where the policy has it, host authorization. The bootstrap label
        always runs. A label that the policy does not have, asked for or running, is a denial.
        """
        strangers = [name for name in (label, *running) if name not in self._labels]
        if strangers:
            reasons = [
                Reason("label", f"label {_shown(name)} is not in the policy")
                for name in dict.fromkeys(strangers)
            ]
            return Verdict(granted=False, reasons=tuple(reasons))
        where = self._labels[label].where
        reasons = [
            Reason("chinese_wall", text, where)
            for text in self._wall.conflicts((self.bootstrap, *running), label)
        ]
        lacking = self._types_of[label] & ~self._types_of[self.bootstrap]
        if self.host_authorization and lacking:
            names = ", ".join(self._types.named(lacking))
            text = f"{label} is not authorized on this host: {self.bootstrap} lacks STE {names}"
            reasons.append(Reason("host_authorization", text, where))
        if reasons:
            return Verdict(granted=False, reasons=tuple(reasons))
        text = f"{label} conflicts with no running label"
        return Verdict(granted=True, reasons=(Reason("chinese_wall", text, where),))

    def walled_off(self, a: str, b: str) -> bool:
        """Whether the Chinese Wall keeps two labels apart; one it does not know is kept apart."""
        if a not in self._labels or b not in self._labels:
            return True
        return bool(self._wall.conflicts((a,), b))

    def frames(self, a: str, b: str) -> Verdict:
        """Whether frames may pass between the vifs of two domains, by their labels."""
        for label in (a, b):
            if label not in self._labels:
                return denied("label", f"label {_shown(label)} is not in the policy")
        shared = self._types_of[a] & self._types_of[b]
        if not shared:
            return denied("ste", f"{a} and {b} share no STE type", self._labels[a].where)
        verdict = self._frames.judge(a, b)
        if verdict.reasons:
            return verdict
        text = f"{a} and {b} share STE {', '.join(self._types.named(shared))}"
        return Verdict(granted=True, reasons=(Reason("ste", text, self._labels[a].where),))

    def passes_frames(self, a: str, b: str) -> bool:
        """What `frames` says, without reasons; an unknown label is refused."""
        types = self._types_of
        shared = types.get(a, 0) & types.get(b, 0)
        return bool(shared) and self._frames.passes(a, b)

    def frames_alike(self, label: str) -> tuple[int, str]:
        """Labels of which this is equal exchange frames with the same labels, themselves included.

        Raises:
            KeyError: the label is not in the policy.
        """
        return self._types_of[label], label if self._frames.names(label) else ""


def _references(definition: Definition) -> dict[str, int]:
    labels = [label.name for label in definition.labels]
    labels.remove(definition.bootstrap)
    labels.insert(0, definition.bootstrap)
    first_resource = 1 + len(labels)
    references = {
        resource.name: first_resource + rank << 16
        for rank, resource in enumerate(definition.resources)
    }
    references.update({name: i << 16 | i for i, name in enumerate(labels, 1)})
    return references


def _shown(name: object) -> str:
    return escape(str(name), 60)
