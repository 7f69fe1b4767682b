"""What the broker tells agents of filters: before each grant, for every way of attaching."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import pytest_twisted
from broker_host import POLICY, nonce, until, uuid_of

from broker.core.filter_record import (
    MAX_CHUNKS,
    head_number,
    is_filtered,
    pack_profiles,
    unpack_profiles,
    verify_filter,
    verify_head,
)
from broker.filters.library import load_library
from broker.rpc.admin import ROOT, Caller
from broker.rpc.errors import RpcError
from broker.rpc.methods import Nothing
from broker.rpc.methods import filters as methods
from broker.service.filter_profiles import read_shipped
from broker.xenstore import paths
from broker.xenstore.errors import StoreError

run = pytest_twisted.ensureDeferred
embedded = pytest.mark.parametrize("store_daemon", ["embedded"], indirect=True)
SHIPPED = Path(__file__).parents[2] / "etc/filters"
WHO = Caller(subject="local:uid=0,pid=1", role=ROOT, person="local:uid=0")
PLAIN = "  plain: {ste: [red]}\n"
WEB_ONLY = """\
profile: web-only
description: a web server's
variables:
  PORT: {type: port, default: "80"}
default: drop
rules:
  - {accept: both, match: {tcp.dport: $PORT}}
"""
MASKS = ", ".join(f'"00:00:00:00:{it:02x}:00/00:00:00:00:ff:00"' for it in range(17))
UNHOLDABLE = {
    f"  - {{accept: both, match: {{ether.src: [{MASKS}], ether.dst: [{MASKS}]}}}}\n": (
        "this becomes more than 256 rules"
    ),
}
"""Rules that no agent can hold, and what is said of them."""


def attaching(text):
    """The usual policy, with these filters on label plain."""
    assert PLAIN in POLICY
    return POLICY.replace(PLAIN, f"  plain: {{ste: [red], filters: [{text}]}}\n")


def told(host, box, channel):
    """A vif's filter record, verified; None where there is none."""
    text = host.read(paths.filter_path(channel))
    return verify_filter(text, box.public_key()) if text else None


def texts(host, box):
    """The profiles' texts that agents are told, verified."""
    head = verify_head(host.read(f"{paths.PROFILES}/head"), box.public_key())
    chunks = [host.read(f"{paths.PROFILES}/{n}") for n in range(head.chunks)]
    return unpack_profiles(head, chunks)


async def call(brokerd, method, kind, **given):
    return await getattr(brokerd.admin, method)(WHO, msgspec.convert(given, kind))


async def refused(brokerd, method, kind, **given):
    with pytest.raises(RpcError) as caught:
        await call(brokerd, method, kind, **given)
    return caught.value.code, " ".join([caught.value.message, *caught.value.problems])


async def vif_of(host, box, domid, label="plain", ip=None):
    """A labelled domain with a vif whose agent has reported."""
    host.create(domid)
    box.label(uuid_of(domid), label)
    details = {"script": "vif-bridge", "mac": f"00:16:3E:00:00:{domid:02X}", "bridge": "xenbr0"}
    if ip is not None:
        details["ip"] = ip
    channel = host.attach(domid, "vif", 0, {**details, "type": "vif"})
    host.report(channel)

    def known():
        domain = box.engine.mirror.domains.get(domid)
        return domain is not None and domain.name == f"d{domid}"

    await until(known, "the domain's name")
    return channel


async def granted(host, box, attached=None, label="plain", ip=None):
    """Domain 3's vif, granted by a broker that has just started; `attached` to label plain."""
    if attached is not None:
        box.policy.write_text(attaching(attached))
    await box.start()
    channel = await vif_of(host, box, 3, label, ip)
    await host.decided(channel, "grant")
    return channel


@run
async def test_a_vifs_filters_are_told_before_its_grant(host, box):
    channel = await granted(host, box, "clean-traffic", ip="10.0.0.5 2001:db8::5")
    record = told(host, box, channel)
    assert record.profiles == ("clean-traffic",)
    assert record.variables == {
        "IP": ("10.0.0.5",),
        "IPV6": ("2001:db8::5",),
        "LINK_LOCAL": ("fe80::216:3eff:fe00:3",),
        "MAC": ("00:16:3e:00:00:03",),
    }
    assert (record.uuid, record.nonce) == (uuid_of(3), host.record(channel).nonce)
    library = load_library(texts(host, box))
    assert "no-rogue-ra" in library.profiles
    assert "isolated" not in library.profiles, "what nobody uses is not told"
    kinds = [line["event"] for line in box.journal()]
    assert kinds.index("filtered") < kinds.index("decided", kinds.index("filtered"))


@embedded
@run
async def test_without_filters_nothing_is_told(host, box):
    channel = await granted(host, box)
    assert told(host, box, channel) is None
    assert host.read(f"{paths.PROFILES}/head") is None


@embedded
@run
async def test_where_filters_are_in_use_every_vif_is_told_of_its_own(host, box):
    channel = await granted(host, box, "clean-traffic", "web_a")
    assert told(host, box, channel).profiles == ()


@embedded
@run
async def test_a_disk_has_no_filters(host, box):
    box.policy.write_text(attaching("clean-traffic"))
    await box.start()
    host.create(3)
    box.label(uuid_of(3), "web_a")
    channel = host.vbd(3)
    host.report(channel)
    await host.decided(channel, "grant")
    assert told(host, box, channel) is None


@embedded
@run
async def test_a_new_life_is_told_anew_and_a_restart_tells_the_same(host, box):
    channel = await granted(host, box, "no-mac-spoofing")
    first = told(host, box, channel)
    again = nonce()
    host.report(channel, again)
    await until(lambda: told(host, box, channel).nonce == again.decode())
    second = host.read(paths.filter_path(channel))
    assert told(host, box, channel).seq > first.seq
    await box.stop()
    host.client.write(paths.filter_path(channel), b"")
    await box.start()
    await until(lambda: host.read(paths.filter_path(channel)) == second)


@embedded
@run
async def test_a_vif_whose_filters_cannot_be_told_is_denied_by_name(host, box):
    box.policy.write_text(attaching("isolated"))
    await box.start()
    channel = await vif_of(host, box, 3)
    await host.decided(channel, "deny", "variable GATEWAY_MAC")
    assert told(host, box, channel) is None


@embedded
@run
async def test_an_address_is_one_vifs_alone(host, box):
    box.policy.write_text(attaching("no-ip-spoofing"))
    await box.start()
    first = await vif_of(host, box, 3, ip="10.0.0.5")
    await host.decided(first, "grant")
    second = await vif_of(host, box, 4, ip="10.0.0.5")
    await host.decided(second, "deny", f"address 10.0.0.5 is bound to {first} already")
    host.detach(first)
    box.engine.tick()
    await until(lambda: box.engine.mirror.device_of(first) is None)
    box.engine.tick()
    await host.decided(second, "grant")


@embedded
@run
async def test_who_looks_at_a_vif_that_is_denied_claims_no_address_for_it(host, box):
    box.policy.write_text(attaching("no-ip-spoofing"))
    brokerd = await box.start()
    host.create(3)
    details = {"script": "vif-bridge", "mac": "00:16:3E:00:00:03", "ip": "10.0.0.5"}
    denied = host.attach(3, "vif", 0, {**details, "bridge": "xenbr0", "type": "vif"})
    await host.decided(denied, "deny")
    words = {"domain": "d3", "profile": "no-ip-spoofing"}
    await call(brokerd, "filter_attach", methods.FilterAttach, **words)
    shown = await call(brokerd, "filter_show", methods.FilterVif, domain="d3")
    assert shown.variables["IP"] == ("10.0.0.5",)
    other = await vif_of(host, box, 4, ip="10.0.0.5")
    await host.decided(other, "grant")


@embedded
@run
async def test_a_profile_is_attached_to_a_running_domain_and_taken_off(host, box):
    channel = await granted(host, box)
    brokerd = box.brokerd
    before = host.text(channel)
    answer = await call(
        brokerd, "filter_attach", methods.FilterAttach, domain="d3", profile="clean-traffic"
    )
    assert (answer.changed, answer.vifs, answer.now.bound_by) == (True, 1, "name")
    await until(lambda: told(host, box, channel) is not None)
    assert told(host, box, channel).profiles == ("clean-traffic",)
    await until(lambda: host.text(channel) != before)
    assert host.verdict(channel) == "grant"
    assert is_filtered(host.record(channel).reason), "who misses the filter's record knows of it"
    again = await call(
        brokerd, "filter_attach", methods.FilterAttach, domain="d3", profile="clean-traffic"
    )
    assert again.changed is False
    shown = await call(brokerd, "filter_show", methods.FilterVif, domain="d3")
    assert (shown.profiles, shown.learned, shown.problem) == (("clean-traffic",), ("IP",), "")
    code, said = await refused(
        brokerd, "filter_destroy", methods.FilterDestroy, profile="clean-traffic"
    )
    assert code == "conflict"
    await call(brokerd, "filter_detach", methods.FilterDetach, domain="d3", profile="clean-traffic")
    await until(lambda: told(host, box, channel).profiles == ())
    await until(lambda: not is_filtered(host.record(channel).reason))
    assert host.verdict(channel) == "grant"
    code, said = await refused(
        brokerd, "filter_detach", methods.FilterDetach, domain="d3", profile="clean-traffic"
    )
    assert (code, "is not attached to name:d3" in said) == ("not_found", True)
    assert [line["profile"] for line in box.lines("filter_attached")] == ["clean-traffic"]
    assert [line["subject"] for line in box.lines("filter_detached")] == [WHO.subject]


@embedded
@run
async def test_the_first_profile_of_one_vif_leaves_no_other_without_a_record(
    host, box, monkeypatch
):
    brokerd = await box.start()
    one, other = await vif_of(host, box, 3), await vif_of(host, box, 4)
    await host.decided(one, "grant")
    await host.decided(other, "grant")
    written = []
    publisher = box.engine._publisher

    def noting(real):
        async def noted(items):
            written.extend(path for path, _ in items)
            return await real(items)

        return noted

    for name in ("filters", "profiles"):
        monkeypatch.setattr(publisher, name, noting(getattr(publisher, name)))
    words = {"domain": "d3", "profile": "no-mac-spoofing"}
    await call(brokerd, "filter_attach", methods.FilterAttach, **words)
    await until(lambda: told(host, box, one) is not None and told(host, box, other) is not None)
    head = written.index(f"{paths.PROFILES}/head")
    assert written.index(paths.filter_path(other)) < head < written.index(paths.filter_path(one))


@embedded
@run
async def test_attachments_are_found_again_after_a_restart(host, box):
    brokerd = await box.start()
    given = {"IP": ["10.0.0.9"]}
    words = {"domain": f"uuid:{uuid_of(3)}", "profile": "no-ip-spoofing", "device": "0"}
    await call(brokerd, "filter_attach", methods.FilterAttach, **words, given=given)
    await box.stop()
    brokerd = await box.start()
    (found,) = await call(brokerd, "filter_attached", Nothing)
    assert await call(brokerd, "filter_vifs", Nothing) == ()
    assert (found.key, found.device, found.given) == (uuid_of(3), "0", {"IP": ("10.0.0.9",)})
    channel = await vif_of(host, box, 3)
    await host.decided(channel, "grant")
    assert told(host, box, channel).variables["IP"] == ("10.0.0.9",)
    (vif,) = await call(brokerd, "filter_vifs", Nothing)
    assert (vif.frontend, vif.frontend_name, vif.device, vif.backend) == (3, "d3", "0", 0)
    assert (vif.profiles, vif.variables, vif.problem) == (
        ("no-ip-spoofing",),
        told(host, box, channel).variables,
        "",
    )


@embedded
@run
async def test_what_does_not_fit_is_not_attached(host, box):
    await granted(host, box)
    brokerd = box.brokerd
    for given, wanted in (
        ({}, "variable GATEWAY_MAC"),
        ({"GATEWAY_MAC": ["10.0.0.1"]}, "not a MAC address"),
        ({"GATEWAY": ["10.0.0.1"], "NO": ["1"]}, "has no variable NO"),
    ):
        code, said = await refused(
            brokerd,
            "filter_attach",
            methods.FilterAttach,
            domain="d3",
            profile="isolated",
            given=given,
        )
        assert code == "bad_input"
        assert wanted in said
    code, _ = await refused(
        brokerd, "filter_attach", methods.FilterAttach, domain="d3", profile="none-such"
    )
    assert code == "not_found"
    code, _ = await refused(
        brokerd, "filter_attach", methods.FilterAttach, domain="0", profile="isolated"
    )
    assert code == "denied"
    assert box.lines("filter_attached") == []


@embedded
@run
async def test_a_profile_is_stored_updated_and_destroyed(host, box):
    brokerd = await box.start()
    made = await call(brokerd, "filter_create", methods.FilterCreate, text=WEB_ONLY)
    code, _ = await refused(brokerd, "filter_create", methods.FilterCreate, text=WEB_ONLY)
    assert code == "conflict"
    channel = await vif_of(host, box, 3)
    await host.decided(channel, "grant")
    await call(
        brokerd,
        "filter_attach",
        methods.FilterAttach,
        domain="d3",
        profile="web-only",
        given={"PORT": ["8080"]},
    )
    await until(lambda: told(host, box, channel) is not None)
    record = host.read(paths.filter_path(channel))
    assert texts(host, box) == {"web-only.yaml": WEB_ONLY.encode()}

    other = WEB_ONLY.replace("both", "from-guest")
    stale = "sha256:" + "0" * 64
    code, said = await refused(
        brokerd, "filter_update", methods.FilterUpdate, text=other, replaces=stale
    )
    assert code == "conflict"
    dry = await call(brokerd, "filter_update", methods.FilterUpdate, text=other, dry_run=True)
    assert (dry.changed, dry.vifs) == (True, 1)
    assert texts(host, box) == {"web-only.yaml": WEB_ONLY.encode()}
    await call(brokerd, "filter_update", methods.FilterUpdate, text=other, replaces=made.digest)
    await until(lambda: texts(host, box) == {"web-only.yaml": other.encode()})
    assert host.read(paths.filter_path(channel)) == record, "one head, whatever the vifs"
    host.report(channel)
    await until(lambda: host.read(paths.filter_path(channel)) != record)
    newer = head_number(host.read("/broker/v1/profiles/head"))
    assert told(host, box, channel).head == newer, "a new life's record is for texts as new"

    broken = WEB_ONLY.replace("PORT", "OTHER")
    code, said = await refused(brokerd, "filter_update", methods.FilterUpdate, text=broken)
    assert (code, "has no variable PORT" in said) == ("bad_input", True)
    for rule, why in UNHOLDABLE.items():
        for call_, arguments in (
            ("filter_update", methods.FilterUpdate), ("filter_create", methods.FilterCreate)
        ):  # fmt: skip
            name = "web-only" if call_ == "filter_update" else "other"
            text = other.replace("profile: web-only", f"profile: {name}") + rule
            code, said = await refused(brokerd, call_, arguments, text=text)
            assert code == "bad_input"
            assert f"{name}.yaml:{text.count(chr(10))}:5: {why}" in said, said
    assert texts(host, box) == {"web-only.yaml": other.encode()}
    code, said = await refused(brokerd, "filter_destroy", methods.FilterDestroy, profile="web-only")
    assert (code, "is in use: name:d3" in said) == ("conflict", True)

    await call(brokerd, "filter_detach", methods.FilterDetach, domain="d3", profile="web-only")
    await until(lambda: told(host, box, channel).profiles == ())
    await box.stop()
    brokerd = await box.start()
    await call(brokerd, "filter_destroy", methods.FilterDestroy, profile="web-only")
    code, _ = await refused(brokerd, "filter_dump", methods.FilterSelector, profile="web-only")
    assert code == "not_found"
    names = [box.lines(kind)[-1]["name"] for kind in ("filter_stored", "filter_destroyed")]
    assert names == ["web-only", "web-only"]


@embedded
@run
async def test_a_shipped_profile_can_be_replaced_and_comes_back(host, box):
    brokerd = await box.start()
    held = await call(brokerd, "filter_dump", methods.FilterSelector, profile="no-multicast")
    assert held.shipped is True
    code, _ = await refused(
        brokerd, "filter_destroy", methods.FilterDestroy, profile="no-multicast"
    )
    assert code == "conflict"
    await call(brokerd, "filter_update", methods.FilterUpdate, text=f"{held.text}# ours\n")
    now = await call(brokerd, "filter_dump", methods.FilterSelector, profile="no-multicast")
    assert (now.shipped, now.text) == (False, f"{held.text}# ours\n")
    await call(brokerd, "filter_destroy", methods.FilterDestroy, profile="no-multicast")
    again = await call(brokerd, "filter_dump", methods.FilterSelector, profile="no-multicast")
    assert again == held


@embedded
@run
async def test_a_policy_that_asks_for_what_is_not_there_does_not_load(host, box):
    await box.start()
    with pytest.raises(RpcError) as caught:
        await box.load(attaching("nosuch").replace('"1.0"', '"1.1"'))
    assert "there is no filter profile" in " ".join(caught.value.problems)
    with pytest.raises(RpcError) as caught:
        await box.load(attaching("{profile: clean-traffic, with: {NO: a}}").replace("1.0", "1.1"))
    assert "has no variable NO" in " ".join(caught.value.problems)


@embedded
@run
async def test_a_frame_is_tried_on_a_vif(host, box):
    await granted(host, box, "clean-traffic")
    brokerd = box.brokerd
    own = "ffffffffffff" + "00163e000003"
    arp = "0806" + "0001080006040001" + "00163e000003" + "0a000005" + "000000000000" + "0a000001"
    for frame, learned, wanted in (
        (own + arp, (), ("drop", "no-arp-spoofing/3")),
        (own + arp, ("10.0.0.5",), ("accept", "clean-traffic/default")),
        ("ffffffffffff" + "00163e000004" + arp, (), ("drop", "no-mac-spoofing/default")),
        ("ffff", (), ("drop", "")),
    ):
        answer = await call(
            brokerd,
            "filter_test",
            methods.FilterTest,
            domain="d3",
            frame=frame,
            learned=learned,
        )
        assert (answer.verdict, answer.rule) == wanted
    code, _ = await refused(
        brokerd, "filter_test", methods.FilterTest, domain="d3", device="7", frame=""
    )
    assert code == "not_found"


OUTWARD = """\
profile: outward
description: answers alone
default: drop
rules:
  - {accept: from-guest, match: {ct.state: [new, established]}}
  - {accept: to-guest, match: {ct.state: established}}
"""
ENDS = "0a000005" + "0a000009"
UDP = (
    "00" * 12 + "0800" + "4500001c000000004011" + "0000" + ENDS + "1000" + "0050" + "0008" + "0000"
)
SYN = "00" * 12 + "0800" + "45000028000000004006" + "0000" + ENDS + "1000005000000001"
SYN += "00000000" + "5002" + "0400" + "00000000"


@embedded
@run
async def test_what_depends_on_the_connections_state_is_said_to(host, box):
    await granted(host, box, "no-mac-spoofing")
    brokerd = box.brokerd
    await call(brokerd, "filter_create", methods.FilterCreate, text=OUTWARD, source="outward.yaml")
    await box.load(attaching("outward").replace("1.0", "1.1"))

    async def tried(frame, direction="to-guest", **more):
        asked = {"domain": "d3", "frame": frame, "direction": direction, **more}
        return await call(brokerd, "filter_test", methods.FilterTest, **asked)

    answer = await tried(UDP)
    assert (answer.verdict, answer.rule) == ("depends", "")
    found = [(it.state, it.verdict, it.rule) for it in answer.by_state]
    assert found == [("new", "drop", "outward/default"), ("established", "accept", "outward/2")]
    answer = await tried(UDP, state="established")
    assert (answer.verdict, answer.rule, answer.by_state) == ("accept", "outward/2", ())
    answer = await tried(SYN)
    assert (answer.verdict, answer.rule) == ("drop", "outward/default")
    answer = await tried(UDP, "from-guest")
    assert (answer.verdict, answer.rule) == ("accept", "outward/1")
    with pytest.raises(RpcError, match="such a frame is never established: it is new"):
        await tried(SYN, state="established")
    with pytest.raises(RpcError, match="such a frame is never new: it is untracked"):
        await tried("ff" * 40, state="new")


@embedded
@run
async def test_what_others_wrote_is_put_right_and_said(host, box):
    channel = await granted(host, box, "no-mac-spoofing")
    for path in (paths.filter_path(channel), f"{paths.PROFILES}/head", f"{paths.PROFILES}/0"):
        text = host.read(path)
        host.client.write(path, b"mine")
        await until(lambda path=path, text=text: host.read(path) == text)
    alarms = [line["subject"] for line in box.lines("alarm")]
    assert {paths.filter_path(channel), f"{paths.PROFILES}/0"} <= set(alarms)


@embedded
@pytest.mark.parametrize("what", ["filters", "profiles"])
@run
async def test_no_grant_comes_before_its_filters_are_in_the_store(host, box, monkeypatch, what):
    box.policy.write_text(attaching("no-mac-spoofing"))
    await box.start()
    asked = []

    async def full(items):
        asked.append(items)
        return [StoreError("EACCES", "closed to the broker") for _ in items]

    with monkeypatch.context() as closed:
        closed.setattr(box.engine._publisher, what, full)
        channel = await vif_of(host, box, 3)
        await until(lambda: len(asked) > 1, "a second try")
        assert host.verdict(channel) != "grant"
        assert box.engine.decider.unpublished == 1
    await host.decided(channel, "grant")
    assert told(host, box, channel).profiles == ("no-mac-spoofing",)
    await until(lambda: box.engine.decider.unpublished == 0)
    assert box.lines("unpublished")


@embedded
@run
async def test_a_device_takes_its_record_with_it(host, box):
    channel = await granted(host, box, "no-mac-spoofing")
    host.detach(channel)
    await until(lambda: host.read(paths.filter_path(channel)) is None)
    assert box.engine.filters.state.records == {}


def test_there_is_room_for_all_that_is_shipped():
    shipped = read_shipped(SHIPPED)
    assert len(shipped) == 11
    assert len(pack_profiles(shipped)[2]) < MAX_CHUNKS // 2
