"""docs/service.md names what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from broker.rpc.methods import FindingKind
from broker.systemd.journal import message_id

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/service.md").read_text()


def test_every_finding_is_explained_and_none_that_is_not():
    rows = dict(re.findall(r"(?m)^\| `([a-z_]+)` \| (red|amber) \|", PAGE))
    assert set(rows) == set(get_args(FindingKind))
    health = (ROOT / "broker/service/health.py").read_text()
    for kind, level in rows.items():
        if not kind.startswith(("certificate", "denylist")):  # their level is a certificate's
            assert re.search(rf'_{level}\(\s*"{kind}"', health), kind


def test_the_ids_of_messages_are_those_that_are_sent():
    rows = re.findall(r"(?m)^\| `([a-z_]+)` \| `([0-9a-f]{32})` \|", PAGE)
    assert len(rows) == 5
    for kind, known in rows:
        assert message_id(kind) == known
    audit = (ROOT / "broker/service/audit.py").read_text()
    assert {kind for kind, _ in rows} == set(re.findall(r'kind="([a-z_]+)"', audit))


def test_every_unit_is_named():
    for unit in (ROOT / "etc/systemd").iterdir():
        assert f"`{unit.name}`" in PAGE
