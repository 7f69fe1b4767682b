from __future__ import annotations

from pathlib import Path

from differences import ROWS, table

DOCUMENT = Path(__file__).parents[2] / "docs" / "xenstore-daemons.md"


def test_the_document_holds_the_table_the_tests_go_by():
    assert table() in DOCUMENT.read_text()


def test_each_difference_is_one():
    assert all(not (row.c == row.oxenstored == row.embedded) for row in ROWS)
    assert len({row.name for row in ROWS}) == len(ROWS)
