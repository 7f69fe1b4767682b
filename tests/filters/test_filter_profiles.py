"""A profile's file: what it means, and everything that can be wrong with it, at its place."""

from __future__ import annotations

from itertools import pairwise

import pytest

from broker.filters.bind import BindError, bind, tuples
from broker.filters.evaluate import Asking, evaluate
from broker.filters.frame import Frame
from broker.filters.library import load_library
from broker.filters.load import MAX_BYTES, MAX_STEPS, load_profile
from broker.filters.model import Include, Use
from broker.filters.values import Masked, Rate, Span, parse_rate, parse_value, show
from broker.text.problems import ProblemsError

HEAD = "profile: p\ndescription: d\ndefault: drop\n"


def load(body="", head=HEAD):
    return load_profile((head + body).encode(), "p.yaml")


def problems(body, head=HEAD):
    with pytest.raises(ProblemsError) as caught:
        load(body, head)
    return [str(it) for it in caught.value.problems]


def rule(text, variables=""):
    return f"{variables}rules:\n  - {{{text}}}\n"


def test_a_profile_says_its_rules_in_order_of_priority_then_of_the_file():
    profile = load(
        "rules:\n"
        "  - {accept: both, match: {ether.type: ipv4}, priority: 5}\n"
        "  - {include: other, priority: -5}\n"
        "  - {drop: from-guest, match: {ether.type: arp}}\n"
        "  - {drop: to-guest, match: {ether.type: rarp}, reason: old}\n"
    )
    assert [step.number for step in profile.steps] == [2, 3, 4, 1]
    include, first, second, _ = profile.steps
    assert isinstance(include, Include)
    assert list(profile.includes()) == ["other"]
    assert (first.name, first.directions, first.where) == ("p/3", ("from-guest",), "p.yaml:7:5")
    assert second.reason == "old"
    assert profile.default == {"from-guest": "drop", "to-guest": "drop"}
    assert profile.digest.startswith("sha256:")


def test_defaults_may_differ_by_direction():
    head = "profile: p\ndescription: d\ndefault: {from-guest: drop, to-guest: accept}\n"
    assert load("", head).default == {"from-guest": "drop", "to-guest": "accept"}


def test_a_default_is_mandatory_and_one_of_two():
    head = "profile: p\ndescription: d\n"
    assert problems("", head) == ["p.yaml:1:1: 'default' is missing"]
    said = problems("default: maybe\n", head)
    assert said == ["p.yaml:3:10: expected accept or drop, not 'maybe'"]
    assert "'to-guest' is missing" in problems("default: {from-guest: drop}\n", head)[0]


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (rule("accept: both, match: {ip.sadr: 10.0.0.1}"), "5:28: unknown field 'ip.sadr'; did"),
        (rule("accept: both, match: {ip.saddr: $IP}"), "5:38: variable IP is not defined"),
        (rule("accept: both, match: {ip.saddr: $ip}"), "5:38: '$ip' is no use of a variable"),
        (rule("accept: both, match: {ip.saddr: [$A, 1.1.1.1]}"), "5:28: a variable stands alone"),
        (rule("accept: both, match: {ip.saddr: 10.0.0.300}"), "5:38: ip.saddr: not an ipv4 addr"),
        (rule("accept: both, match: {ip.saddr: 10.0.0.1/8}"), "5:38: ip.saddr: not an ipv4 net"),
        (rule("accept: both, match: {ip.saddr: 10.0.0.9-10.0.0.1}"), "the range '10.0.0.9-10.0.0"),
        (rule("accept: both, match: {ip6.saddr: 'fe80::1%eth0'}"), "5:39: ip6.saddr: not an ipv6"),
        (rule("accept: both, match: {ether.src: 00:16:3e}"), "5:39: ether.src: not a MAC address"),
        (rule("accept: both, match: {ether.src: 00:00:00:00:00:01/00:00:00:00:00:02}"), "outside"),
        (rule("accept: both, match: {tcp.dport: 65536}"), "5:39: tcp.dport: 65536 does not fit"),
        (rule("accept: both, match: {tcp.dport: http}"), "expected a number, not 'http'"),
        (rule("accept: both, match: {ip.fragment: 1}"), "expected none or first or later, not '1'"),
        (rule("accept: both, match: {ip.protocol: []}"), "an empty list of values never matches"),
        (rule("accept: both, match: {ip.protocol: {a: b}}"), "takes a value or a list, not a map"),
        (rule("accept: both, match: {ip.protocol: [[tcp]]}"), "takes a value or a list of values"),
        (rule("accept: both, drop: both"), "5:5: a rule is one of accept, drop and include"),
        (rule("match: {ip.protocol: tcp}"), "5:5: a rule is one of accept, drop and include"),
        (rule("accept: out"), "5:14: expected from-guest or to-guest or both, not 'out'"),
        (rule("include: other, reason: x"), "5:5: an include has no match, limit or reason"),
        (rule("include: Other"), "5:15: 'Other' cannot name a profile"),
        (rule("accept: both, priority: 1001"), "5:5: a priority is from -1000 to 1000"),
        (rule("accept: both, limit: fast"), "5:27: not a rate: 'fast'"),
        (rule("accept: both, limit: 5000mbytes/second"), "5:27: more than 4 GiB"),
        (
            rule("accept: both, limit: $R", "variables: {R: {type: port}}\n"),
            "type rate; it is port",
        ),
        (rule("accept: both, limit: $R"), "5:27: variable R is not defined"),
        (rule("accept: both", "variables: {ip: {type: ipv4}}\n"), "4:13: 'ip' cannot name a var"),
        (rule("accept: both", "variables: {IP: {type: ipv4}}\n"), "4:13: variable IP is not used"),
        (rule("accept: both", "variables: {IP: {type: ip}}\n"), "expected mac or ipv4 or ipv6"),
        (
            rule("accept: both, match: {ip.saddr: $M}", "variables: {M: {type: mac}}\n"),
            "6:38: ip.saddr takes a variable of type ipv4; $M is mac",
        ),
        (
            rule("accept: both, match: {ip.fragment: $M}", "variables: {M: {type: mac}}\n"),
            "6:41: ip.fragment takes constants alone; $M is mac",
        ),
        (
            rule(
                "accept: both, match: {ip.saddr: $A}", "variables: {A: {type: ipv4, default: x}}\n"
            ),
            "4:38: not an ipv4 address: 'x'",
        ),
        (
            rule(
                "accept: both, match: {ether.src: $A}",
                'variables: {A: {type: mac, default: "00:00:00:00:00:00/ff:00:00:00:00:00"}}\n',
            ),
            "a variable takes addresses and ranges, no masks",
        ),
        (
            rule("accept: both, limit: $R", "variables: {R: {type: rate, default: []}}\n"),
            "4:16: a rate's default is one rate",
        ),
        (
            rule(
                "accept: both, match: {ether.src: $M}", "variables: {M: {type: mac, learn: dhcp}}\n"
            ),
            "only an ipv4 variable without a default can be learned",
        ),
        (
            rule(
                "accept: both, match: {ip.saddr: $A@1}",
                "variables: {A: {type: ipv4, learn: dhcp}}\n",
            ),
            "$A may be learned: it cannot step with another list",
        ),
    ],
)
def test_what_is_wrong_is_said_at_its_place(body, wanted):
    assert wanted in "\n".join(problems(body))


@pytest.mark.parametrize(
    ("match", "wanted"),
    [
        ("{arp.op: request, ip.saddr: 10.0.0.1}", "arp.op and ip.saddr exclude each other"),
        ("{ip.saddr: 10.0.0.1, ip6.saddr: '::1'}", "ip.saddr and ip6.saddr exclude each other"),
        ("{ether.type: arp, ip.saddr: 10.0.0.1}", "ip.saddr and this ether.type exclude"),
        ("{tcp.dport: 1, udp.dport: 1}", "tcp.dport and udp.dport exclude each other"),
        ("{ip.protocol: tcp, udp.dport: 1}", "udp.dport and this ip.protocol exclude"),
        ("{ip6.saddr: '::1', icmp.type: 1}", "ip6.saddr and icmp.type exclude each other"),
        ("{icmpv6.type: redirect, nd.lladdr: none}", "nd.lladdr and this icmpv6.type exclude"),
        ("{vlan.id: 5, ip.saddr: 10.0.0.1}", "vlan.id and ip.saddr exclude each other"),
        ("{ip.fragment: later, udp.dport: 1}", "a later fragment has no udp.dport"),
        ("{udp.sport: 1, udp.dport: 2, dhcp.op: reply}", "dhcp has one of the ports 67 and 68"),
    ],
)
def test_a_rule_that_no_frame_matches_is_said_so(match, wanted):
    (said,) = problems(rule(f"drop: both, match: {match}"))
    assert said.startswith("p.yaml:5:5: no frame matches: ")
    assert wanted in said


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("accept: both", "drop: both"),
        ("accept: both", "include: other"),
        ("drop: both: {ip.saddr: 10.0.0.0/8}", "drop: both: {ip.saddr: 10.0.0.1}"),
        ("accept: both: {ip.saddr: 10.0.0.0/8}", "accept: to-guest: {ip.saddr: 10.0.0.1}"),
        ("drop: both: {ether.type: ipv4}", "accept: both: {tcp.dport: 1, ip.saddr: 1.1.1.1}"),
        ("drop: both: {ip.protocol: tcp}", "accept: both: {tcp.dport: 1, ip.saddr: 1.1.1.1}"),
        ("accept: both: {ether.dst: multicast}", "drop: both: {ether.dst: broadcast}"),
        ("accept: both: {tcp.dport: [1-5, 6-9]}", "accept: both: {tcp.dport: 2-8}"),
        ("accept: both: {ip.saddr: $A}", "accept: both: {ip.saddr: $A@1, ether.src: $M@1}"),
        (
            "accept: both: {ip.saddr: $A@1, ether.src: $M@1}",
            "accept: both: {ip.saddr: $A@2, ether.src: $M@2}",
        ),
    ],
)  # fmt: skip
def test_a_rule_behind_one_that_decides_all_of_it_is_said_so(first, second):
    variables = "variables:\n  A: {type: ipv4}\n  M: {type: mac}\n"
    used = "  - {accept: both, match: {ip.daddr: $A, ether.dst: $M}, limit: 1/second}\n"
    first, second = (it.replace(": {", ", match: {") for it in (first, second))
    body = f"{variables}rules:\n{used}  - {{{first}}}\n  - {{{second}}}\n"
    (said,) = problems(body)
    assert "never reached: the rule at p.yaml:9:5 decides all of it before" in said


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("accept: from-guest", "drop: both"),
        ("accept: both, limit: 1/second", "drop: both"),
        ("accept: both: {ip.saddr: 10.0.0.0/8}", "drop: both: {ip.saddr: 10.0.0.1}"),
        ("accept: both: {ip.saddr: 10.0.0.1}", "accept: both: {ip.saddr: 10.0.0.0/8}"),
        ("drop: both: {ether.type: ipv4}", "drop: both: {ip.saddr: 10.0.0.1}"),
        ("drop: both: {ip.protocol: tcp}", "accept: both: {tcp.dport: 1}"),
        ("drop: both: {tcp.dport: 1}", "accept: both: {tcp.sport: 1}"),
        ("accept: both: {ip.saddr: $A@1, ether.src: $M@1}", "accept: both: {ip.saddr: $A}"),
        ("accept: both: {ip.saddr: $A}", "accept: both: {ip.saddr: 10.0.0.1}"),
    ],
)  # fmt: skip
def test_a_rule_that_something_is_left_for_is_good(first, second):
    variables = "variables:\n  A: {type: ipv4}\n  M: {type: mac}\n"
    used = "  - {accept: both, match: {ip.daddr: $A, ether.dst: $M}, limit: 1/second}\n"
    first, second = (it.replace(": {", ", match: {") for it in (first, second))
    load(f"{variables}rules:\n{used}  - {{{first}}}\n  - {{{second}}}\n")


def test_a_file_and_its_rules_are_bounded():
    assert "at most" in problems("#" * MAX_BYTES)[0]
    steps = "".join(f"  - {{include: a{n}}}\n" for n in range(MAX_STEPS + 1))
    assert f"more than {MAX_STEPS}" in problems(f"rules:\n{steps}")[0]


def library(**files):
    return load_library({f"{name}.yaml": text.encode() for name, text in files.items()})


def profile(name, *steps, variables=""):
    rules = "".join(f"  - {{{step}}}\n" for step in steps)
    body = f"rules:\n{rules}" if steps else ""
    return f"profile: {name}\ndescription: d\ndefault: accept\n{variables}{body}"


def together(**files):
    with pytest.raises(ProblemsError) as caught:
        library(**files)
    return "\n".join(map(str, caught.value.problems))


def test_includes_are_there_and_go_in_no_circle():
    assert "a.yaml:5:15: there is no profile bb; did you mean b?" in together(
        a=profile("a", "include: bb"), b=profile("b")
    )
    said = together(
        a=profile("a", "include: b"), b=profile("b", "include: c"), c=profile("c", "include: a")
    )
    assert "a.yaml:5:15: the includes go round: a -> b -> c -> a" in said
    assert "b.yaml:5:15: the includes go round: b -> c -> a -> b" in said
    assert "go round: a -> a" in together(a=profile("a", "include: a"))
    names = [f"p{n}" for n in range(12)]
    deep = {one: profile(one, f"include: {after}") for one, after in pairwise(names)}
    assert "nested more than 8 deep" in together(**deep, p11=profile("p11"))


def test_many_ways_to_one_profile_are_no_circle_and_take_no_time():
    files = {f"p0-{k}": profile(f"p0-{k}") for k in range(12)}
    for n in range(1, 9):
        below = [f"include: p{n - 1}-{k}" for k in range(12)]
        files |= {f"p{n}-{k}": profile(f"p{n}-{k}", *below) for k in range(12)}
    found = library(**files)
    assert len(found.closure(["p8-0"])) == 12 * 8 + 1
    asking = Asking(found, {}, "from-guest", Frame(bytes(14)))
    assert evaluate(asking, ["p8-0"]).rule == "p8-0/default"


def test_a_profile_is_included_once():
    (said,) = problems("rules:\n  - {include: a}\n  - {include: a}\n")
    assert said == "p.yaml:6:15: a is included already, at p.yaml:5:15"


def test_a_name_is_one_profiles_alone():
    assert "profile a is defined already" in together(a=profile("a"), b=profile("a"))


def test_profiles_that_work_together_declare_a_variable_alike():
    said = together(
        a=profile("a", "include: b", "accept: both, match: {ip.saddr: $X}",
                  variables="variables: {X: {type: ipv4}}\n"),
        b=profile("b", "accept: both, match: {ether.src: $X}",
                  variables="variables: {X: {type: mac}}\n"),
    )  # fmt: skip
    assert "variable X is mac at b.yaml:4:13 and ipv4 at a.yaml:4:13" in said


TWO = profile(
    "a",
    "accept: both, match: {ip.saddr: $X@1, ether.src: $M@1, tcp.dport: $P}",
    variables="variables: {X: {type: ipv4}, M: {type: mac},"
    " P: {type: port, default: ['80', 1-9]}}\n",
)


def test_lists_with_one_iterator_step_together_and_others_alone():
    found = library(a=TWO)
    (step,) = found.profiles["a"].steps
    assert [[match.field for match in group] for group in step.groups()] == [
        ["ip.saddr", "ether.src"],
        ["tcp.dport"],
    ]
    given = {"X": ["10.0.0.1", "10.0.0.2"], "M": ["00:00:00:00:00:0a", "00:00:00:00:00:0b"]}
    environment, learned = bind(found, ["a"], given)
    assert learned == ()
    first, second = step.groups()
    assert tuples(step, first, environment) == (
        (Span(0x0A000001, 0x0A000001), Span(10, 10)),
        (Span(0x0A000002, 0x0A000002), Span(11, 11)),
    )
    assert tuples(step, second, environment) == ((Span(80, 80),), (Span(1, 9),))
    assert str(Use("X", 1)) == "$X@1"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"X": ["10.0.0.1"]}, "variable M (a.yaml:4:30) has no value here"),
        ({"X": ["10.0.0.1"], "M": []}, "a.yaml:6:5: lists that step together differ in length"),
        ({"X": ["x"], "M": []}, "variable X: not an ipv4 address"),
        ({"X": ["10.0.0.1"] * 65, "M": []}, "variable X takes 64 values at most, not 65"),
    ],
)
def test_what_does_not_bind_says_why(given, wanted):
    with pytest.raises(BindError) as caught:
        bind(library(a=TWO), ["a"], given)
    assert wanted in str(caught.value)


def test_a_profile_that_is_not_there_does_not_bind():
    with pytest.raises(BindError, match="no filter profile 'b'"):
        bind(library(a=TWO), ["b"], {})


def test_one_that_needs_a_value_wins_over_one_that_has_a_default():
    found = library(
        a=profile("a", "include: b", "accept: both, match: {ip.saddr: $X}",
                  variables="variables: {X: {type: ipv4, default: 10.0.0.1}}\n"),
        b=profile("b", "accept: both, match: {ip.saddr: $X}",
                  variables="variables: {X: {type: ipv4}}\n"),
    )  # fmt: skip
    with pytest.raises(BindError, match="has no value"):
        bind(found, ["a"], {})


@pytest.mark.parametrize(
    ("text", "wanted", "shown"),
    [
        ("10.0.0.0/8", Span(0x0A000000, 0x0AFFFFFF), "10.0.0.0/8"),
        ("10.0.0.1-10.0.0.6", Span(0x0A000001, 0x0A000006), "10.0.0.1-10.0.0.6"),
        ("10.0.0.1", Span(0x0A000001, 0x0A000001), "10.0.0.1"),
    ],
)
def test_addresses_are_read_and_written(text, wanted, shown):
    value = parse_value("ipv4", text, {}, 32)
    assert value == wanted
    assert show("ipv4", value, {}) == shown


def test_other_values_are_read_and_written():
    group = parse_value("mac", "multicast", {}, 48)
    assert group == Masked(1 << 40, 1 << 40)
    assert show("mac", group, {}) == "01:00:00:00:00:00/01:00:00:00:00:00"
    assert group.holds((1 << 48) - 1)
    assert not group.holds(1)
    assert show("ethertype", Span(0x88CC, 0x88CC), {}) == "0x88cc"
    assert show("protocol", Span(6, 6), {"tcp": 6}) == "tcp"
    assert show("port", Span(1, 9), {}) == "1-9"


def test_rates_are_read_written_and_have_a_burst():
    assert parse_rate("512kbytes/second") == Rate(512 << 10, "bytes", "second")
    assert str(parse_rate("30/minute")) == "30/minute"
    assert str(parse_rate("1kbytes/hour")) == "1024bytes/hour"
    assert parse_rate("1000/second").burst == 200
    assert parse_rate("30/minute").burst == 5
    assert parse_rate("1kbytes/hour").burst == 16384
