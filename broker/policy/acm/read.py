"""ACM's XML, one file or (2005) two, to what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.policy.acm.document import AcmConflict, AcmLabel, AcmPolicy, AcmResource
from broker.policy.acm.schema import DEFINITION, NAMESPACE, TEMPLATE, validate
from broker.policy.findings import Findings
from broker.text.escape import escape
from broker.text.marked_yaml import Text
from broker.text.problems import ProblemsError
from broker.text.xml_tree import read_xml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.text.xml_tree import Element

_POLICY_SUFFIX: Final = "-security_policy"
_LONGEST_COMMENT: Final = 200
_FILE_SUFFIX: Final = f"{_POLICY_SUFFIX}.xml"


class Source:
    """A file that was given: its bytes, and its name in messages."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name


def read_acm(
    policy: Source, template: Source | None, *, accept_foreign: bool = False
) -> tuple[AcmPolicy, str]:
    """What the files say, and which file the labels are in.

    `template` holds the labels where the policy does not; `accept_foreign` takes one that says
    it belongs to another policy.

    Raises:
        ProblemsError: with all that is not as ACM's schema has it.
    """
    definition = _root(policy, "SecurityPolicyDefinition")
    findings = Findings(policy.name)
    validate(definition, DEFINITION, findings)
    labels = _child(definition, "SecurityLabelTemplate")
    in_labels = findings
    header = _child(definition, "PolicyHeader")
    name = _policy_name(header, findings)
    if template is not None:
        if labels is not None:
            findings.add(labels.text, f"labels are here and in {template.name}; give one of them")
        labels = _root(template, "SecurityLabelTemplate")
        in_labels = Findings(template.name)
        validate(labels, TEMPLATE, in_labels)
        if not accept_foreign:
            _same_policy(labels, name, in_labels)
    elif labels is None:
        findings.add(
            definition.text,
            "no SecurityLabelTemplate: policies of 2005 have it in a file of its own "
            "(--labels NAME-security_label_template.xml)",
        )
    problems = [*findings.problems, *(in_labels.problems if in_labels is not findings else ())]
    if problems or header is None or labels is None:
        raise ProblemsError(problems)
    document = _document(definition, header, name, labels, in_labels)
    if in_labels.problems:
        raise ProblemsError(in_labels.problems)
    return document, in_labels.source


def _root(source: Source, wanted: str) -> Element:
    root = read_xml(source.data, source.name, NAMESPACE, "ACM's policies")
    if root.name != wanted:
        findings = Findings(source.name)
        findings.add(root.text, f"expected {wanted}, found {escape(root.name, 60)}")
        raise ProblemsError(findings.problems)
    return root


def _document(
    definition: Element, header: Element, name: Text, labels: Element, findings: Findings
) -> AcmPolicy:
    ste = _child(definition, "SimpleTypeEnforcement")
    wall = _child(definition, "ChineseWall")
    subjects = _child(labels, "SubjectLabels")
    objects = _child(labels, "ObjectLabels")
    several: list[Text] = []
    bootstrap = Text("")
    if subjects is None or "bootstrap" not in subjects.attributes:
        place = labels if subjects is None else subjects
        findings.add(place.text, "no bootstrap label: which label is domain 0's?")
    else:
        bootstrap = subjects.attributes["bootstrap"]
    return AcmPolicy(
        name=name,
        version=_text(header, "Version"),
        replaces=_replaces(header),
        date=_text(header, "Date") or "",
        ste_types=_types(ste, "SimpleTypeEnforcementTypes"),
        chinese_wall_types=_types(wall, "ChineseWallTypes"),
        conflicts=list(_conflicts(wall)),
        bootstrap=bootstrap,
        labels=[
            AcmLabel(
                _name(label),
                _was(label),
                _types(label, "SimpleTypeEnforcementTypes", several),
                _types(label, "ChineseWallTypes", several),
            )
            for label in (subjects.children if subjects else ())
        ],
        resources=[
            AcmResource(
                _name(resource),
                _was(resource),
                _types(resource, "SimpleTypeEnforcementTypes", several) or [],
            )
            for resource in (objects.children if objects else ())
        ],
        primary={
            name: part.attributes["priority"]
            for name, part in (("STE", ste), ("CHWALL", wall))
            if part is not None and part.attributes
        },
        several_lists=several,
        comments=_comments(definition, ste, wall, subjects, objects),
    )


def _comments(
    definition: Element,
    ste: Element | None,
    wall: Element | None,
    subjects: Element | None,
    objects: Element | None,
) -> dict[tuple[str, str], list[str]]:
    """What the author wrote about the whole, types, conflict sets, labels and resources."""
    found = {("policy", ""): _told(definition)}
    types = (("ste_types", ste), ("chinese_wall_types", wall))
    for section, component in types:
        lists = component.children[:1] if component is not None else []
        for each in lists:
            found.update({(section, str(it.text)): _told(it) for it in each.children})
    sets = None if wall is None else _child(wall, "ConflictSets")
    for conflict in sets.children if sets is not None else ():
        found["conflict_sets", str(conflict.attributes.get("name", ""))] = _told(conflict)
    for section, held in (("labels", subjects), ("resources", objects)):
        for label in held.children if held is not None else ():
            name = _child(label, "Name")
            said = _told(label) + (_told(name) if name is not None else [])
            found[section, str(_name(label))] = said
    return {key: said for key, said in found.items() if said}


def _told(element: Element) -> list[str]:
    """The comments on an element, each in one printable line; rulers and empty ones left out."""
    lines = []
    for comment in element.comments:
        text = " ".join("".join(c if c.isprintable() else " " for c in comment).split())
        if any(c.isalnum() for c in text):
            lines.append(text[:_LONGEST_COMMENT])
    return lines


def _policy_name(header: Element | None, findings: Findings) -> Text:
    if header is None:
        return Text("")
    name = _text(header, "PolicyName")
    old = _text(header, "Name")
    if name is None and old is not None:
        # The C compiler called a policy by its file's name, which stood here.
        return Text(old.removesuffix(_POLICY_SUFFIX), old.line, old.column)
    if name is None:
        findings.add(header.text, "PolicyHeader lacks its PolicyName")
        return Text("")
    return name


def _same_policy(labels: Element, name: Text, findings: Findings) -> None:
    header = _child(labels, "LabelHeader")
    for kind in ("PolicyName", "PolicyReference"):
        reference = None if header is None else _child(header, kind)
        url = None if reference is None else _text(reference, "Url")
        if url is not None and url.rpartition("/")[2].removesuffix(_FILE_SUFFIX) != name:
            findings.add(
                url,
                f"these labels are for '{escape(url, 60)}', not for policy '{escape(name, 60)}' "
                "(--accept foreign-labels takes them)",
            )


def _replaces(header: Element) -> tuple[Text, Text] | None:
    replaced = _child(header, "FromPolicy")
    if replaced is None:
        return None
    place = Text("", replaced.line, replaced.column)
    return _text(replaced, "PolicyName") or place, _text(replaced, "Version") or place


def _conflicts(wall: Element | None) -> Iterator[AcmConflict]:
    sets = None if wall is None else _child(wall, "ConflictSets")
    for number, conflict in enumerate(sets.children if sets else (), 1):
        unnamed = Text(f"conflict_{number}", conflict.line, conflict.column)
        yield AcmConflict(conflict.attributes.get("name", unnamed), _type_texts(conflict))


def _name(label: Element) -> Text:
    name = _text(label, "Name")
    return Text("", label.line, label.column) if name is None else name


def _was(label: Element) -> Text | None:
    name = _child(label, "Name")
    return None if name is None else name.attributes.get("from")


def _types(
    element: Element | None, kind: str, several: list[Text] | None = None
) -> list[Text] | None:
    lists = [child for child in (element.children if element else ()) if child.name == kind]
    if not lists:
        return None
    if len(lists) > 1 and several is not None:
        several.append(lists[1].text)
    return [text for each in lists for text in _type_texts(each)]


def _type_texts(element: Element) -> list[Text]:
    # An empty <Type/> is legal, and nothing.
    return [child.text for child in element.children if child.text]


def _child(element: Element, name: str) -> Element | None:
    return next((child for child in element.children if child.name == name), None)


def _text(element: Element, name: str) -> Text | None:
    child = _child(element, name)
    return None if child is None or not child.text else child.text
