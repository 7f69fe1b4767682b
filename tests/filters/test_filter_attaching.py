"""What a vif's filters come to, and whose an address is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.definition import Attached
from broker.filters.attach import Claims, wanted
from broker.filters.bind import BindError
from broker.filters.library import load_library
from broker.filters.values import Rate, Span

SHIPPED = Path(__file__).parents[2] / "etc/filters"
LIBRARY = load_library({path.name: path.read_bytes() for path in SHIPPED.glob("*.yaml")})
MAC = b"00:16:3E:00:00:05"
ROUTER = "00:16:3e:00:00:01"


def on(*attached, mac=MAC, ip=None):
    entries = [it if isinstance(it, Attached) else Attached(it) for it in attached]
    return wanted(LIBRARY, entries, mac, ip)


def test_the_toolstack_tells_mac_and_addresses():
    found = on("clean-traffic", ip=b"10.0.0.5  2001:DB8::5 10.1.0.0/16")
    assert found.given == {
        "IP": ("10.0.0.5", "10.1.0.0/16"),
        "IPV6": ("2001:db8::5",),
        "LINK_LOCAL": ("fe80::216:3eff:fe00:5",),
        "MAC": ("00:16:3e:00:00:05",),
    }
    assert found.learned == ()


def test_what_nobody_tells_is_learned_or_the_profiles_own():
    found = on("clean-traffic")
    assert found.learned == ("IP",)
    assert "IP" not in found.given
    assert found.environment["IP"] == ()
    assert "DHCP_SERVER" not in found.given
    assert found.environment["DHCP_SERVER"] == (Span(0, 0xFFFFFFFF),)


def test_parameters_add_addresses_and_set_all_else():
    extra = Attached(
        "clean-traffic",
        {"IP": ("10.0.0.6",), "MAC": (ROUTER,), "DHCP_SERVER": ("10.0.0.1",), "LINK_LOCAL": ()},
        "here",
    )
    found = on("clean-traffic", extra, ip=b"10.0.0.5")
    assert found.profiles == ("clean-traffic",)
    assert found.given["IP"] == ("10.0.0.5", "10.0.0.6")
    assert found.given["MAC"] == ("00:16:3e:00:00:05", ROUTER)
    assert found.given["DHCP_SERVER"] == ("10.0.0.1",)
    assert found.given["LINK_LOCAL"] == ()


def test_only_what_the_profiles_use_is_told():
    found = on("no-mac-spoofing", "rate-limited", ip=b"no address")
    assert found.given == {"MAC": ("00:16:3e:00:00:05",)}
    assert isinstance(found.environment["TO_GUEST"], Rate)
    assert on(ip=b"x").profiles == ()


@pytest.mark.parametrize(
    ("attached", "wanted_words"),
    [
        ([Attached("nosuch")], "no filter profile 'nosuch'"),
        ([Attached("isolated")], "variable GATEWAY_MAC"),
        (
            [Attached("no-multicast", {"IP": ("10.0.0.1",)}, "p.yaml:1:1")],
            "p.yaml:1:1: profile no-",
        ),
        ([Attached("no-ip-spoofing", {"LINK_LOCAL": ("10.0.0.1",)}, "a")], "not an ipv6 address"),
        (
            [
                Attached("rate-limited", {"TO_GUEST": ("1/second",)}, "a:1:1"),
                Attached("rate-limited", {"TO_GUEST": ("2/second",)}, "b:2:2"),
            ],
            "variable TO_GUEST is given differently at a:1:1 and b:2:2",
        ),
        ([Attached(f"x{n}") for n in range(17)], "17 filter profiles on one vif"),
    ],
)
def test_what_does_not_fit_says_so(attached, wanted_words):
    with pytest.raises(BindError) as caught:
        on(*attached)
    assert wanted_words in str(caught.value)


@pytest.mark.parametrize("mac", [b"", b"no mac", b"00:16:3e:00:00:zz", b"\xff", b"\x1b[2J"])
def test_a_mac_that_is_none_closes(mac):
    with pytest.raises(BindError, match="not a MAC address") as caught:
        on("clean-traffic", mac=mac)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("ip", [b"10.0.0.5 x", b"\xff", b"10.0.0.1/8"])
def test_an_address_of_the_toolstacks_that_is_none_closes(ip):
    with pytest.raises(BindError):
        on("no-ip-spoofing", ip=ip)


def env(**values):
    return {name: tuple(Span(*it) for it in spans) for name, spans in values.items()}


def test_an_address_is_one_vifs_until_it_is_released():
    claims = Claims()
    claims.hold("a", env(IP=[(5, 5)], MAC=[(5, 5)]))
    assert claims.taken_by("b", env(IP=[(5, 5)])) == "a"
    assert claims.taken("b", env(IP=[(5, 5)]), "vif/3/0") == (
        "address 0.0.0.5 is bound to vif/3/0 already"
    )
    assert claims.taken_by("b", env(IP=[(1, 9)])) == "a"
    assert claims.taken_by("a", env(IP=[(1, 9)])) == ""
    assert claims.taken_by("b", env(IPV6=[(5, 5)])) == ""
    claims.hold("b", env(IP=[(10, 19)]))
    assert claims.taken_by("c", env(IP=[(12, 12)])) == "b"
    assert claims.taken_by("c", env(IP=[(19, 30)])) == "b"
    claims.hold("a", env(IP=[(6, 6)]))
    assert claims.taken_by("c", env(IP=[(5, 5)], MAC=[(5, 5)])) == ""
    assert claims.release("b")
    assert not claims.release("b")
    assert claims.taken_by("c", env(IP=[(12, 12)])) == ""


def test_a_link_local_address_given_as_any_other_is_one_vifs_too():
    claims = Claims()
    claims.hold("a", env(LINK_LOCAL=[(7, 7)]))
    assert claims.taken_by("b", env(IPV6=[(7, 7)])) == "a"
    assert claims.taken_by("b", {"RATE": Rate(1, "packets", "second")}) == ""


SPANS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 3)).map(lambda it: (it[0], it[0] + it[1])),
    max_size=3,
)


@given(st.lists(st.tuples(st.sampled_from("abc"), SPANS), max_size=8))
def test_no_two_hold_one_address(changes):
    claims, held = Claims(), {}
    for owner, spans in changes:
        mine = {value for low, high in spans for value in range(low, high + 1)}
        others = {value for other, its in held.items() if other != owner for value in its}
        taken = claims.taken_by(owner, env(IP=spans))
        assert bool(taken) == bool(mine & others)
        if not taken:
            claims.hold(owner, env(IP=spans))
            held[owner] = mine
