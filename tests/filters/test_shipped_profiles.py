"""Each shipped profile on frames written down byte by byte: which verdict, by which rule.

`cases/<profile>.jsonl` has a frame a line, for a vif with the variables below.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.filters.bind import bind
from broker.filters.evaluate import Asking, evaluate
from broker.filters.frame import Frame
from broker.filters.library import load_library

SHIPPED = Path(__file__).parents[2] / "etc/filters"
CASES = Path(__file__).parent / "cases"
GIVEN = {
    "MAC": ["00:16:3e:00:00:05"],
    "IP": ["10.0.0.5"],
    "IPV6": ["2001:db8::5"],
    "LINK_LOCAL": ["fe80::216:3eff:fe00:5"],
    "DHCP_SERVER": ["10.0.0.1-10.0.0.2"],
    "GATEWAY_MAC": ["00:16:3e:00:00:01"],
    "GATEWAY": ["10.0.0.1"],
    "GATEWAY_V6": ["fe80::1"],
}
NAMES = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
LIBRARY = load_library({path.name: path.read_bytes() for path in SHIPPED.glob("*.yaml")})


def cases():
    for name in NAMES:
        for line in (CASES / f"{name}.jsonl").read_text().splitlines():
            case = json.loads(line)
            yield pytest.param(name, case, id=f"{name}: {case['name']}")


def outcome(name, frame, direction, **options):
    environment, _ = bind(LIBRARY, [name], GIVEN)
    asking = Asking(LIBRARY, environment, direction, Frame(frame), **options)
    return evaluate(asking, [name])


def test_these_are_shipped():
    assert NAMES == [
        "clean-traffic",
        "isolated",
        "no-arp-spoofing",
        "no-broadcast",
        "no-ip-spoofing",
        "no-ipv6-nd-spoofing",
        "no-mac-spoofing",
        "no-multicast",
        "no-rogue-dhcp",
        "no-rogue-ra",
        "rate-limited",
    ]


@pytest.mark.parametrize(("name", "case"), list(cases()))
def test_a_frame_has_its_verdict_by_its_rule(name, case):
    found = outcome(name, bytes.fromhex(case["frame"]), case["direction"])
    assert (found.verdict, found.rule) == (case["verdict"], case["rule"])
    profile = found.rule.partition("/")[0]
    assert found.where.startswith(f"{profile}.yaml:")


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_and_every_default_speaks_in_some_case(name):
    lines = (CASES / f"{name}.jsonl").read_text().splitlines()
    spoke = {json.loads(line)["rule"] for line in lines}
    rules = {rule.name for rule in LIBRARY.profiles[name].rules()}
    assert rules <= spoke


@pytest.mark.parametrize("direction", ["from-guest", "to-guest"])
def test_what_comes_too_fast_is_dropped(direction):
    found = outcome("rate-limited", bytes(60), direction, within=False)
    assert (found.verdict, found.rule) == ("drop", "rate-limited/default")
