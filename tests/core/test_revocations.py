"""Which grants wait for a revocation to be confirmed, and what confirms one."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.channels import Decision
from broker.core.revocations import (
    Report,
    Revocation,
    Unconfirmed,
    confirms,
    parse_report,
    taken_back,
)

LIFE, NEXT = "a" * 32, "b" * 32
GRANT = Decision(
    "grant", "uuid-a", LIFE, "0" * 64, ("red", "dom0"), "lun", "sha256:0", "sha256:1", ""
)
REVOKED = Revocation(7, LIFE, "uuid-a", "red", "lun")


def other(**changes):
    """A grant that has nothing to do with what was revoked, but for `changes`."""
    decision = msgspec.structs.replace(
        GRANT, uuid="uuid-b", nonce=NEXT, labels=("blue", "dom0"), resource="other"
    )
    return msgspec.structs.replace(decision, **changes)


def apart(a, b):
    return {a, b} == {"red", "walled"}


@pytest.mark.parametrize("verdict", ["deny", "pending"])
def test_a_record_that_no_longer_grants_takes_the_grant_back(verdict):
    after = msgspec.structs.replace(GRANT, verdict=verdict)
    assert taken_back(GRANT, after, 7) == REVOKED


def test_nothing_is_taken_back_where_nothing_was_granted_or_it_still_is():
    denied = msgspec.structs.replace(GRANT, verdict="deny")
    assert taken_back(None, denied, 7) is None
    assert taken_back(denied, denied, 7) is None
    assert taken_back(GRANT, GRANT, 7) is None
    assert taken_back(msgspec.structs.replace(GRANT, nonce=None), denied, 7) is None


@pytest.mark.parametrize(
    ("report", "nonce", "confirmed"),
    [
        (Report("closed", 7, LIFE, ""), LIFE, True),
        (Report("suspended", 8, LIFE, ""), LIFE, True),
        (Report("open", 7, LIFE, ""), LIFE, False),
        (Report("failed", 7, LIFE, ""), LIFE, False),
        (Report("closed", 6, LIFE, ""), LIFE, False),
        (Report("closed", None, LIFE, ""), LIFE, False),
        (None, LIFE, False),
        (None, None, False),
        # A report for another life than the one reported now may be from before it.
        (Report("closed", 9, NEXT, ""), LIFE, False),
        (Report("closed", 9, NEXT, ""), None, False),
        # The agent has begun another life: this one is over.
        (Report("open", 6, LIFE, ""), NEXT, True),
    ],
)
def test_only_a_report_of_that_life_closed_by_that_record_confirms(report, nonce, confirmed):
    assert confirms(REVOKED, nonce, report) is confirmed


@pytest.mark.parametrize(
    ("decision", "waits"),
    [
        (other(), False),
        (other(uuid="uuid-a"), True),
        (other(resource="lun"), True),
        (other(labels=("walled", "dom0")), True),
        (other(labels=("red", "dom0")), False),
        (other(uuid=None, resource=None, labels=(None, None)), False),
    ],
)
def test_a_grant_waits_for_its_own_domain_its_resource_and_the_wall(decision, waits):
    unconfirmed = Unconfirmed([("/p", REVOKED)])
    assert unconfirmed.awaited("/q", decision, apart) == ("/p" if waits else "")
    assert unconfirmed.awaited("/p", decision, apart) == ""
    unconfirmed.drop("/p")
    assert unconfirmed.awaited("/q", decision, apart) == ""
    assert unconfirmed == Unconfirmed()
    assert unconfirmed.released == 1


def test_the_first_revocation_of_a_channel_stands_until_it_is_over():
    unconfirmed = Unconfirmed([("/p", REVOKED)])
    unconfirmed.add("/p", msgspec.structs.replace(REVOKED, seq=9))
    assert unconfirmed.get("/p") == REVOKED


@given(st.binary(max_size=200))
def test_no_report_however_malformed_raises(untrusted_text):
    parse_report(untrusted_text)


def test_a_report_is_read_to_the_letter():
    text = f"closed seq=7 nonce={LIFE} reason=no%20more"
    assert parse_report(text.encode()) == Report("closed", 7, LIFE, "no more")
    for bad in ("", text + " ", text.replace("seq=7", "seq=07"), text.replace("%20", "%2")):
        assert parse_report(bad.encode()) is None
    assert parse_report(None) is None


def test_a_reason_that_is_no_unicode_does_not_keep_channels_from_being_listed():
    report = parse_report(f"failed seq=7 nonce={LIFE} reason=%FF%20x".encode())
    assert report == Report("failed", 7, LIFE, "\\xff x")
    assert msgspec.json.encode(report)


names = st.sampled_from(["a", "b", "c", None])
revoked = st.builds(Revocation, st.integers(1, 9), st.just(LIFE), names, names, names)


@given(st.dictionaries(st.sampled_from(["/1", "/2", "/3", "/4"]), revoked), names, names, names)
def test_what_is_awaited_is_what_asking_each_would_find(held, uuid, label, resource):
    decision = msgspec.structs.replace(GRANT, uuid=uuid, labels=(label, "dom0"), resource=resource)

    def conflict(mine, theirs):
        return mine != theirs and "c" in (mine, theirs)

    def meets(it):
        return (
            (it.uuid is not None and it.uuid == uuid)
            or (it.resource is not None and it.resource == resource)
            or (None not in (label, it.label) and conflict(label, it.label))
        )

    wanted = {path for path, it in held.items() if meets(it) and path != "/1"}
    found = Unconfirmed(held.items()).awaited("/1", decision, conflict)
    assert (found in wanted) if wanted else found == ""
