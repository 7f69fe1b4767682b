"""Changing the policy: who may, who needs a second person, and what nobody may alone."""

from __future__ import annotations

import msgspec
import pytest
import pytest_twisted
from broker_host import POLICY, uuid_of
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.pki.dsse import sign
from broker.rpc.admin import ROOT, Caller
from broker.rpc.catalogue import METHODS
from broker.rpc.errors import RpcError
from broker.service import proposals
from broker.service.statedir import RefusedError

run = pytest_twisted.ensureDeferred
pytestmark = pytest.mark.parametrize("store_daemon", ["embedded"], indirect=True)

ROLES = """\
roles:
  governor: [{verbs: [read, policy.load, policy.govern, policy.approve]}]
  loader: [{verbs: [read, policy.load]}]
  careful: [{verbs: [read, policy.load], second_person: true}]
  approver: [{verbs: [read, policy.approve]}]
  operator: [{verbs: [read, label.set], label: group:front}]
"""
GOVERNED = POLICY + "groups: {front: [web_a]}\n" + ROLES
RULE = GOVERNED.replace('"1.0"', '"1.1"') + "# one more rule\n"
ROOT_CALLER = Caller(subject="local:uid=0,pid=9", role=ROOT, person="local:uid=0")
# What each change does, and the key it is a change of.
CHANGES = {
    "roles": GOVERNED.replace("label.set]", "label.set, label.rm]"),
    "bootstrap": GOVERNED.replace("bootstrap: SystemManagement", "bootstrap: plain"),
    "on_violation": GOVERNED + "on_violation: {vif: report}\n",
    "host_authorization": GOVERNED + "host_authorization: false\n",
    "protected": GOVERNED + "protected: [plain]\n",
}


def who(subject, role):
    return Caller(subject=subject, role=role, person=subject)


ANN, BOB = who("ann", "governor"), who("bob", "governor")


async def call(admin, caller, name, **arguments):
    method = METHODS[name]
    given = msgspec.convert(arguments, method.arguments)
    admin.authorize(caller, method, None)
    admin.authorize(caller, method, given)
    return await getattr(admin, method.handler)(caller, given)


async def refused(code, admin, caller, name, **arguments):
    with pytest.raises(RpcError) as caught:
        await call(admin, caller, name, **arguments)
    assert caught.value.code == code
    return caught.value.message


async def start(box, text=GOVERNED):
    box.policy.write_text(text)
    return (await box.start()).admin


async def pending(admin, caller=ANN):
    return [it.id for it in await call(admin, caller, "policy.pending")]


def in_force(box):
    return box.brokerd._policies.data.decode()


@run
async def test_a_loader_loads_rules_alone_and_a_careful_one_does_not(host, box):
    admin = await start(box)
    change = await call(admin, who("leo", "loader"), "policy.load", text=RULE)
    assert (change.changed, change.second_person, change.proposal) == (True, False, None)
    assert in_force(box) == RULE
    text = RULE + "# careful\n"
    change = await call(admin, who("cara", "careful"), "policy.load", text=text)
    assert (change.second_person, change.governs) == (True, ())
    assert in_force(box) == RULE
    change = await call(admin, who("abe", "approver"), "policy.approve", id=change.proposal)
    assert change.changed
    assert in_force(box) == text
    line = box.lines("policy_loaded")[-1]
    assert (line["subject"], line["role"]) == ("cara", "careful")
    assert (line["approver"], line["approver_role"]) == ("abe", "approver")
    assert not await pending(admin)


@pytest.mark.parametrize("key", CHANGES)
@run
async def test_what_is_governed_needs_a_governor_and_a_second_person(key, host, box):
    admin = await start(box)
    text = CHANGES[key]
    for role in ("loader", "careful"):
        assert key in await refused("denied", admin, who("leo", role), "policy.load", text=text)
        said = await refused(
            "denied", admin, who("leo", role), "policy.load", text=text, dry_run=True
        )
        assert "policy.govern" in said
    assert box.lines("policy_refused")[-1]["subject"] == "leo"
    tried = await call(admin, ANN, "policy.load", text=text, dry_run=True)
    assert (tried.governs, tried.second_person, tried.proposal) == ((key,), True, None)
    for caller in (ANN, ROOT_CALLER):
        change = await call(admin, caller, "policy.load", text=text)
        assert (change.governs, change.second_person) == ((key,), True)
        assert in_force(box) == GOVERNED
        await call(admin, caller, "policy.withdraw", id=change.proposal)
    change = await call(admin, ANN, "policy.load", text=text)
    assert "own change" in await refused("denied", admin, ANN, "policy.approve", id=change.proposal)
    said = await refused(
        "denied", admin, who("abe", "approver"), "policy.approve", id=change.proposal
    )
    assert "policy.govern" in said
    await refused("denied", admin, who("leo", "loader"), "policy.approve", id=change.proposal)
    assert in_force(box) == GOVERNED
    assert (await call(admin, BOB, "policy.approve", id=change.proposal)).governs == (key,)
    assert in_force(box) == text


@run
async def test_the_same_person_in_another_role_is_no_second_person(host, box):
    admin = await start(box)
    change = await call(admin, who("cara", "careful"), "policy.load", text=RULE)
    await refused("denied", admin, who("cara", "governor"), "policy.approve", id=change.proposal)
    first = await call(admin, ROOT_CALLER, "policy.load", text=CHANGES["roles"])
    another = msgspec.structs.replace(ROOT_CALLER, subject="local:uid=0,pid=10")
    await refused("denied", admin, another, "policy.approve", id=first.proposal)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("front: [web_a]", "front: [web_a, lonely]"),
        ("label: group:front", "label: any"),
        ("loader: [{verbs: [", "loader: [{verbs: [policy.govern, "),
        ("approver: [", "approver: [{verbs: policy.load}, "),
    ],
)
@run
async def test_a_role_does_not_widen_itself_nor_another(old, new, host, box):
    admin = await start(box)
    text = GOVERNED.replace(old, new)
    assert text != GOVERNED
    for role in ("loader", "careful"):
        said = await refused("denied", admin, who("leo", role), "policy.load", text=text)
        assert "roles" in said
    assert in_force(box) == GOVERNED
    assert not await pending(admin)


@run
async def test_before_there_is_a_second_person_root_is_alone_and_after_not(host, box):
    admin = await start(box, POLICY)
    assert not (await call(admin, ROOT_CALLER, "policy.load", text=GOVERNED)).second_person
    assert in_force(box) == GOVERNED
    change = await call(admin, ROOT_CALLER, "policy.load", text=CHANGES["roles"])
    assert change.second_person
    assert not (await call(admin, ROOT_CALLER, "policy.load", text=RULE)).second_person
    await refused("not_found", admin, ANN, "policy.approve", id=change.proposal)


@run
async def test_root_may_be_the_second_person(host, box):
    admin = await start(
        box, GOVERNED.replace(", policy.approve]", "]").replace("policy.approve", "status")
    )
    change = await call(admin, ANN, "policy.load", text=GOVERNED)
    assert change.proposal
    await call(admin, ROOT_CALLER, "policy.approve", id=change.proposal)
    assert in_force(box) == GOVERNED


@run
async def test_a_signal_changes_nothing_that_is_governed_alone(host, box):
    await start(box)
    box.policy.write_text(CHANGES["protected"])
    box.brokerd.reload()
    assert in_force(box) == GOVERNED
    [proposal] = box.engine.state.proposals.values()
    assert (proposal.subject, proposal.person) == ("signal SIGHUP", "local:uid=0")
    await refused("denied", box.brokerd.admin, ROOT_CALLER, "policy.approve", id=proposal.id)
    box.policy.write_text(RULE)
    box.brokerd.reload()
    assert in_force(box) == RULE


@run
async def test_what_waits_is_listed_reviewed_and_survives_a_restart(host, box):
    admin = await start(box)
    host.create(3)
    box.label(uuid_of(3), "plain")
    text = CHANGES["protected"]
    change = await call(admin, ANN, "policy.load", text=text, source="new.yaml")
    again = await call(admin, ANN, "policy.load", text=text)
    assert again.proposal == change.proposal
    await box.stop()
    admin = (await box.start()).admin
    [listed] = await call(admin, who("leo", "loader"), "policy.pending")
    assert (listed.id, listed.subject, listed.role) == (change.proposal, "ann", "governor")
    assert (listed.source, listed.governs) == ("new.yaml", ("protected",))
    assert listed.expires - listed.proposed == proposals.LIFE
    review = await call(admin, BOB, "policy.review", id=change.proposal)
    assert (review.text, review.proposal) == (text, listed)
    assert (review.change.governs, review.change.dry_run) == (("protected",), True)
    status = await call(admin, ANN, "status")
    assert any(change.proposal in it for it in status.warnings)
    await call(admin, BOB, "policy.approve", id=change.proposal)
    assert in_force(box) == text
    assert not list(box.state.glob("proposal-*"))


@run
async def test_a_proposal_that_waited_too_long_is_gone(host, box):
    box.options["approval_life"] = 1800.0
    admin = await start(box)
    change = await call(admin, ANN, "policy.load", text=CHANGES["protected"])
    [listed] = await call(admin, ANN, "policy.pending")
    assert listed.expires - listed.proposed == 1800
    box.brokerd._policies.proposals._now = lambda: listed.expires
    assert not await pending(admin)
    await refused("not_found", admin, BOB, "policy.approve", id=change.proposal)
    [line] = box.lines("policy_dropped")
    assert (line["id"], line["why"], line["subject"]) == (change.proposal, "expired", "")
    assert not list(box.state.glob("proposal-*"))


@run
async def test_a_proposal_is_dropped_by_its_author_or_by_who_may_approve(host, box):
    admin = await start(box)
    for name, caller in (("policy.withdraw", ANN), ("policy.reject", who("abe", "approver"))):
        change = await call(admin, ANN, "policy.load", text=CHANGES["protected"])
        await refused("denied", admin, who("leo", "loader"), "policy.reject", id=change.proposal)
        await refused("denied", admin, who("leo", "loader"), "policy.withdraw", id=change.proposal)
        assert (await call(admin, caller, name, id=change.proposal)).id == change.proposal
        assert not await pending(admin)
        await refused("not_found", admin, BOB, "policy.approve", id=change.proposal)
    assert [it["why"] for it in box.lines("policy_dropped")] == ["withdrawn", "rejected"]
    assert not list(box.state.glob("proposal-*"))


@run
async def test_of_two_writers_with_one_digest_one_wins(host, box):
    admin = await start(box)
    digest = box.engine.judge.policy.digest
    texts = [RULE + f"# {number}\n" for number in range(2)]
    loader = who("leo", "loader")
    await call(admin, loader, "policy.load", text=texts[0], replaces=digest)
    said = await refused("conflict", admin, loader, "policy.load", text=texts[1], replaces=digest)
    assert digest in said
    assert in_force(box) == texts[0]


@run
async def test_a_proposal_replaces_only_what_it_was_made_for(host, box):
    admin = await start(box)
    change = await call(admin, ANN, "policy.load", text=CHANGES["protected"])
    await call(admin, who("leo", "loader"), "policy.load", text=RULE)
    await refused("not_found", admin, BOB, "policy.approve", id=change.proposal)
    assert in_force(box) == RULE
    assert not list(box.state.glob("proposal-*"))


@run
async def test_a_proposal_whose_bytes_were_changed_is_not_put_in_force(host, box):
    admin = await start(box)
    change = await call(admin, ANN, "policy.load", text=CHANGES["protected"])
    [path] = box.state.glob("proposal-*")
    path.write_text(CHANGES["roles"])
    await refused("unavailable", admin, BOB, "policy.approve", id=change.proposal)
    path.unlink()
    await refused("unavailable", admin, BOB, "policy.approve", id=change.proposal)
    assert in_force(box) == GOVERNED


@run
async def test_only_so_much_waits_at_once(host, box):
    admin = await start(box)
    texts = iter(CHANGES["protected"] + f"# {number}\n" for number in range(100))
    for _ in range(proposals.MOST_OF_ONE):
        await call(admin, ANN, "policy.load", text=next(texts))
    assert "too many" in await refused("conflict", admin, ANN, "policy.load", text=next(texts))
    for number in range(proposals.MOST - proposals.MOST_OF_ONE):
        caller = who(f"p{number // proposals.MOST_OF_ONE}", "governor")
        await call(admin, caller, "policy.load", text=next(texts))
    await refused("conflict", admin, who("other", "governor"), "policy.load", text=next(texts))
    assert len(await pending(admin)) == proposals.MOST


@run
async def test_what_cannot_be_written_down_waits_for_nobody(host, box, monkeypatch):
    admin = await start(box)
    with monkeypatch.context() as patched:
        patched.setattr(box.engine.audit, "commit", lambda *_: False)
        await refused("unavailable", admin, ANN, "policy.load", text=CHANGES["protected"])
        assert not await pending(admin)
    with monkeypatch.context() as patched:
        patched.setattr("broker.service.statedir.write_durably", _fails)
        await refused("unavailable", admin, ANN, "policy.load", text=CHANGES["protected"])
    assert not await pending(admin)


def _fails(*_):
    raise OSError(28, "No space left on device")


@run
async def test_a_verb_that_no_method_asks_for_is_warned_of(host, box):
    admin = await start(box, POLICY)
    roles = "roles: {op: [{verbs: [label.sat, lable.*, read, policy.govern, label.*]}]}\n"
    change = await call(admin, ROOT_CALLER, "policy.load", text=POLICY + roles, dry_run=True)
    assert [it.rpartition(" ")[2] for it in change.warnings] == ["label.sat", "lable.*"]
    assert all("role op" in it for it in change.warnings)


@pytest.fixture
def signed(box):
    """A signer that the broker knows; answers what he signs."""
    key = Ed25519PrivateKey.generate()
    path = box.directory / "signer.pub"
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    box.options["policy_signers"] = (path,)
    return lambda text: sign(text.encode(), key).decode()


@run
async def test_where_signers_are_only_signed_policies_load_and_only_forward(host, box, signed):
    admin = await start(box, signed(GOVERNED))
    assert in_force(box) == GOVERNED
    loader = who("leo", "loader")
    said = await refused("bad_input", admin, ROOT_CALLER, "policy.load", text=RULE)
    assert "not a signed policy" in said
    stranger = sign(RULE.encode(), Ed25519PrivateKey.generate()).decode()
    said = await refused("bad_input", admin, loader, "policy.load", text=stranger)
    assert "signed by none" in said
    await call(admin, loader, "policy.load", text=signed(RULE))
    assert in_force(box) == RULE
    assert box.lines("policy_loaded")[-1]["signer"]
    # An old one shown again, also after a restart, and one of the same version.
    await box.stop()
    admin = (await box.start()).admin
    for old in (GOVERNED, RULE + "# as old\n"):
        said = await refused("conflict", admin, loader, "policy.load", text=signed(old))
        assert "higher" in said
    assert not (await call(admin, loader, "policy.load", text=signed(RULE))).changed
    assert in_force(box) == RULE


@run
async def test_a_signed_policy_waits_as_any_other(host, box, signed):
    admin = await start(box, signed(GOVERNED))
    text = CHANGES["protected"].replace('"1.0"', '"1.1"')
    change = await call(admin, ANN, "policy.load", text=signed(text))
    assert (await call(admin, BOB, "policy.review", id=change.proposal)).text == text
    await call(admin, BOB, "policy.approve", id=change.proposal)
    assert in_force(box) == text
    assert box.lines("policy_loaded")[-1]["signer"]


@run
async def test_a_signed_policy_is_refused_where_nobody_is_known_to_sign(host, box):
    admin = await start(box)
    text = sign(RULE.encode(), Ed25519PrivateKey.generate()).decode()
    said = await refused("bad_input", admin, ROOT_CALLER, "policy.load", text=text)
    assert "policy_signers" in said


@run
async def test_a_first_policy_that_is_not_signed_keeps_the_broker_from_starting(host, box, signed):
    box.policy.write_text(GOVERNED)
    with pytest.raises(RefusedError, match="not a signed policy"):
        await box.start()
    box.brokerd = None
    assert signed
