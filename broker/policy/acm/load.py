"""ACM's files to a policy of ours in YAML: read, adopted, written, and read back as a proof."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from broker.policy.acm import adopt
from broker.policy.acm.map_check import differences
from broker.policy.acm.map_file import read_map
from broker.policy.acm.names import adopted
from broker.policy.acm.numbering import SCHEMES
from broker.policy.acm.read import read_acm
from broker.policy.acm.resource_file import read_resources
from broker.policy.findings import Findings
from broker.policy.load import load_policy
from broker.policy.write import policy_text
from broker.text.escape import escape
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.core.definition import Definition, Resource
    from broker.core.policy import Policy
    from broker.policy.acm.document import AcmPolicy
    from broker.policy.acm.numbering import Scheme
    from broker.policy.acm.read import Source
    from broker.policy.acm.resource_file import LabelledResource

CLASSES: Final = ("vif", "vbd")
_NUMBERED: Final[dict[Scheme, str]] = {
    "document": "the order of the XML, as the C compiler did (to 2007)",
    "alphabetical": "alphabetical order, as the Python compiler did (from 2007)",
}


class Imported(msgspec.Struct, frozen=True):
    """A policy in YAML, what it compiles to, and remarks on what is not as it was."""

    text: str
    policy: Policy
    notes: tuple[Problem, ...]


def import_acm(
    policy: Source,
    *,
    labels: Source | None = None,
    resources: Source | None = None,
    numbering: Scheme | None = None,
    map_file: Source | None = None,
    accept: frozenset[str] = frozenset(),
    classes: Sequence[str] = CLASSES,
) -> Imported:
    """The policy in ACM's XML, as YAML that `load_policy` takes.

    `labels` is the template of a policy of 2005, `resources` xend's resource_labels, `map_file`
    what a compiler wrote: it settles the numbering, or must agree with it. Without either labels
    are numbered as in the document. `accept` holds words of `adopt.ACCEPTABLE`.

    Raises:
        ProblemsError: with everything that was wrong, in the file where it is.
    """
    document, where = read_acm(policy, labels, accept_foreign=adopt.FOREIGN_LABELS in accept)
    given = None if map_file is None else read_map(map_file.data, map_file.name)
    scheme = numbering or "document"
    if given is not None and numbering is None:
        schemes = (it for it in SCHEMES if not differences(document, it, given, accept))
        scheme = next(schemes, scheme)
    adoption = adopt.Adoption(document, accept, policy.name, where)
    definition = adoption.definition(scheme, classes)
    if adoption.problems:
        raise ProblemsError(adoption.problems)
    remarks = adoption.notes
    if given is not None and map_file is not None:
        different = differences(document, scheme, given, accept)
        if different:
            raise ProblemsError(Problem(map_file.name, 1, 1, said) for said in different)
    if resources is not None:
        read = read_resources(resources.data, resources.name, str(document.name))
        definition = _matched(definition, read.resources, accept, Findings(resources.name))
        remarks += read.notes
    comments = {
        (section, adopted(name, accept)): said
        for (section, name), said in document.comments.items()
    }
    text = policy_text(definition, _heading(document, policy, scheme), comments)
    try:
        loaded = load_policy(text.encode("utf-8"), policy.name)
    except ProblemsError as error:
        # Places in the YAML that nobody has seen would only mislead.
        said = "cannot be a policy here: " + "; ".join(it.message for it in error.problems[:5])
        raise ProblemsError([Problem(policy.name, 1, 1, said)]) from None
    return Imported(text, loaded, tuple(sorted(set(remarks))))


def _heading(document: AcmPolicy, policy: Source, scheme: Scheme) -> list[str]:
    dated = f", {escape(document.date, 40)}" if document.date else ""
    file = escape(policy.name.rpartition("/")[2], 80)
    return [
        *document.comments.get(("policy", ""), ()),
        f"Imported from the ACM policy {file}{dated}.",
        f"Labels are numbered in {_NUMBERED[scheme]}.",
        "",
        "What ACM decided holds: who shares an STE type may share a channel, a resource goes to",
        "who has its type; here the backend needs that type too. Where a resource has no match",
        "yet, add one: a disk that matches no resource is denied.",
    ]


def _matched(
    definition: Definition,
    labelled: Sequence[LabelledResource],
    accept: frozenset[str],
    findings: Findings,
) -> Definition:
    """The policy with a match for every labelled disk; further disks of a label come last."""
    known = {resource.name for resource in definition.resources}
    paths: dict[str, list[str]] = {}
    for disk in labelled:
        name = adopted(disk.label, accept)
        paths.setdefault(name, []).append(disk.path)
        if name not in known:
            said = f"resource label '{escape(disk.label, 60)}' is not in the policy"
            findings.add(disk.key, said)
    if findings.problems:
        raise ProblemsError(findings.problems)
    first: list[Resource] = []
    more: list[Resource] = []
    for resource in definition.resources:
        name = resource.name
        made = []
        for path in paths.get(resource.name, ()):
            match = {"params": path}
            made.append(replace(resource, name=name, device_class="vbd", match=match))
            known.add(name)
            # Numbers of further disks of one label: those not taken.
            name = next(it for n in count(2) if (it := f"{resource.name}-{n}") not in known)
        first.append(made[0] if made else resource)
        more += made[1:]
    return replace(definition, resources=(*first, *more))
