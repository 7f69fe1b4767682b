"""Who may do what, on a running broker: every method for every role, and what each is shown."""

from __future__ import annotations

import itertools

import msgspec
import pytest
import pytest_twisted
from broker_host import POLICY, until, uuid_of
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.core.ticket import Ticket, sign_ticket
from broker.rpc.admin import ROOT, Caller
from broker.rpc.catalogue import METHODS
from broker.rpc.errors import RpcError

run = pytest_twisted.ensureDeferred
pytestmark = pytest.mark.parametrize("store_daemon", ["embedded"], indirect=True)

VERBS = sorted({method.verb for method in METHODS})
READERS = {method.verb for method in METHODS if not method.writes}
ROLES = {
    "none": [],
    "reader": ["read"],
    "labels": ["label.*"],
    "policies": ["policy.*"],
    "everything": VERBS,
    **{f"only-{verb}": [verb] for verb in VERBS},
    **{f"not-{verb}": [it for it in VERBS if it != verb] for verb in VERBS},
}
ROOT_CALLER = Caller(subject="local:uid=0,pid=1", role=ROOT, person="local:uid=0")
DOMAIN = {"domain": "d3"}
ID = {"id": "5f0c9a12"}
ARGUMENTS = {
    "label.set": {**DOMAIN, "label": "plain"},
    "label.get": DOMAIN,
    "label.rm": DOMAIN,
    "label.export": DOMAIN,
    "label.import": {"ticket": "x"},
    "channel.explain": {"class": "vif", "frontend": "d3", "device": "0"},
    "channel.connect": {**DOMAIN, "class": "vif"},
    "channel.disconnect": {"class": "vif", "frontend": "d3", "device": "7"},
    "channel.reset": {"class": "vif", "frontend": "d3", "device": "7"},
    "policy.load": {"text": "x"},
    "decision.query": {"frontend": "d3", "backend": "0"},
    "filter.dump": {"profile": "clean-traffic"},
    "filter.create": {"text": "x"},
    "filter.update": {"text": "x"},
    "filter.destroy": {"profile": "clean-traffic"},
    "filter.attach": {**DOMAIN, "profile": "clean-traffic"},
    "filter.detach": {**DOMAIN, "profile": "clean-traffic"},
    "filter.show": DOMAIN,
    "filter.test": {**DOMAIN, "frame": ""},
    **{f"policy.{name}": ID for name in ("review", "approve", "reject", "withdraw")},
}


def caller(role, subject="alice"):
    return Caller(subject=subject, role=role, person=subject)


def policy(roles, **grants):
    """The usual policy, with roles: a list of verbs, or the text of one grant."""
    said = {
        name: [f"{{verbs: [{', '.join(verbs)}]}}"] * bool(verbs) for name, verbs in roles.items()
    }
    said.update({name: [text] for name, text in grants.items()})
    lines = [f"  {name}: [{', '.join(its)}]\n" for name, its in said.items()]
    return f"{POLICY}roles:\n{''.join(lines)}"


def expected(role, method):
    """What is written in the table above, read by eye."""
    verbs = ROLES.get(role, [])
    group = f"{method.verb.partition('.')[0]}.*"
    wild = group in verbs and method.verb not in ("policy.approve", "policy.govern")
    return method.verb in verbs or wild or ("read" in verbs and method.verb in READERS)


async def call(admin, who, name, **arguments):
    """A call as the server makes it."""
    method = METHODS[name]
    given = msgspec.convert({**ARGUMENTS.get(name, {}), **arguments}, method.arguments)
    admin.authorize(who, method, None)
    admin.authorize(who, method, given)
    handler = getattr(admin, method.handler)
    if method.stream:
        events = []
        return events, await handler(who, given, events.append)
    return await handler(who, given)


async def denied(admin, who, name, **arguments):
    with pytest.raises(RpcError) as caught:
        await call(admin, who, name, **arguments)
    assert caught.value.code == "denied"
    return caught.value.message


@run
async def test_every_method_for_every_role(host, box):
    box.policy.write_text(policy(ROLES))
    brokerd = await box.start()
    host.create(3)
    box.label(uuid_of(3), "plain")
    host.vif(3)
    await until(lambda: list(box.engine.mirror.devices()))
    for role, method in itertools.product([*ROLES, "unheard-of"], METHODS):
        who, given = caller(role), msgspec.convert(ARGUMENTS.get(method.name, {}), method.arguments)
        for arguments in (None, given):
            try:
                brokerd.admin.authorize(who, method, arguments)
            except RpcError as error:
                assert error.code == "denied"
                allowed = False
            else:
                allowed = True
            assert allowed is expected(role, method), (role, method.name)
        brokerd.admin.authorize(ROOT_CALLER, method, given)


@run
async def test_without_a_policy_there_is_only_local_root(host, box):
    brokerd = await box.start(policy=None)
    for method in METHODS:
        with pytest.raises(RpcError, match="no role reader"):
            brokerd.admin.authorize(caller("reader"), method, None)
        brokerd.admin.authorize(ROOT_CALLER, method, None)


async def two_domains(host, box):
    """Two labelled domains with a vif and a disk each, and roles that may see one of them."""
    box.policy.write_text(
        policy(
            {"reader": ["read"]},
            plain="{verbs: [read, label.*], label: plain}",
            lonely="{verbs: [read, label.*], label: lonely}",
            both="{verbs: [read, label.*], label: [plain, lonely]}",
            d3="{verbs: [read, label.*], domain: d3}",
            byuuid=f"{{verbs: [read, label.*], domain: {uuid_of(3)}}}",
            vifs="{verbs: read, class: vif}",
            luns="{verbs: read, resource: lun_red}",
        )
    )
    brokerd = await box.start()
    for domid, label in ((3, "plain"), (4, "lonely")):
        host.create(domid)
        box.label(uuid_of(domid), label)
        host.vif(domid)
        host.vbd(domid)
    await until(lambda: len(list(box.engine.mirror.devices())) == 4)
    await until(lambda: len(box.engine.state.ledger) == 4)
    # Told of, too: who begins to watch hears of nothing that was before.
    await until(lambda: not box.engine.decider.busy)
    return brokerd.admin


SEES = {
    "reader": ({0, 3, 4}, {3, 4}, {("vif", 3), ("vbd", 3), ("vif", 4), ("vbd", 4)}),
    "plain": ({3}, {3}, {("vif", 3), ("vbd", 3)}),
    "lonely": ({4}, {4}, {("vif", 4), ("vbd", 4)}),
    "both": ({3, 4}, {3, 4}, {("vif", 3), ("vbd", 3), ("vif", 4), ("vbd", 4)}),
    "d3": ({3}, set(), {("vif", 3), ("vbd", 3)}),
    "byuuid": ({3}, {3}, {("vif", 3), ("vbd", 3)}),
    "vifs": (set(), set(), {("vif", 3), ("vif", 4)}),
    "luns": (set(), set(), {("vbd", 3), ("vbd", 4)}),
}


@run
async def test_each_is_shown_what_is_his_and_nothing_else(host, box):
    scoped = await two_domains(host, box)
    for domid in (3, 4):
        words = {"domain": f"uuid:{uuid_of(domid)}", "profile": "no-multicast"}
        await call(scoped, ROOT_CALLER, "filter.attach", **words)
    for role, (domains, labels, channels) in SEES.items():
        who = caller(role)
        assert {it.domid for it in await call(scoped, who, "domain.list")} == domains, role
        found = await call(scoped, who, "label.list")
        assert {int(it.uuid[-1]) for it in found} == labels, role
        shown = await call(scoped, who, "channel.list")
        assert {(it.device_class, it.frontend) for it in shown} == channels, role
        attached = await call(scoped, who, "filter.attached")
        assert {int(it.key[-1]) for it in attached} == domains - {0}, role
        vifs = await call(scoped, who, "filter.vifs")
        assert {it.frontend for it in vifs} == domains - {0}, role


def test_each_method_that_leaves_out_is_tried_here(store_daemon):
    """A new one belongs into the tests around this."""
    leaves_out = {method.name for method in METHODS if method.object == "each"}
    listed = {f"{kind}.list" for kind in ("domain", "label", "channel")}
    assert leaves_out == {*listed, "channel.watch", "filter.attached", "filter.vifs"}


def ticket(uuid, label):
    """What an authorisation looks at; whoever signed it."""
    made = Ticket(
        uuid=uuid,
        label=label,
        policy="corp",
        version="1.0",
        digest="sha256:" + "0" * 64,
        expires=4_000_000_000,
        uses=(),
    )
    return sign_ticket(made, Ed25519PrivateKey.generate()).decode()


@run
async def test_a_ticket_asks_for_the_label_it_gives_and_the_domain_it_gives_it_to(host, box):
    admin = await two_domains(host, box)
    new, mine, others = uuid_of(7), uuid_of(3), uuid_of(4)
    for role, asked, may in (
        ("plain", {"ticket": ticket(new, "plain")}, True),
        ("plain", {"ticket": ticket(new, "lonely")}, False),
        ("plain", {"ticket": ticket(others, "plain")}, False),
        ("both", {"ticket": ticket(others, "plain")}, True),
        ("byuuid", {"ticket": ticket(mine, "plain")}, True),
        ("byuuid", {"ticket": ticket(new, "plain")}, False),
        ("plain", {"ticket": "x"}, False),
        ("plain", {"uuid": mine}, True),
        ("plain", {"uuid": others}, False),
        ("plain", {"uuid": "x"}, False),
        ("plain", {}, False),
        ("vifs", {"ticket": ticket(new, "plain")}, False),
    ):
        for name in ("label.import", "label.check"):
            if name == "label.import" and "ticket" not in asked:
                continue
            method = METHODS[name]
            given = msgspec.convert(asked, method.arguments)
            try:
                admin.authorize(caller(role), method, given)
            except RpcError as error:
                assert error.code == "denied"
                allowed = False
            else:
                allowed = True
            assert allowed is may, (role, name, asked)


@run
async def test_a_stream_brings_what_is_ones_own_and_nothing_else(host, box):
    scoped = await two_domains(host, box)
    mine, stop_mine = await call(scoped, caller("plain"), "channel.watch")
    whole, stop_whole = await call(scoped, caller("reader"), "channel.watch")
    host.vif(3, 1)
    host.vif(4, 1)
    await until(lambda: {it.channel.frontend for it in whole} == {3, 4})
    assert {it.channel.frontend for it in mine} == {3}
    stop_mine()
    stop_whole()


@run
async def test_what_has_become_anothers_is_not_told_of_even_when_it_is_gone(host, box):
    scoped = await two_domains(host, box)
    mine, stop_mine = await call(scoped, caller("plain"), "channel.watch")
    whole, stop_whole = await call(scoped, caller("reader"), "channel.watch")
    await call(scoped, caller("both"), "label.set", domain=uuid_of(3), label="lonely")
    await until(lambda: any(it.channel.frontend_label == "lonely" for it in whole))
    host.destroy(3)
    gone = await until(lambda: [it for it in whole if it.event == "gone"])
    assert gone[0].channel.frontend_label == "lonely"
    assert mine == []
    stop_mine()
    stop_whole()


@run
async def test_a_channel_of_another_is_not_explained(host, box):
    scoped = await two_domains(host, box)
    assert await call(scoped, caller("plain"), "channel.explain")
    assert "lonely" in await denied(scoped, caller("lonely"), "channel.explain")
    assert await call(scoped, caller("vifs"), "channel.explain")
    await denied(scoped, caller("vifs"), "channel.explain", **{"class": "vbd", "device": "51712"})
    assert await call(
        scoped, caller("luns"), "channel.explain", **{"class": "vbd", "device": "51712"}
    )
    await denied(scoped, caller("luns"), "channel.explain")


@run
async def test_who_sees_some_domains_does_not_learn_which_others_run(host, box):
    scoped = await two_domains(host, box)
    for name in ("d4", "nosuch"):
        assert await call(scoped, caller("plain"), "channel.list", domain=name) == ()
        await denied(scoped, caller("plain"), "channel.explain", frontend=name)
        await denied(scoped, caller("plain"), "label.get", domain=name)
    with pytest.raises(RpcError, match="no domain nosuch runs"):
        await call(scoped, caller("reader"), "channel.list", domain="nosuch")


@run
async def test_a_label_is_given_and_taken_only_within_the_role(host, box):
    scoped = await two_domains(host, box)
    before = dict(box.engine.state.labels)
    # Out of another's label, into another's, of another's domain, of nobody's.
    await denied(scoped, caller("plain"), "label.set", domain="d3", label="lonely")
    await denied(scoped, caller("lonely"), "label.set", domain="d3", label="lonely")
    await denied(scoped, caller("lonely"), "label.rm", domain="d3")
    await denied(scoped, caller("d3"), "label.set", domain="d4", label="plain")
    await denied(scoped, caller("byuuid"), "label.set", domain="d3", label="plain")
    await denied(scoped, caller("d3"), "label.set", domain=uuid_of(4), label="plain")
    assert box.engine.state.labels == before
    change = await call(scoped, caller("both"), "label.set", domain=uuid_of(3), label="lonely")
    assert (change.previous, change.now.label, change.now.set_by) == ("plain", "lonely", "alice")
    await call(scoped, caller("d3"), "label.rm", domain=uuid_of(3))
    await call(scoped, caller("plain"), "label.set", domain=uuid_of(3), label="plain")
    line = box.lines("label_set")[-1]
    assert (line["subject"], line["role"]) == ("alice", "plain")


@run
async def test_an_address_is_given_by_who_may_give_addresses_alone(host, box):
    roles = {
        "attach": ["filter.attach"],
        "wild": ["filter.*"],
        "both": ["filter.attach", "filter.address"],
        "address": ["filter.address"],
    }
    elsewhere = "{verbs: filter.attach}, {verbs: filter.address, domain: d4}"
    box.policy.write_text(policy(roles, elsewhere=elsewhere))
    admin = (await box.start()).admin
    host.create(3)
    box.label(uuid_of(3), "plain")
    channel = host.vif(3)
    host.report(channel)
    await host.decided(channel, "grant")
    bare = {"domain": "d3", "profile": "clean-traffic"}
    given = {"MAC": ["00:16:3e:00:00:44"], "IP": ["10.0.0.9"], "IPV6": ["fd00::9"]}
    given["LINK_LOCAL"] = ["fe80::9"]
    for name, values in given.items():
        for role in ("attach", "wild", "elsewhere", "address"):
            asked = {**bare, "given": {name: values}}
            await denied(admin, caller(role), "filter.attach", **asked)
    assert box.lines("filter_attached") == []
    assert box.lines("call_denied")[0]["verb"] == "filter.address"
    rogue = {**bare, "profile": "no-rogue-dhcp", "given": {"DHCP_SERVER": ["10.0.0.1"]}}
    for role in ("attach", "wild", "elsewhere"):
        await call(admin, caller(role), "filter.attach", **bare)
        await call(admin, caller(role), "filter.attach", **rogue)
    await call(admin, caller("both"), "filter.attach", **bare, given=given)
    assert box.lines("filter_attached")[-1]["given"] == given


@run
async def test_denied_calls_are_in_the_audit_once_and_counted_after(host, box):
    scoped = await two_domains(host, box)
    for _ in range(5):
        await denied(scoped, caller("plain"), "label.set", domain="d4", label="lonely")
    scoped.turned_away("no certificate was shown \x1b[2J")
    scoped.turned_away("no certificate was shown \x1b[2J")
    box.engine.audit.repeats()
    lines = box.lines("call_denied")
    assert [(it["subject"], it["role"], it["verb"]) for it in lines] == [
        ("alice", "plain", "label.set"),
        ("", "", ""),
    ]
    assert "may not label.set on d4" in lines[0]["detail"]
    assert "\x1b" not in lines[1]["detail"]
    counted = {it["subject"]: it["count"] for it in box.lines("repeated")}
    assert counted == {"denied calls of alice": 4, "denied calls of unknown": 1}


@run
async def test_a_flood_of_denials_ends_in_a_count_and_takes_nobody_elses_room(host, box):
    scoped = await two_domains(host, box)
    for number in range(200):
        await denied(scoped, caller("plain"), "label.set", domain=f"x{number}", label="lonely")
    assert len(box.lines("call_denied")) <= 51
    await denied(scoped, caller("plain", "bob"), "label.set", domain="d4", label="lonely")
    assert box.lines("call_denied")[-1]["subject"] == "bob"
