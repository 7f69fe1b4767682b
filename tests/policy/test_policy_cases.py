"""Each case: a policy, what is asked of it, the wanted verdict and all wanted reasons."""

from pathlib import Path

import pytest
import yaml

from broker.policy.load import load_policy

CASES = Path(__file__).parents[1] / "data" / "policy-cases"


def _cases():
    for path in sorted(CASES.glob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        for number, case in enumerate(document["cases"]):
            asked = next(key for key in ("decide", "admit", "frames") if key in case)
            name = f"{path.stem}-{number}-{asked}-{case[asked]}"
            yield pytest.param(document["policy"], asked, case, id=name)


@pytest.mark.parametrize(("policy_text", "asked", "case"), list(_cases()))
def test_the_wanted_verdict_for_the_wanted_reasons(policy_text, asked, case):
    policy = load_policy(policy_text.encode(), "P")
    arguments = case[asked]
    ask = {"decide": policy.explain, "admit": policy.admit, "frames": policy.frames}[asked]
    verdict = ask(*arguments)
    said = [f"{reason.rule}: {reason.text} ({reason.where})" for reason in verdict.reasons]
    assert ("grant" if verdict.granted else "deny", said) == (case["verdict"], case["reasons"])
    if asked == "decide":
        assert policy.decide(*arguments) is verdict.granted


def test_there_are_cases():
    assert len(list(_cases())) > 50
