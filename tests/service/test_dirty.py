"""The dirty set: what an event asks to read, deduplicated, bounded and fair."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from broker.service.budget import Budget, Ledger
from broker.service.dirty import GUEST_LIMIT, GUEST_SHARE, HOST, DirtySet, Kind, classify

SEGMENT = st.sampled_from(
    [
        *("local", "domain", "vm", "libxl", "device", "vif", "0", "7", "07", "99999", "backend"),
        *("broker", "v1", "report", "decision", "nonce", "security", "", "..", "x" * 40),
    ]
)


@pytest.mark.parametrize(
    ("path", "kind", "account"),
    [
        ("/local/domain/7", Kind.DOMAIN, 7),
        ("/local/domain/7/vm", Kind.DOMAIN, 7),
        ("/local/domain/7/device/vif/0", Kind.FRONTEND, 7),
        ("/local/domain/7/device/vif/0/backend-id", Kind.FRONTEND, 7),
        ("/local/domain/7/device", Kind.FRONTEND, 7),
        ("/local/domain", Kind.WORLD, HOST),
        ("@releaseDomain", Kind.WORLD, HOST),
        ("/libxl/7", Kind.DOMAIN, HOST),
        ("/libxl/7/device/vif/0", Kind.DEVICE, HOST),
        ("/libxl/7/device/vbd/51712/params", Kind.DEVICE, HOST),
        ("/vm/u/name", Kind.VM, HOST),
        ("/vm/u/security/acm_label/labelname", Kind.VM, HOST),
        ("/vm/u/security/channel/vif/0", Kind.SHOWN, HOST),
        ("/broker/v1/report/5/vif/7/0/nonce", Kind.NONCE, 5),
        ("/broker/v1/report/5/vif/7/0/enforced", Kind.ENFORCED, 5),
        ("/broker/v1/report/5/vif", Kind.REPORTS, 5),
        ("/broker/v1/decision/5/vif/7/0", Kind.RECORD, HOST),
        ("/broker/v1/decision/5", Kind.RECORDS, HOST),
    ],
)
def test_the_path_alone_says_what_to_read_and_on_whose_account(path, kind, account):
    item = classify(path)
    assert (item.kind, item.account) == (kind, account)


@pytest.mark.parametrize(
    "path",
    [
        "/local/domain/7/data/x",
        "/local/domain/7/device/vif/0/state",
        "/local/domain/0/backend/vif/7/0/state",
        "/local/domain/07/vm",
        "/local/domain/40000",
        "/libxl/7/dm-version",
        "/libxl/7/device/vif/0/hotplug-status",
        "/broker/v1/heartbeat",
        "/broker/v1/report/5/vif/7/0/other",
        "/tool/x",
        "@other",
    ],
)
def test_what_decides_nothing_is_not_read(path):
    assert classify(path) is None


@given(st.lists(SEGMENT, max_size=9).map("/".join), st.booleans())
def test_no_path_makes_it_fail(path, rooted):
    item = classify("/" + path if rooted else path)
    assert item is None or item.path


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2000)), max_size=300))
def test_everything_noted_is_taken_once_and_no_account_takes_more_than_its_share(writes):
    dirty = DirtySet()
    noted = set()
    for domid, number in writes:
        item = classify(f"/local/domain/{domid}/device/vif/{number}/backend")
        noted.add(item.path)
        dirty.add(item)
    taken = []
    while dirty:
        turn = dirty.take()
        for domid in range(4):
            assert sum(item.account == domid for item in turn) <= GUEST_SHARE
        taken += [item.path for item in turn]
    assert sorted(taken) == sorted(noted)


def test_a_guest_that_writes_too_much_is_read_whole_and_takes_no_more_room():
    dirty = DirtySet()
    for number in range(100 * GUEST_LIMIT):
        dirty.add(classify(f"/local/domain/7/device/vif/{number}/backend"))
        assert len(dirty) <= GUEST_LIMIT
    dirty.add(classify("/libxl/8/device/vif/0"))
    seen = dirty.take()
    assert any(item.kind is Kind.DEVICE and item.domid == 8 for item in seen)
    while dirty:
        seen += dirty.take()
    assert any(item.kind is Kind.DOMAIN and item.domid == 7 for item in seen)


def test_repeats_are_counted_and_a_domain_beyond_its_budget_is_exhausted():
    ledger = Ledger(Budget(2, 10.0))
    assert ledger.charge(7, "x", "a", 0.0) == "write"
    assert ledger.charge(7, "x", "a", 0.0) == "count"
    assert ledger.charge(7, "x", "b", 0.0) == "write"
    assert ledger.charge(7, "x", "c", 0.0) == "exhausted"
    assert ledger.charge(8, "x", "c", 0.0) == "write"
    assert ledger.charge(7, "x", "d", 10.0) == "write"
    assert ledger.counted() == {"domain 7: x": 2}
    assert ledger.counted() == {}
