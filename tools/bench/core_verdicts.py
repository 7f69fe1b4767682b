"""Verdicts a second of the policy core: names in, verdict out, in one process.

At each size N: N labels, N resources, N rules (half allow disks, a quarter deny disks, a quarter
deny network peers), and requests drawn at random from all labels. Beside it pycasbin and cedarpy
(policies and entities parsed beforehand) with the same rules, as far as they get in seconds.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from typing import TYPE_CHECKING, Any

import casbin
import cedarpy

from broker.policy.load import load_policy
from tools.bench.item import item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZES = (10, 100, 1_000, 10_000)
REQUIRED = 1_000_000.0
"""Verdicts a second that the core has to reach at every size."""
_REQUESTS = 20_000
_ROUNDS = 9
_PEER_SECONDS = 1.0
_CASBIN_MODEL = """\
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act, eft
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = r.sub == p.sub && r.obj == p.obj && r.act == p.act
"""

Request = tuple[str, str, str, "str | None", str]


def items() -> Iterator[dict[str, Any]]:
    """The core at each size, and the loading of the largest policy."""
    for size in SIZES:
        policy = load_policy(policy_text(size), f"{size}.yaml")
        asked = requests(size)
        rate = statistics.median(_rate(policy.decide, asked) for _ in range(_ROUNDS))
        beside = f"pycasbin {_casbin(size):,.0f}/s"
        beside += f", cedarpy {_cedar(size):,.0f}/s"
        yield item(
            f"core-verdicts-{size}",
            rate,
            "verdicts/s",
            floor=REQUIRED,
            target=1.0,
            beside=beside,
            throughput=True,
        )
    text = policy_text(SIZES[-1])
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        load_policy(text, "load.yaml")
        taken.append(time.perf_counter() - began)
    yield item(
        f"core-verdicts-load-{SIZES[-1]}", statistics.median(taken), "s", floor=2.0, target=1.0
    )


def policy_text(size: int) -> bytes:
    """A policy of `size` labels, resources and rules, with a type for every ten labels."""
    types = [f"t{number}" for number in range(max(4, size // 10))]
    every = ", ".join(types)
    lines = [
        "policy: bench",
        'version: "1.0"',
        f"ste_types: [{every}]",
        "bootstrap: dom0",
        "labels:",
        f"  dom0: {{ste: [{every}]}}",
    ]
    lines += [f"  l{n}: {{ste: [t{n % len(types)}, t{(n + 1) % len(types)}]}}" for n in range(size)]
    lines.append("resources:")
    lines += [
        f'  r{n}: {{ste: [t{n % len(types)}], match: {{class: vbd, params: "/dev/vg/l{n}-*"}}}}'
        for n in range(size)
    ]
    lines += ["classes:", "  vif: {default: ste}", "  vbd: {default: deny}", "channels:"]
    for n in range(size):
        who = f"frontend: l{n}"
        lines.append(
            (
                f"  - {{allow: {{class: vbd, {who}, backend: dom0, resource: r{n}}}}}",
                f"  - {{allow: {{class: vbd, {who}, backend: dom0}}}}",
                f"  - {{deny: {{class: vif, {who}, backend: l{n * 3 % size}, reason: no {n}}}}}",
                f"  - {{deny: {{class: vbd, {who}, resource: r{(n + 7) % size}, mode: w}}}}",
            )[n % 4]
        )
    return ("\n".join(lines) + "\n").encode()


def requests(size: int) -> list[Request]:
    """Random requests; about half are granted."""
    draw = random.Random(size)
    made: list[Request] = []
    for _ in range(_REQUESTS):
        n = draw.randrange(size)
        if draw.random() < 0.5:
            peer = "dom0" if draw.random() < 0.5 else f"l{draw.randrange(size)}"
            made.append(("vif", f"l{n}", peer, None, "w"))
        else:
            disk = f"r{(n + draw.choice((0, 0, 7))) % size}"
            made.append(("vbd", f"l{n}", "dom0", disk, draw.choice("rw")))
    return made


def _rate(decide: Callable[..., bool], asked: list[Request]) -> float:
    began = time.perf_counter()
    for device_class, frontend, backend, resource, mode in asked:
        decide(device_class, frontend, backend, resource, mode)
    return len(asked) / (time.perf_counter() - began)


def _casbin(size: int) -> float:
    model = casbin.Model()
    model.load_model_from_text(_CASBIN_MODEL)
    enforcer = casbin.Enforcer(model)
    enforcer.add_policies(
        [[f"l{n}", f"r{n}", "vbd", "deny" if n % 4 > 1 else "allow"] for n in range(size)]
    )
    return _peer(lambda n: enforcer.enforce(f"l{n}", f"r{n}", "vbd"), size)


def _cedar(size: int) -> float:
    text = "".join(
        f'{"forbid" if n % 4 > 1 else "permit"}(principal == Label::"l{n}", '
        f'action == Action::"vbd", resource == Disk::"r{n}");\n'
        for n in range(size)
    )
    policies = cedarpy.PolicySet.from_str(text)
    entities = cedarpy.Entities.from_json_str(json.dumps([]))

    def ask(n: int) -> object:
        request = {
            "principal": f'Label::"l{n}"',
            "action": 'Action::"vbd"',
            "resource": f'Disk::"r{n}"',
            "context": {},
        }
        return cedarpy.is_authorized(request, policies, entities)

    return _peer(ask, size)


def _peer(ask: Callable[[int], object], size: int) -> float:
    """Answers a second, for as long as a peer may take."""
    draw = random.Random(size)
    ask(0)
    count = 0
    began = time.perf_counter()
    while time.perf_counter() - began < _PEER_SECONDS:
        ask(draw.randrange(size))
        count += 1
    return count / (time.perf_counter() - began)
