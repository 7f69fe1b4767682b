"""The machine bites: with any one guard gone it finds what goes wrong."""

from __future__ import annotations

import msgspec
import pytest
from fault_machine import Faults
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from world import ViolationError

from broker.core import consumer, domains
from broker.service import judge, survey
from broker.service.engine import Engine
from broker.service.journal import Journal
from broker.service.judge import Judge


def _noted(journal, lines, *, sign=None):
    """The disk is not waited for."""
    journal.note(lines)


def _closed(reason, life, memory, *, gate_open):
    return consumer._denied(reason, life, memory, final=False, gate_open=gate_open)


def _at_large(policy, lives, *, standings=domains.standings):
    return standings(policy, [msgspec.structs.replace(it, quarantine="") for it in lives])


def _pending(_judge, _device, pending):
    return pending


async def _believed(_store, _suspects):
    """The first look is enough."""


def _nothing(*_):
    """What was to be looked at again is not."""


GUARDS = {
    "records are published before they are on the disk": ((), Journal, "commit", _noted),
    "a grant opens any life of its device": ((), consumer, "_why_not_ours", _nothing),
    "a relabelled domain keeps its grants": ((), Engine, "relabelled", _nothing),
    "another policy leaves open what was granted": ((), Engine, "policy_changed", _nothing),
    "what is held apart takes part": ((), judge, "standings", _at_large),
    "what is not answered is closed": (("forgery",), consumer, "_unanswered", _closed),
    "a denial is covered by what closes nothing": ((), Judge, "_withheld", _pending),
    "a guest is blamed at first sight": ((), survey, "make_sure", _believed),
}
"""The faults that bring it up, what is taken away, and what is there instead."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("guard", GUARDS)
def test_without_this_guard_a_violation_is_found(guard, monkeypatch):
    faults, owner, name, instead = GUARDS[guard]
    monkeypatch.setattr(owner, name, instead)

    class Unguarded(Faults):
        only = faults

    with pytest.raises(ViolationError):
        run_state_machine_as_test(
            Unguarded,
            settings=settings(
                max_examples=400,
                stateful_step_count=30,
                phases=[Phase.generate],
                print_blob=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
