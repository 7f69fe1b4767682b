"""A label that moves with its domain: vouched for there, checked here, asked for before."""

from __future__ import annotations

import json
import time

import msgspec
import pytest
import pytest_twisted
from broker_host import POLICY, until, uuid_of
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_lifecycle_commands import write

from broker.core.ticket import Ticket, Use, sign_ticket, verify_ticket
from broker.policy.load import load_policy

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred
SOURCE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
TICKET = Ticket(
    uuid=uuid_of(3),
    label="web_a",
    policy="corp",
    version="1.0",
    digest=load_policy(POLICY.encode(), "p").digest,
    expires=int(time.time()) + 3600,
    uses=(
        Use("vif", None, "w", "SystemManagement"),
        Use("vbd", "lun_red", "w", "SystemManagement"),
    ),
)


async def target(box):
    """The broker that a domain moves to; it trusts the source's."""
    pem = SOURCE.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    path = box.directory / "source.pub"
    path.write_bytes(pem)
    return await box.start(label_signers=(path,))


def ticket(box, key=SOURCE, **changes):
    text = sign_ticket(msgspec.structs.replace(TICKET, **changes), key)
    return write(box, "ticket", text.decode() + "\n")


@run
async def test_an_exported_ticket_says_label_policy_and_what_the_domain_uses(host, box, ctl):
    await box.start()
    host.create(3)
    box.label(uuid_of(3), "web_a")
    for channel in (host.vif(3), host.vbd(3, mode="r")):
        host.report(channel)
        await host.decided(channel, "grant")
    code, out, _ = await ctl("label", "export", "d3", "--hours", "2")
    assert code == 0
    found = verify_ticket(out.strip().encode(), [box.public_key()])
    assert (found.uuid, found.label, found.digest) == (uuid_of(3), "web_a", TICKET.digest)
    assert {str(it) for it in found.uses} == {
        "vif/-/w/SystemManagement",
        "vbd/lun_red/r/SystemManagement",
    }
    assert 7100 < found.expires - time.time() <= 7200
    (line,) = box.lines("label_exported")
    assert (line["uuid"], line["label"]) == (uuid_of(3), "web_a")


@run
async def test_nobody_vouches_for_a_domain_without_a_good_label(host, box, ctl):
    await box.start()
    host.create(3)
    await until(lambda: 3 in box.engine.mirror.domains)
    code, _, err = await ctl("label", "export", "3")
    assert (code, "no label to vouch for" in err) == (1, True)
    assert (await ctl("label", "export", "0"))[0] == 1
    assert (await ctl("label", "export", "nobody"))[0] == 2


@run
async def test_an_imported_label_holds_when_the_domain_comes(host, box, ctl):
    await target(box)
    code, out, _ = await ctl("migrate-check", ticket(box))
    assert (code, "would be admitted" in out) == (0, True)
    code, out, _ = await ctl("label", "import", ticket(box))
    assert (code, "-> web_a" in out) == (0, True)
    host.create(3)
    vif = host.vif(3)
    host.report(vif)
    await host.decided(vif, "grant")


@pytest.mark.parametrize(
    ("changes", "says", "code"),
    [
        ({"key": STRANGER}, "signed by none of label_signers", 1),
        ({"expires": 1000}, "the ticket has expired", 1),
        ({"digest": "sha256:" + "0" * 64}, "the ticket is of policy corp 1.0", 1),
        ({"label": "nobody"}, "policy corp has no label nobody", 1),
    ],
)
@run
async def test_a_ticket_that_does_not_count_here_is_refused(box, ctl, changes, says, code):
    await target(box)
    for command in (("label", "import"), ("migrate-check",)):
        found, out, err = await ctl(*command, ticket(box, **changes))
        assert (found, says in " ".join((out + err).split())) == (code, True)
    assert not box.engine.state.labels


@run
async def test_what_is_no_ticket_is_bad_input(box, ctl):
    await target(box)
    for command in (("label", "import"), ("migrate-check",)):
        code, _, err = await ctl(*command, write(box, "bad", "label uuid=x\n"))
        assert (code, "no ticket" in err) == (2, True)
        assert (await ctl(*command, box.directory / "none"))[0] == 2


@run
async def test_a_ticket_does_not_change_a_label_that_is_stored(box, ctl):
    await target(box)
    box.label(uuid_of(3), "plain")
    code, _, err = await ctl("label", "import", ticket(box))
    assert (code, "has label plain here" in err) == (1, True)
    code, out, _ = await ctl("migrate-check", ticket(box))
    assert (code, "has label plain here" in out) == (1, True)
    assert box.engine.state.label_of(uuid_of(3), None) == "plain"


@pytest.mark.parametrize(
    "case",
    [
        ("web_b", {}, "chinese_wall"),
        (None, {"uses": (Use("vbd", None, "w", "SystemManagement"),)}, "resource"),
        (None, {"uses": (Use("vkbd", None, "w", "SystemManagement"),)}, "class"),
        (None, {"uses": (Use("vif", None, "w", "driver"),)}, "backend"),
        (None, {"label": "lonely"}, "ste"),
    ],
)
@run
async def test_the_check_says_before_the_move_what_stands_against_it(host, box, ctl, case):
    other, changes, rule = case
    await target(box)
    if other is not None:
        host.create(5)
        box.label(uuid_of(5), other)
        await until(lambda: box.engine.judge.standing(5).good)
    code, out, _ = await ctl("migrate-check", ticket(box, **changes), "--json")
    answer = json.loads(out)
    assert (code, answer["verdict"]) == (1, "deny")
    assert rule in {it["rule"] for it in answer["reasons"]}


@run
async def test_a_uuid_that_is_labelled_here_is_checked_with_the_channels_it_will_have(
    host,
    box,
    ctl,
):
    await box.start()
    box.label(uuid_of(3), "web_a")
    words = ("migrate-check", "--uuid", uuid_of(3), "--use", "vbd/lun_red/w/SystemManagement")
    assert (await ctl(*words))[0] == 0
    assert (await ctl(*words, "--use", "vbd/-/w/SystemManagement"))[0] == 1
    assert (await ctl(*words, "--use", "vbd"))[0] == 2
    assert (await ctl("migrate-check", "--uuid", uuid_of(9)))[0] == 2
    assert (await ctl("migrate-check"))[0] == 2
    host.create(3)
    await until(lambda: 3 in box.engine.mirror.domains)
    code, out, _ = await ctl(*words)
    assert (code, "runs here already, as domain 3" in out) == (1, True)


@pytest.mark.parametrize("store_daemon", ["embedded"], indirect=True)
@run
async def test_filter_profiles_are_named_and_looked_for_before_the_move(host, box, ctl):
    brokerd = await target(box)
    host.create(3)
    box.label(uuid_of(3), "web_a")
    host.vif(3)
    await until(lambda: (3 in box.engine.mirror.domains) and box.engine.mirror.domains[3].devices)
    assert (await ctl("filter", "attach", f"uuid:{uuid_of(3)}", "clean-traffic"))[0] == 0
    code, out, _ = await ctl("label", "export", "3")
    assert code == 0
    (named,) = verify_ticket(out.strip().encode(), [box.public_key()]).filters
    assert named.startswith("clean-traffic/")

    host.destroy(3)
    await until(lambda: 3 not in box.engine.mirror.domains)
    assert (await ctl("migrate-check", ticket(box, filters=(named,))))[0] == 0
    other = f"clean-traffic/{'0' * 16}"
    strange = f"strange/{'0' * 16}"
    here = brokerd.engine.filters.named(["no-multicast"])
    code, out, _ = await ctl("migrate-check", ticket(box, filters=(other, strange, *here)))
    assert code == 1
    for said in (
        "filter profile clean-traffic, or what it includes, is another",
        "there is no filter profile strange here",
        f"no-multicast would not be on its vifs: brokerctl filter attach uuid:{uuid_of(3)}",
    ):
        assert said in out
