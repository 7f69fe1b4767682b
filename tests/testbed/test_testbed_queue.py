"""Which scenario a machine of the test bed takes next."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tools.testbed.runner import Queue
from tools.testbed.scenarios import ORDER


def test_a_machine_takes_what_it_need_not_be_booted_for():
    queue = Queue(["guide", "domain/same_label", "same_label"])
    assert queue.next("dom0") == "same_label"
    assert queue.next("domain") == "domain/same_label"
    assert queue.next("nowhere") == "guide"


def test_a_machine_takes_another_when_nothing_fits():
    queue = Queue(["guide"])
    assert queue.next("dom0") == "guide"
    assert queue.next("dom0") is None


def test_all_are_taken_once():
    queue = Queue(ORDER)
    taken = []
    while (name := queue.next("dom0")) is not None:
        taken.append(name)
    assert sorted(taken) == sorted(ORDER)
