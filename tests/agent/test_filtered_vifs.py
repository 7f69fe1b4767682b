"""The agent as a program, from signed filter records to frames: without one a vif stays closed."""

from __future__ import annotations

import contextlib
import signal
import socket
from contextlib import closing

import msgspec
import pytest
from agent_host import agent_host
from bridged_host import Bridged
from records import KEY, OTHER_KEY
from support.xenstoreds import wait_until

from broker.core.filter_record import (
    FilterRecord,
    ProfilesHead,
    pack_profiles,
    sign_filter,
    sign_head,
)
from broker.xenstore.paths import filter_counts_path

pytestmark = pytest.mark.root

PASS = b"profile: p\ndescription: x\ndefault: accept\nrules: []\n"
OUTWARD = b"""\
profile: p
description: x
default: {from-guest: accept, to-guest: drop}
rules:
  - {accept: to-guest, match: {arp.op: [request, reply]}}
  - {accept: to-guest, match: {ct.state: established}}
"""
DROP = b"profile: p\ndescription: x\ndefault: drop\nrules: []\n"


@pytest.fixture
def host(tmp_path):
    with agent_host(Bridged, tmp_path) as made:
        yield made


def tell_profiles(host, texts, seq=1, key=KEY):
    digest, size, chunks = pack_profiles(texts)
    for number, chunk in enumerate(chunks):
        host.store.write(f"/broker/v1/profiles/{number}", chunk)
    head = ProfilesHead(seq=seq, digest=digest, bytes=size, chunks=len(chunks))
    host.store.write("/broker/v1/profiles/head", sign_head(head, key))


def tell_filter(host, fe, *profiles, seq=1, key=KEY, **changes):
    nonce = host.report("vif/0", "nonce", fe).decode()
    made = FilterRecord(
        seq=seq, frontend=fe, backend=0, device_class="vif", device="0", uuid=None, nonce=nonce,
        profiles=profiles,
    )  # fmt: skip
    made = msgspec.structs.replace(made, **changes)
    host.store.write(f"/broker/v1/filter/0/vif/{fe}/0", sign_filter(made, key))


def counts(host):
    """What the agent reports that rules decided, in the node made for it."""
    return (host.read(filter_counts_path(0)) or b"").decode()


def begin(host, profiles, texts):
    """Both vifs, told of these profiles before they are granted."""
    tell_profiles(host, texts)
    host.start()
    for fe in profiles:
        host.attach("vif/0", fe=fe, mac=f"00:16:3e:00:00:{fe:02x}")
    for fe, names in profiles.items():
        wait_until(lambda fe=fe: host.report("vif/0", "nonce", fe), f"a nonce of {fe}")
        tell_filter(host, fe, *names)
        host.grant(fe, {3: "web", 4: "shop"}[fe])


def test_a_vif_is_held_to_its_profiles_and_an_update_changes_it_at_once(host: Bridged):
    begin(host, {3: ("p",), 4: ()}, {"p.yaml": PASS})
    host.come_to("open", 3, 4)
    host.beat_until(host.passes, "frames between web and shop")
    tell_profiles(host, {"p.yaml": DROP}, seq=2)
    host.beat_until(lambda: not host.leaks(), "nothing passes the profile")
    shown = host.net_show()
    assert "Profiles" in shown
    assert "p/default" in shown
    host.beat_until(lambda: " p/default=" in counts(host), "a report of what it refused")
    tell_profiles(host, {"p.yaml": PASS}, seq=1)
    assert not host.leaks(), "an older text is not taken"
    tell_profiles(host, {"p.yaml": PASS}, seq=3, key=OTHER_KEY)
    assert not host.leaks(), "nor one that somebody else signed"
    tell_filter(host, 3, seq=2)
    host.beat_until(host.passes, "without a profile labels alone decide")
    host.beat_until(lambda: "Profiles" not in host.net_show(), "nothing to show")


def test_without_its_filter_record_a_vif_stays_closed(host: Bridged):
    begin(host, {3: ("p",)}, {"p.yaml": PASS})
    host.come_to("open", 3)
    host.attach("vif/0", fe=4, mac="00:16:3e:00:00:04")
    wait_until(lambda: host.report("vif/0", "nonce", 4), "a nonce")
    host.grant(4, "shop")
    host.beat_until(
        lambda: b"no%20filter%20record" in (host.report("vif/0", "enforced", 4) or b""), "why"
    )
    for key, changes in ((OTHER_KEY, {}), (KEY, {"nonce": "0" * 32}), (KEY, {"frontend": 3})):
        tell_filter(host, 4, "p", key=key, **changes)
        host.beat_until(lambda: True, "a beat")
        assert host.enforced("vif/0", 4) != "open"
    tell_filter(host, 4, "nothing-like-it", seq=2)
    host.beat_until(lambda: "nothing-like-it" in host.text(), "the profile that is not there")
    assert host.enforced("vif/0", 4) != "open"
    tell_filter(host, 4, "p", seq=3)
    host.come_to("open", 4)
    host.beat_until(host.passes, "frames")


def test_killed_and_started_again_profiles_hold_without_a_store(host: Bridged):
    begin(host, {3: ("p",), 4: ()}, {"p.yaml": DROP})
    host.come_to("open", 3, 4)
    assert not host.leaks()
    host.end(signal.SIGKILL)
    assert not host.leaks()
    host.report_file.unlink()
    host.start()
    wait_until(host.report_file.exists, "the bridges taken over")
    host.beat_until(
        lambda: {it["profiles"][0] for it in host.shown()["ports"] if it["profiles"]} == {"p"}, "p"
    )
    assert not host.leaks()


def datagrams(host, domid):
    """A socket of a guest's, which has the address 10.9.0.<domid> from now on."""
    guest, address = host.lab.guests[domid], f"10.9.0.{domid}"
    guest.ip("addr", "add", f"{address}/24", "dev", "eth0")
    with guest.entered():
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, 7000))
    made.settimeout(0.2)
    return made


def comes(host, sender, receiver, data):
    """Send it until it is there, or a while long."""

    def there():
        sender.sendto(data, receiver.getsockname())
        with contextlib.suppress(TimeoutError):
            while receiver.recv(100) != data:
                pass
            return True
        return False

    host.beat_until(there, f"{data!r}")


def test_a_connection_that_a_guest_opened_outlives_agent_and_helper(host: Bridged):
    begin(host, {3: ("p",), 4: ()}, {"p.yaml": OUTWARD})
    host.come_to("open", 3, 4)
    with closing(datagrams(host, 3)) as near, closing(datagrams(host, 4)) as far:
        far.sendto(b"first", near.getsockname())
        with pytest.raises(TimeoutError):
            near.recv(100)
        comes(host, near, far, b"asked")
        comes(host, far, near, b"answered")
        host.end(signal.SIGKILL)
        far.sendto(b"while nobody looks", near.getsockname())
        near.settimeout(20)
        assert near.recv(100) == b"while nobody looks"
        near.settimeout(0.2)
        host.report_file.unlink()
        host.start()
        wait_until(host.report_file.exists, "the bridges taken over")
        host.beat_until(
            lambda: {it["profiles"][0] for it in host.shown()["ports"] if it["profiles"]} == {"p"},
            "p",
        )
        comes(host, far, near, b"answered again")


def test_a_record_waits_for_the_texts_that_it_was_signed_beside(host: Bridged):
    """A record of the present life says how new texts must be for it: no older ones are used."""
    begin(host, {3: (), 4: ()}, {"p.yaml": PASS})
    host.come_to("open", 3, 4)
    tell_filter(host, 3, "p", seq=2, head=2)
    host.beat_until(lambda: "for profiles 2, not 1" in host.text(), "older texts refused")
    assert host.passes(), "what it had stays in force"
    tell_profiles(host, {"p.yaml": DROP}, seq=2)
    host.beat_until(lambda: not host.leaks(), "nothing passes the newer text")


def test_texts_that_were_lost_are_not_replaced_by_older_ones(host: Bridged):
    begin(host, {3: (), 4: ()}, {"p.yaml": DROP})
    tell_profiles(host, {"p.yaml": DROP}, seq=2)
    tell_filter(host, 3, "p", seq=2, head=2)
    host.come_to("open", 3, 4)
    host.beat_until(lambda: not host.leaks(), "nothing passes the profile")
    host.end(signal.SIGKILL)
    (host.directory / "state" / "profiles.json").unlink()
    tell_profiles(host, {"p.yaml": PASS}, seq=1)
    host.start()
    host.beat_until(lambda: "for%20profiles%202" in host.reason(3), "why it is closed")
    assert host.enforced("vif/0", 3) != "open"
    assert not host.leaks()
    tell_profiles(host, {"p.yaml": PASS}, seq=2)
    host.beat_until(host.passes, "texts that are new enough open it")
