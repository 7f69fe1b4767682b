"""`roles:` to grants: every name known."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from broker.core.definition import GROUP, Grant
from broker.core.roles import LOAD
from broker.policy.rules import SideReader, listed
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Collection

    from broker.policy.findings import Findings
    from broker.policy.form import GrantForm, Names, PolicyForm

RESERVED: Final = "root"
"""The role of local root, which no policy can give or take."""
_VERB: Final = re.compile(r"[a-z]+(\.([a-z]+|\*))?")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class RoleReader:
    """Reads the roles of one policy."""

    def __init__(self, form: PolicyForm, findings: Findings) -> None:
        self._form = form
        self._findings = findings
        self._sides = SideReader(form, findings)
        labels = [colour for label in form.labels.values() for colour in label.colours]
        resources = [c for resource in form.resources.values() for c in listed(resource.colour)]
        self._colours = {*labels, *resources}

    def read(self) -> dict[str, tuple[Grant, ...]]:
        """Every role by name."""
        for name in self._form.roles:
            self._findings.name(name, "role")
            if name == RESERVED:
                self._findings.add(name, f"'{RESERVED}' is local root's role; choose another name")
        return {
            str(name): tuple(self._grant(grant) for grant in grants)
            for name, grants in self._form.roles.items()
        }

    def _grant(self, form: GrantForm) -> Grant:
        findings = self._findings
        verbs = self._verbs(form)
        if form.second_person and not {LOAD, "policy.*"} & set(verbs):
            findings.add(form, f"'second_person' is of {LOAD}, which this grant does not have")
        return Grant(
            verbs=verbs,
            labels=self._labels(form),
            colours=self._colours_of(form),
            classes=None if form.classes is None else self._sides.classes(form, form.classes),
            resources=self._sides.resources(form, form.resource),
            domains=self._domains(form),
            second_person=form.second_person,
            where=findings.where(form),
        )

    def _verbs(self, form: GrantForm) -> tuple[str, ...]:
        verbs = listed(form.verbs)
        if not verbs:
            self._findings.add(form, "a grant without verbs grants nothing")
        for verb in self._findings.once(verbs, "verb"):
            if not _VERB.fullmatch(verb):
                said = escape(verb, 60)
                self._findings.add(
                    verb, f"'{said}' is no verb: a method such as label.set, label.*, or read"
                )
        return tuple(map(str, verbs))

    def _labels(self, form: GrantForm) -> tuple[str, ...] | None:
        """Labels and groups together, as a rule names them."""
        named = self._sides.labels(form, form.label)
        if form.group is None or (named is None and form.label is not None):
            return named
        groups = self._some(form, form.group, self._form.groups, "group")
        return (*(named or ()), *(GROUP + group for group in groups))

    def _colours_of(self, form: GrantForm) -> tuple[str, ...] | None:
        if form.colour is None:
            return None
        return self._some(form, form.colour, self._colours, "colour")

    def _some(
        self, form: GrantForm, value: Names, names: Collection[str], what: str
    ) -> tuple[str, ...]:
        texts = listed(value)
        if not texts:
            self._findings.add(form, f"an empty list of {what} names matches nothing")
        return self._findings.known(texts, names, what)

    def _domains(self, form: GrantForm) -> tuple[str, ...] | None:
        if form.domain is None:
            return None
        texts = listed(form.domain)
        if not texts:
            self._findings.add(form, "an empty list of domains matches nothing")
        for text in self._findings.once(texts, "domain"):
            if text.isdigit():
                self._findings.add(text, "domids are reused: name the domain by its name or uuid")
            elif not text.isprintable() or (_UUID.fullmatch(text.lower()) and text.lower() != text):
                self._findings.add(text, "not a domain's name, or a uuid in capitals")
        return tuple(map(str, texts))
