"""The evaluator's rules: first match, all profiles, and nothing passes by failing to match."""

from __future__ import annotations

from filter_frames_by_hand import MAC, OTHER, arp, ether, ipv4, tagged, tcp, udp
from hypothesis import given
from hypothesis import strategies as st

from broker.filters.bind import bind
from broker.filters.evaluate import NO_PROFILE, Asking, evaluate
from broker.filters.frame import Frame
from broker.filters.library import load_library


def library(**bodies):
    return load_library(
        {
            f"{name}.yaml": f"profile: {name}\ndescription: d\n{body}".encode()
            for name, body in bodies.items()
        }
    )


def verdict(found, names, frame, given=None, **options):
    environment, _ = bind(found, names, given or {})
    options = {"state": "new", "direction": "from-guest", "within": True, **options}
    state = options.pop("state")
    return evaluate(Asking(found, environment, frame=Frame(frame, state), **options), names)


def one(body, frame, **options):
    outcome = verdict(library(p=body), ["p"], frame, **options)
    return outcome.verdict, outcome.rule


FRAME = ether(ipv4(tcp(dport=80), 6))


def test_the_first_rule_that_matches_decides():
    body = (
        "default: drop\nrules:\n"
        "  - {drop: to-guest}\n"
        "  - {accept: both, match: {tcp.dport: 80}, reason: web}\n"
        "  - {drop: both, match: {ip.protocol: tcp}}\n"
    )
    assert one(body, FRAME) == ("accept", "p/2")
    assert one(body, FRAME, direction="to-guest") == ("drop", "p/1")
    assert one(body, ether(ipv4(tcp(dport=81), 6))) == ("drop", "p/3")
    assert one(body, ether(ipv4(udp()))) == ("drop", "p/default")
    assert verdict(library(p=body), ["p"], FRAME).where == "p.yaml:6:5"
    assert verdict(library(p=body), ["p"], FRAME).reason == "web"


def test_all_profiles_of_a_vif_have_to_accept():
    found = library(
        a="default: accept\n",
        b="default: drop\nrules:\n  - {accept: both, match: {ether.type: ipv4}}\n",
    )
    assert verdict(found, ["a", "b"], FRAME).rule == "b/1"
    refused = verdict(found, ["b", "a"], ether(arp(), 0x0806))
    assert (refused.verdict, refused.rule, refused.where) == ("drop", "b/default", "b.yaml:3:10")
    assert verdict(found, [], FRAME) == NO_PROFILE
    assert verdict(found, ["a"], FRAME[:13]).verdict == "drop"


def test_an_include_is_asked_at_its_place():
    found = library(
        a=(
            "default: drop\nrules:\n"
            "  - {accept: both, match: {ether.type: arp}}\n"
            "  - {include: b}\n"
            "  - {accept: both, match: {ether.type: ipv4}}\n"
        ),
        b="default: accept\nrules:\n  - {drop: both, match: {ether.type: [arp, rarp]}}\n",
    )
    assert verdict(found, ["a"], ether(arp(), 0x0806)).rule == "a/1"
    assert verdict(found, ["a"], ether(arp(), 0x8035)).rule == "b/1"
    assert verdict(found, ["a"], FRAME).rule == "a/3"


def test_what_cannot_be_read_is_dropped_by_a_drop_and_not_accepted_by_an_accept():
    drops = (
        "default: accept\nrules:\n  - {drop: both, match: {tcp.dport: 22, ip.saddr: 10.0.0.5}}\n"
    )
    accepts = "default: drop\nrules:\n  - {accept: both, match: {tcp.dport: 22}}\n"
    for frame in (
        ether(ipv4(tcp(dport=22)[:10], 6)),
        ether(ipv4(tcp(dport=22), 6, offset=8)),
        ether(ipv4(tcp(dport=22), 6))[:30],
        tagged(ether(ipv4(tcp(dport=22), 6))),
    ):
        outcome = verdict(library(p=drops), ["p"], frame)
        assert (outcome.verdict, outcome.rule, outcome.unreadable) == ("drop", "p/1", True)
        assert one(accepts, frame) == ("drop", "p/default")
    # One match that says no is enough: this is somebody else's.
    assert one(drops, ether(ipv4(tcp()[:10], 6, src="10.0.0.6"))) == ("accept", "p/default")


def test_a_later_fragment_passes_where_it_is_accepted_before():
    body = (
        "default: accept\nrules:\n"
        "  - {accept: both, match: {ip.fragment: later}}\n"
        "  - {drop: both, match: {tcp.dport: 22}}\n"
    )
    assert one(body, ether(ipv4(bytes(8), 6, offset=8))) == ("accept", "p/1")


def test_fields_that_step_together_match_together():
    body = (
        "default: drop\n"
        "variables: {M: {type: mac}, A: {type: ipv4}}\n"
        "rules:\n  - {accept: both, match: {ether.src: $M@1, ip.saddr: $A@1}}\n"
    )
    given = {"M": [MAC, OTHER], "A": ["10.0.0.5", "10.0.0.6"]}
    for src, address, wanted in (
        (MAC, "10.0.0.5", "accept"),
        (OTHER, "10.0.0.6", "accept"),
        (MAC, "10.0.0.6", "drop"),
        (OTHER, "10.0.0.5", "drop"),
    ):
        frame = ether(ipv4(udp(), src=address), src=src)
        assert one(body, frame, given=given)[0] == wanted
        assert one(body.replace("@1", ""), frame, given=given)[0] == "accept"
    drops = body.replace("default: drop", "default: accept").replace("{accept:", "{drop:")
    cut = ether(ipv4()[:19])
    assert one(drops, cut, given=given) == ("drop", "p/1")


def test_an_empty_list_matches_nothing_that_can_be_read():
    body = (
        "default: accept\nvariables: {A: {type: ipv4, default: []}}\n"
        "rules:\n  - {drop: both, match: {ip.saddr: $A}}\n"
    )
    assert one(body, FRAME) == ("accept", "p/default")
    assert one(body, ether(ipv4()[:19])) == ("drop", "p/1")


def test_connections_and_rates_are_what_the_caller_says():
    body = (
        "default: drop\nvariables: {R: {type: rate, default: 5/second}}\nrules:\n"
        "  - {accept: both, match: {ct.state: [established, related]}}\n"
        "  - {accept: both, match: {ether.type: arp}, limit: $R}\n"
    )
    assert one(body, FRAME) == ("drop", "p/default")
    assert one(body, FRAME, state="related") == ("accept", "p/1")
    assert one(body, ether(arp(), 0x0806)) == ("accept", "p/2")
    assert one(body, ether(arp(), 0x0806), within=False) == ("drop", "p/default")


MATCHES = st.sampled_from(
    [
        "{}",
        "{ether.type: rarp}",
        "{ip.saddr: 10.0.0.0/8}",
        "{tcp.dport: 1-100}",
        "{ip.fragment: later}",
        "{ether.dst: multicast}",
        "{arp.spa: 10.0.0.5}",
        "{vlan.id: 5}",
    ]
)
RULES = st.lists(
    st.tuples(st.sampled_from(["accept", "drop"]), MATCHES), max_size=4, unique_by=lambda it: it[1]
)
FRAMES = st.one_of(
    st.sampled_from(
        [FRAME, tagged(FRAME), ether(arp(), 0x0806), ether(ipv4(bytes(8), 6, offset=8))]
    ),
    st.builds(
        lambda frame, size: frame[: max(14, size)],
        st.sampled_from([FRAME, ether(arp(), 0x0806)]),
        st.integers(14, 60),
    ),
)


def written(default, rules):
    # The one without a match would leave nothing for those behind it.
    rules = sorted(rules, key=lambda it: it[1] == "{}")
    text = "".join(f"  - {{{verb}: both, match: {match}}}\n" for verb, match in rules)
    return f"default: {default}\n" + (f"rules:\n{text}" if rules else "")


@given(st.lists(st.tuples(st.sampled_from(["accept", "drop"]), RULES), max_size=3), FRAMES)
def test_attaching_more_never_opens_more(bodies, frame):
    found = library(**{f"p{n}": written(*body) for n, body in enumerate(bodies)})
    names = [f"p{n}" for n in range(len(bodies))]
    all_of_them = verdict(found, names, frame).verdict
    for count in range(len(names)):
        if verdict(found, names[:count], frame).verdict == "drop":
            assert all_of_them == "drop"


@given(st.sampled_from(["accept", "drop"]), RULES, FRAMES, st.integers(14, 60))
def test_a_frame_cut_short_is_not_accepted_by_a_rule_that_did_not_accept_it_whole(
    default, rules, frame, size
):
    found = library(p=written(default, rules))
    cut = verdict(found, ["p"], frame[:size])
    whole = verdict(found, ["p"], frame)
    if cut.rule != "p/default" and cut.verdict == "accept":
        rule = next(it for it in found.profiles["p"].rules() if it.name == cut.rule)
        assert rule.verdict == "accept"
        assert whole.rule == cut.rule or whole.unreadable or whole.rule < cut.rule
