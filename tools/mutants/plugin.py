"""Runs the tests that are collected against each mutant of the tables, until one fails.

    .venv/bin/python -m pytest -p tools.mutants.plugin --mutants=labels|filters [--mutant REGEX]
        tests/net/...

Prints a table: each mutant, and the test that noticed it. A mutant that no test notices makes
this fail. Tests must make the tables in their own process.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import TYPE_CHECKING

from _pytest.runner import runtestprotocol

from broker.net.libnftables import Libnftables
from broker.net.probe import probe
from tools.mutants import filters, tables

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import pytest

Mutant = tables.Mutant | filters.Mutant


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that has this plugin run mutants."""
    group = parser.getgroup("mutants")
    group.addoption("--mutants", choices=["labels", "filters"], help="of which tables")
    group.addoption("--mutant", default="", help="only mutants whose name matches this expression")


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Instead of the tests once: without a mutant, and then with each."""
    of = session.config.getoption("--mutants")
    if not of or session.config.getoption("collectonly"):
        return None
    taken: dict[pytest.Item, float] = {}
    # Hypothesis refuses to run one test again and again in one process; those are of pure parts.
    items = [it for it in session.items if not it.get_closest_marker("hypothesis")]
    for item in items:
        began = time.monotonic()
        if _fails(item):
            print(f"\nfails without any mutant: {item.nodeid}")
            session.testsfailed += 1
            return True
        taken[item] = time.monotonic() - began
    kills: Counter[tuple[pytest.Item, str]] = Counter()
    survivors = []
    knows_bridge = probe(Libnftables()).knows_bridge
    chosen = [
        it
        for it in (
            filters.mutants() if of == "filters" else tables.mutants(knows_bridge=knows_bridge)
        )
        if re.search(session.config.getoption("--mutant"), it.name)
    ]
    print(f"\n{len(chosen)} mutants, {len(taken)} tests; bridges told apart: {knows_bridge}")
    for mutant in chosen:
        # Those that have noticed much for their time go first, above all in the same chain.
        order = sorted(
            items,
            key=lambda it, chain=mutant.chain: (
                (1 + kills[it, ""] + 10 * kills[it, chain]) / taken[it]
                + 100 * (f"[{chain}]" in it.name)
            ),
            reverse=True,
        )
        killer = _noticed(mutant, order)
        if killer is None:
            survivors.append(mutant)
            print(f"SURVIVED | {mutant.name}", flush=True)
        else:
            kills.update([(killer, ""), (killer, mutant.chain)])
            print(f"noticed  | {mutant.name} | {killer.name}", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants noticed")
    session.testsfailed += len(survivors)
    return True


def _in_force(mutant: Mutant) -> AbstractContextManager[None]:
    if isinstance(mutant, filters.Mutant):
        return filters.in_force(mutant)
    return tables.in_force(mutant)


def _noticed(mutant: Mutant, items: list[pytest.Item]) -> pytest.Item | None:
    for item in items:
        with _in_force(mutant):
            failed = _fails(item)
        if failed and not _fails(item):
            return item
        if failed:  # it has noticed nothing
            print(f"         | fails without any mutant now: {item.nodeid}", flush=True)
    return None


def _fails(item: pytest.Item) -> bool:
    reports = runtestprotocol(item, log=False, nextitem=None)
    return any(report.failed for report in reports)
