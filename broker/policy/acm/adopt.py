"""An ACM policy as a policy of ours: what ACM took silently and wrongly is refused, with a reason.

What can be taken over all the same has a word for `--accept`; nothing else bends.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from broker.core import definition as core
from broker.policy.acm.names import NAMES, UNLABELED_KIND, Names
from broker.policy.acm.numbering import in_order
from broker.policy.findings import Findings
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.policy.acm.document import AcmLabel, AcmPolicy, AcmResource
    from broker.policy.acm.numbering import Scheme
    from broker.text.marked_yaml import Text
    from broker.text.problems import Problem

CONFLICT_TYPES: Final = "conflict-types"
NO_STE: Final = "no-ste"
TYPE_LISTS: Final = "type-lists"
FOREIGN_LABELS: Final = "foreign-labels"
VERSION: Final = "version"
ACCEPTABLE: Final = {
    NAMES: "rewrite names that cannot stand here",
    UNLABELED_KIND: "take __UNLABELED__ over as a label like any other",
    CONFLICT_TYPES: "leave undefined types out of conflict sets, as ACM silently did",
    NO_STE: "without Simple Type Enforcement, give everything one type, so that all may share",
    TYPE_LISTS: "join several lists of types of one label",
    FOREIGN_LABELS: "take labels that say they are another policy's",
    VERSION: "read a version like 1-0 as 1.0",
}
"""What can be imported although ACM's reading of it was wrong, and what is made of it."""
_VERSION: Final = re.compile(r"([0-9]{1,8})\.([0-9]{1,8})", re.ASCII)
_LOOSE_VERSION: Final = re.compile(r"([0-9]{1,8})[^0-9\n]([0-9]{1,8})", re.ASCII)
_NO_VERSION: Final = (0, 0)
_EVERYONE: Final = "everyone"


class _File:
    """What there is to say about one file: what is refused, what is remarked on, its names."""

    def __init__(self, source: str, accept: frozenset[str]) -> None:
        self.findings = Findings(source)
        self.notes = Findings(source)
        self.names = Names(accept, self.findings, self.notes)


class Adoption:
    """Takes one ACM policy over; `problems` and `notes` fill as it goes.

    `types_in` and `labels_in` are the files where the types and the labels stand.
    """

    def __init__(
        self, policy: AcmPolicy, accept: frozenset[str], types_in: str, labels_in: str
    ) -> None:
        self._policy = policy
        self._accept = accept
        self._head = _File(types_in, accept)
        self._body = self._head if labels_in == types_in else _File(labels_in, accept)

    @property
    def problems(self) -> list[Problem]:
        """Why the policy is refused; nothing when it may be used."""
        return [*self._head.findings.problems, *self._body.findings.problems]

    @property
    def notes(self) -> list[Problem]:
        """What is not as it was."""
        return [*self._head.notes.problems, *self._body.notes.problems]

    def definition(self, scheme: Scheme, classes: Sequence[str]) -> core.Definition:
        """The policy; it may be used only if nothing was found."""
        policy = self._policy
        name = self._head.names.take(policy.name, "policy")
        version = self._version(policy.version, policy.name)
        one_type = self._one_type()
        ste = {} if one_type else self._head.names.take_new(policy.ste_types or (), "STE type")
        walls = self._head.names.take_new(policy.chinese_wall_types or (), "Chinese Wall type")
        labels = self._body.names.take_new((label.name for label in policy.labels), "label")
        for text in policy.several_lists:
            if TYPE_LISTS not in self._accept:
                said = f"more than one list of types (--accept {TYPE_LISTS} joins them)"
                self._body.findings.add(text, said)
        self._priority()
        bootstrap = self._body.names.take(policy.bootstrap, "bootstrap label")
        if policy.bootstrap and bootstrap not in labels:
            said = f"bootstrap label '{escape(bootstrap, 60)}' is not one of the labels"
            self._body.findings.add(policy.bootstrap, said)
        conflicts = self._conflicts(walls)
        self._one_of_each(conflicts)
        adopted = [
            self._label(label, ste, walls, one_type, labels)
            for label in in_order(policy.labels, scheme, policy.bootstrap)
        ]
        self._former(labels)
        return core.Definition(
            name=name,
            version=version,
            replaces=self._replaces(name, version),
            digest="",
            ste_types=(one_type,) if one_type else tuple(ste),
            chinese_wall_types=tuple(walls),
            conflict_sets=conflicts,
            bootstrap=bootstrap,
            labels=tuple(adopted),
            groups={},
            resources=self._resources(scheme, ste, one_type),
            classes=tuple(core.DeviceClass(each, each, "ste", "") for each in classes),
            rules=(),
            betweens=(),
            on_violation={"default": "close"},
            host_authorization=True,
            protected=(),
            roles={},
        )

    def _version(self, text: Text | None, policy: Text) -> tuple[int, int]:
        if text is None:
            self._head.notes.add(
                policy, "no Version: ACM's first policies had none; it is 1.0 here"
            )
            return 1, 0
        match = _VERSION.fullmatch(text)
        if match is None:
            match = _LOOSE_VERSION.fullmatch(text)
            if match is None or VERSION not in self._accept:
                hint = f" (--accept {VERSION} reads two numbers)" if match else ""
                said = f"version '{escape(text, 60)}' is not major.minor, two integers{hint}"
                self._head.findings.add(text, said)
                return _NO_VERSION
            self._head.notes.add(
                text, f"version '{escape(text)}' is {int(match[1])}.{int(match[2])}"
            )
        return int(match[1]), int(match[2])

    def _replaces(self, name: str, version: tuple[int, int]) -> tuple[str, tuple[int, int]] | None:
        if self._policy.replaces is None:
            return None
        policy, text = self._policy.replaces
        former, before = self._head.names.take(policy, "former policy"), self._version(text, text)
        if former == name and before >= version != _NO_VERSION:
            self._head.findings.add(text, "FromPolicy's version is not older than this policy's")
        return former, before

    def _one_type(self) -> str:
        """The type that all share in a policy that enforces none; else nothing."""
        policy = self._policy
        if policy.ste_types:
            return ""
        if NO_STE in self._accept:
            self._head.notes.add(
                policy.name, f"all labels and resources have the type '{_EVERYONE}'"
            )
            return _EVERYONE
        self._head.findings.add(
            policy.name,
            "no SimpleTypeEnforcement: in ACM everybody could then share with everybody, here "
            f"nobody can (--accept {NO_STE} gives all one type)",
        )
        return ""

    def _priority(self) -> None:
        primary = self._policy.primary
        for text in primary.values():
            if text != "PrimaryPolicyComponent":
                said = f"priority is PrimaryPolicyComponent or absent, not '{escape(text, 60)}'"
                self._head.findings.add(text, said)
        if len(primary) > 1:
            said = "two components say they are the primary one"
            self._head.findings.add(primary["CHWALL"], said)
        elif "STE" in primary and self._policy.resources:
            self._head.notes.add(
                primary["STE"],
                "the primary component: the C compiler put its numbers, resources' too, into the "
                "lower half of ssidrefs, the Python one did not; here they stand in the upper half",
            )

    def _conflicts(self, walls: dict[str, Text]) -> dict[str, tuple[str, ...]]:
        conflicts = self._policy.conflicts
        names = self._head.names.take_new((each.name for each in conflicts), "conflict set")
        sets = {}
        for conflict in conflicts:
            name = self._head.names.take(conflict.name, "conflict set")
            types: dict[str, None] = {}
            for text in conflict.types:
                held = self._head.names.take(text, "Chinese Wall type")
                if held in walls:
                    types[held] = None
                    continue
                said = f"conflict set '{escape(name, 60)}' has the undefined type"
                if CONFLICT_TYPES in self._accept:
                    self._head.notes.add(text, f"{said} '{escape(text, 60)}': left out")
                else:
                    self._head.findings.add(
                        text,
                        f"{said} '{escape(text, 60)}': ACM dropped it silently, and the wall with "
                        f"it (--accept {CONFLICT_TYPES} does so too)",
                    )
            if len(types) >= 2:
                sets[name] = tuple(types)
            elif not self.problems:
                said = f"conflict set '{name}' is left out: with {len(types)} types it parts nobody"
                self._head.notes.add(names[name], said)
        return sets

    def _one_of_each(self, conflicts: dict[str, tuple[str, ...]]) -> None:
        for label in self._policy.labels:
            held = [str(text) for text in label.chinese_wall or ()]
            for name, members in conflicts.items():
                both = [text for text in held if text in members]
                if len(set(both)) > 1:
                    self._body.findings.add(
                        label.name,
                        f"label '{escape(label.name, 60)}' holds {' and '.join(both)} of conflict "
                        f"set '{name}': ACM let it start alone, and what might start beside it "
                        "hung on the order",
                    )

    def _label(
        self,
        label: AcmLabel,
        ste: dict[str, Text],
        walls: dict[str, Text],
        one_type: str,
        labels: dict[str, Text],
    ) -> core.Label:
        for kind, types, component in (
            ("SimpleTypeEnforcementTypes", label.ste, ste),
            ("ChineseWallTypes", label.chinese_wall, walls),
        ):
            if types is None and component:
                self._body.notes.add(
                    label.name,
                    f"label '{escape(label.name, 60)}' has no {kind}: ACM numbered it in one half "
                    "of its ssidrefs only; those of old images need the .map file",
                )
        name = self._body.names.take(label.name, "label")
        was = None if label.was is None else self._body.names.take(label.was, "former label")
        if was is not None and was in labels and was != name:
            said = f"label '{escape(was, 60)}' is still in the policy; it cannot be renamed away"
            self._body.findings.add(label.was or label.name, said)
        return core.Label(
            name=name,
            ste=(one_type,) if one_type else self._known(label.ste, ste, "STE type"),
            chinese_wall=self._known(label.chinese_wall, walls, "Chinese Wall type"),
            colours=(),
            was=None if was == name else was,
            where=self._body.findings.where(label.name),
        )

    def _former(self, labels: dict[str, Text]) -> None:
        former = [label.was for label in self._policy.labels if label.was is not None]
        if labels:
            self._body.names.take_new(former, "former label")
        for resource in self._policy.resources:
            if resource.was is not None:
                said = f"resource '{escape(resource.name, 60)}' is a new name; only labels have was"
                self._body.notes.add(resource.was, said)

    def _resources(
        self, scheme: Scheme, ste: dict[str, Text], one_type: str
    ) -> tuple[core.Resource, ...]:
        resources = in_order(self._policy.resources, scheme)
        self._body.names.take_new((resource.name for resource in resources), "resource")
        return tuple(
            core.Resource(
                name=self._body.names.take(resource.name, "resource"),
                ste=one_type or self._only_type(resource, ste),
                colours=(),
                device_class=None,
                match={},
                where=self._body.findings.where(resource.name),
            )
            for resource in resources
        )

    def _only_type(self, resource: AcmResource, ste: dict[str, Text]) -> str:
        if len(set(resource.ste)) != 1:
            said = f"resource '{escape(resource.name, 60)}' needs exactly one STE type"
            self._body.findings.add(resource.name, said)
        known = self._known(resource.ste, ste, "STE type")
        return known[0] if known else ""

    def _known(
        self, texts: Iterable[Text] | None, defined: dict[str, Text], what: str
    ) -> tuple[str, ...]:
        known: dict[str, None] = {}
        for text in texts or ():
            name = self._body.names.take(text, what)
            if name in defined:
                known[name] = None
            else:
                self._body.findings.add(text, f"undefined {what} '{escape(text, 60)}'")
        return tuple(known)
