"""`filters:` of labels and groups to what they attach; what a profile is, its library knows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from broker.core.definition import GROUP, Attached
from broker.policy.form import AttachForm, GroupForm
from broker.policy.rules import listed
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.policy.findings import Findings
    from broker.policy.form import Filters, PolicyForm
    from broker.text.marked_yaml import Text

MOST: Final = 16
"""Profiles that one vif can have."""
_PROFILE: Final = re.compile(r"[a-z][a-z0-9-]{0,47}")
_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,31}")
_VALUE: Final = re.compile(r"[A-Za-z0-9.:/-]{1,80}")


def read_filters(form: PolicyForm, findings: Findings) -> Mapping[str, tuple[Attached, ...]]:
    """What each label, and each group (`group:NAME`), attaches."""
    found: dict[str, tuple[Attached, ...]] = {}
    for name, label in form.labels.items():
        found[str(name)] = tuple(_attached(label.filters, findings))
    for name, group in form.groups.items():
        if isinstance(group, GroupForm):
            found[GROUP + name] = tuple(_attached(group.filters, findings))
    return {name: attached for name, attached in found.items() if attached}


def _attached(filters: Filters, findings: Findings) -> Iterable[Attached]:
    if len(filters) > MOST:
        last = filters[MOST]
        findings.add(last, f"more than {MOST} filter profiles: no vif can have them all")
    for entry in filters:
        profile = entry.profile if isinstance(entry, AttachForm) else entry
        if not _PROFILE.fullmatch(profile):
            findings.add(
                profile,
                f"'{escape(profile, 60)}' is not a filter profile's name: small letters, digits "
                "and -, beginning with a letter",
            )
        given = _given(entry, findings) if isinstance(entry, AttachForm) else {}
        yield Attached(str(profile), given, findings.where(profile))


def _given(form: AttachForm, findings: Findings) -> dict[str, tuple[str, ...]]:
    given: dict[str, tuple[str, ...]] = {}
    for name, values in form.given.items():
        if not _VARIABLE.fullmatch(name):
            said = escape(name, 60)
            findings.add(name, f"'{said}' is not a variable's name: capitals, digits and _")
        texts: tuple[Text, ...] = listed(values)
        for text in texts:
            if not _VALUE.fullmatch(text):
                said = escape(text, 60)
                findings.add(text, f"'{said}' is no value of a filter's variable")
        given[str(name)] = tuple(map(str, texts))
    return given
