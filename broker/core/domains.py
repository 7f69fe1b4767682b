"""Which domains may run together: labels, the Chinese Wall, two lives of one uuid.

Domains are judged in their order of admission; who came first stays, who came later is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from broker.core.channels import Standing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.core.policy import Policy, Verdict

LABELLED: Final = "labelled"
UNLABELLED: Final = "unlabelled"
REFUSED: Final = "refused"


class Life(msgspec.Struct, frozen=True):
    """One domain's life, from its appearance to its release.

    `label` is the one assigned to it, if any; `problem` says what is wrong with its identity
    (a uuid that is none); `quarantine` why it is held apart.
    """

    domid: int
    uuid: str | None
    label: str | None
    problem: str = ""
    quarantine: str = ""


def standings(policy: Policy | None, lives: Iterable[Life]) -> dict[int, Standing]:
    """How each domain stands, judged one after another in the order of admission.

    A refused domain does not count against those after it; domid 0 has the bootstrap label.
    """
    result: dict[int, Standing] = {}
    first_of_uuid: dict[str, int] = {}
    running: dict[str, None] = {}
    admissions: dict[str, Verdict] = {}  # of a label beside the labels that run now
    for life in lives:
        standing = _without_wall(policy, life, first_of_uuid)
        if life.domid == 0 and standing.label is not None:
            running[standing.label] = None  # it always runs, whatever its types
        elif standing.good and policy is not None and standing.label is not None:
            label = standing.label
            verdict = admissions.get(label)
            if verdict is None:
                verdict = admissions[label] = policy.admit(tuple(running), label)
            if not verdict.granted:
                reason = "; ".join([reason.text for reason in verdict.reasons])
                standing = Standing(label, REFUSED, reason)
            elif label not in running:
                running[label] = None
                admissions.clear()
        if life.uuid is not None:
            first_of_uuid.setdefault(life.uuid, life.domid)
        result[life.domid] = standing
    return result


def _without_wall(policy: Policy | None, life: Life, first_of_uuid: dict[str, int]) -> Standing:
    if policy is None:
        return Standing(None, UNLABELLED, "no policy is in force")
    if life.domid == 0:
        return Standing(policy.bootstrap, LABELLED, "")
    if life.uuid is None:
        return Standing(None, UNLABELLED, life.problem or "it has no uuid")
    elder = first_of_uuid.get(life.uuid)
    if elder is not None:
        reason = f"its uuid already runs as domain {elder}"
        return Standing(life.label, REFUSED, reason, shadow=True)
    if life.label is None:
        return Standing(None, UNLABELLED, life.problem or "no label is assigned to it")
    if not policy.has_label(life.label):
        return Standing(None, UNLABELLED, f"label {life.label} is not in policy {policy.name}")
    if life.quarantine:
        return Standing(life.label, REFUSED, f"quarantined: {life.quarantine}", quarantined=True)
    return Standing(life.label, LABELLED, "")
