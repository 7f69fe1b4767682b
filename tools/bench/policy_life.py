"""A large policy's life: checked, compiled, compared. 1,000 labels and types, 10,000 rules.

`policy-swap` is what a load costs once the text is parsed: compiling it, and judging 5,000
channels of 1,000 domains anew, as a policy that is put in force does. Seconds are the processor's,
which one process alone takes.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, Final

from broker.core.difference import difference
from broker.core.policy import Policy
from broker.policy.load import check_policy, load_policy
from tools.bench.item import item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LABELS: Final = 1_000
RULES: Final = 10_000
_CHANNELS: Final = 5_000
_ROUNDS: Final = 3


def items() -> Iterator[dict[str, Any]]:
    """Checking, swapping in and comparing, each against the seconds it may take."""
    old, new = policy_text("1.0"), policy_text("1.1")
    before, after = load_policy(old, "old.yaml"), load_policy(new, "new.yaml")
    for name, seconds, work in (
        ("policy-check", 2.0, lambda: check_policy(new, "new.yaml")),
        ("policy-swap", 1.0, lambda: _swap(after)),
        ("policy-diff", 2.0, lambda: difference(before, after)),
    ):
        yield item(name, _median(work), "s", floor=seconds, target=1.0)


def policy_text(version: str) -> bytes:
    """The policy; another version has every hundredth rule the other way round."""
    types = [f"t{number}" for number in range(LABELS)]
    every = ", ".join(types)
    lines = [
        "policy: bench",
        f'version: "{version}"',
        f"ste_types: [{every}]",
        "bootstrap: dom0",
        "labels:",
        f"  dom0: {{ste: [{every}]}}",
    ]
    lines += [f"  l{n}: {{ste: [t{n}, t{(n + 1) % LABELS}]}}" for n in range(LABELS - 1)]
    lines += ["classes:", "  vif: {default: ste}", "channels:"]
    for number in range(RULES):
        front = number % (LABELS - 1)
        back = (number * 7 + number // LABELS) % (LABELS - 1)
        turned = version != "1.0" and number % 100 == 0
        kind = "allow" if (number % 2 == 0) is not turned else "deny"
        lines.append(f"  - {{{kind}: {{class: vif, frontend: l{front}, backend: l{back}}}}}")
    return ("\n".join(lines) + "\n").encode()


def _swap(parsed: Policy) -> int:
    policy = Policy(parsed.definition)
    return sum(
        policy.explain("vif", f"l{n % (LABELS - 1)}", "dom0").granted for n in range(_CHANNELS)
    )


def _median(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken)
