"""`channels:` to rules: every name known, and only what a rule of its kind can say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.core.definition import GROUP, Between, Rule
from broker.text.marked_yaml import Text

if TYPE_CHECKING:
    from collections.abc import Collection

    from broker.core.definition import Mode, Verb
    from broker.policy.findings import Findings
    from broker.policy.form import ChannelForm, Names, PolicyForm, RuleForm
    from broker.text.marked_yaml import Marked

ANY: Final = "any"
BETWEEN_CLASS: Final = "vif"
_SIDES: Final = ("frontend", "backend")


class SideReader:
    """Reads what rules and patterns name: classes, labels and groups, resources."""

    def __init__(self, form: PolicyForm, findings: Findings) -> None:
        self._findings = findings
        self._classes: Collection[str] = form.classes.keys()
        self._resources: Collection[str] = form.resources.keys()
        groups = {GROUP + group for group in form.groups}
        self._selectors: Collection[str] = form.labels.keys() | groups

    def classes(self, form: Marked, value: Names) -> tuple[str, ...]:
        """The classes of a rule."""
        return self._named(form, value, self._classes, "class")

    def labels(self, form: Marked, value: Names | None) -> tuple[str, ...] | None:
        """The labels and groups of one side; None for `any`, and where nothing is said."""
        if value is None:
            return None
        texts = listed(value)
        if ANY not in texts:
            return self._named(form, value, self._selectors, "label")
        if len(texts) > 1:
            self._findings.add(next(text for text in texts if text == ANY), "'any' stands alone")
        return None

    def resources(self, form: Marked, value: Names | None) -> tuple[str, ...] | None:
        """The resources of a rule; None where it names none."""
        return None if value is None else self._named(form, value, self._resources, "resource")

    def _named(
        self, form: Marked, value: Names, names: Collection[str], what: str
    ) -> tuple[str, ...]:
        texts = listed(value)
        if not texts:
            self._findings.add(form, f"an empty list of {what} names matches nothing")
        return self._findings.known(texts, names, what)


class RuleReader:
    """Reads the rules of one policy."""

    def __init__(self, form: PolicyForm, findings: Findings) -> None:
        self._findings = findings
        self._labels: Collection[str] = form.labels.keys()
        self._sides = SideReader(form, findings)

    def read(self, number: int, channel: ChannelForm) -> Rule | Between | None:
        """The rule `channels[number]`; None where it says nothing that could be one."""
        if (channel.allow is None) == (channel.deny is None):
            if not channel.partial:
                self._findings.add(channel, "a rule is one 'allow' or one 'deny'")
            return None
        verb: Verb = "deny" if channel.allow is None else "allow"
        form = channel.deny if channel.allow is None else channel.allow
        if form is None:
            return None
        name = f"channels[{number}]"
        where = self._findings.where(channel)
        if form.between is not None:
            return self._between(form, name, verb, where)
        mode: Mode = form.mode or ("w" if verb == "allow" else "r")
        return Rule(
            name=name,
            verb=verb,
            classes=self._sides.classes(form, form.classes),
            frontends=self._side(form, "frontend", verb),
            backends=self._side(form, "backend", verb),
            resources=self._sides.resources(form, form.resource),
            mode=mode,
            reason=str(form.reason or ""),
            where=where,
        )

    def _between(self, form: RuleForm, name: str, verb: Verb, where: str) -> Between | None:
        for key in (*_SIDES, "resource", "mode"):
            value = getattr(form, key)
            if value is not None:
                place = value if isinstance(value, Text) else form
                self._findings.add(place, f"'{key}' does not go with 'between'")
        classes = self._sides.classes(form, form.classes)
        if any(name != BETWEEN_CLASS for name in classes):
            self._findings.add(form, f"'between' is for class {BETWEEN_CLASS} alone")
        pair = form.between or ()
        known = [self._findings.known([text], self._labels, "label") for text in pair]
        if len(pair) != 2:
            self._findings.add(form, "'between' takes two labels (one label twice for itself)")
            return None
        if not all(known):
            return None
        return Between(name, verb, (str(pair[0]), str(pair[1])), str(form.reason or ""), where)

    def _side(self, form: RuleForm, side: str, verb: Verb) -> tuple[str, ...] | None:
        value: Names | None = getattr(form, side)
        if value is None:
            if verb == "allow" and not form.partial:
                self._findings.add(
                    form, f"'{side}' is missing: an allow says who, or '{side}: any'"
                )
            return None
        return self._sides.labels(form, value)


def listed(value: Names | None) -> tuple[Text, ...]:
    """What `value` names: one or several, or (not given) nothing."""
    if value is None:
        return ()
    return (value,) if isinstance(value, Text) else value
