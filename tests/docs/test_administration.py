"""docs/administration.md: the example of roles loads, on the policy that the project ships."""

from __future__ import annotations

import re
from pathlib import Path

from broker.policy.load import check_policy
from broker.rpc.catalogue import METHODS
from broker.rpc.limits import Limits
from broker.service import proposals
from broker.service.policy_checks import unknown_verbs

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "administration.md").read_text()


def test_the_roles_load_and_ask_for_verbs_that_there_are():
    [roles] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    shipped = (ROOT / "etc" / "policy.yaml").read_text()
    policy, _ = check_policy((shipped + roles).encode(), "P")
    assert set(policy.definition.roles) >= {"watcher", "officer", "red_team"}
    assert list(unknown_verbs(policy)) == []
    for verb in re.findall(r"`(policy\.[a-z]+)`", PAGE):
        assert verb == "policy.govern" or any(method.verb == verb for method in METHODS)


def test_the_limits_are_those_of_the_program():
    limits = Limits()
    assert (limits.body, limits.header_bytes, limits.headers) == (1 << 20, 8192, 50)
    assert (limits.request_time, limits.person_connections) == (10, 32)
    assert (limits.person_rate, limits.person_burst) == (50, 200)
    assert (limits.address_rate, limits.address_burst) == (20, 100)
    assert proposals.LIFE == 72 * 3600
