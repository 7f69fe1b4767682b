"""The tables' rules, each removed, weakened or turned round: what the tests must all notice.

Made from the rules themselves, so that a new rule has its mutants at once.
"""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from broker.net import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Chains = dict[str, tuple[str, ...]]

_CLAUSE: Final = re.compile(
    r"""(?:iif|oif)\ \.\ ether\ saddr\ @\w+
    | (?:iif|oif|iifname|oifname)\ (?:@\w+|"[^"]*")
    | meta\ (?:ibrname|obrname)\ @\w+
    | meta\ mark\ &\ \w+\ ==\ \w+
    | meta\ mark\ \.\ meta\ priority\ @\w+
    | meta\ \w+\ set\ \w+\ map\ @\w+
    | meta\ \w+\ set\ [\w:]+
    | icmpv6\ type\ \{[^}]*\}
    | ip6\ hoplimit\ \d+
    | add\ @\w+\ \{[^}]*\}
    | limit\ rate\ \S+\ burst\ \d+\ packets
    | log\ prefix\ "\w+"\ group\ \d+\ snaplen\ \d+
    | goto\ \w+
    | accept | drop | counter""",
    re.VERBOSE,
)
_VERDICT: Final = re.compile(r"accept|drop|goto \w+")


class Mutant(msgspec.Struct, frozen=True):
    """One change of one table: its name, and what makes the changed chains and bases of it."""

    name: str
    table: str
    chain: str
    change: Callable[[tuple[str, ...]], tuple[str, ...]] | None = None
    base: Callable[[str], str] | None = None


def clauses(rule: str) -> list[str]:
    """The parts of a rule, in order; what has none of the forms above is one part."""
    found, at = [], 0
    for known in _CLAUSE.finditer(rule):
        found += [rule[at : known.start()].strip(), known.group()]
        at = known.end()
    return [part for part in (*found, rule[at:].strip()) if part]


def mutants(*, knows_bridge: bool) -> list[Mutant]:
    """All of them, for a kernel of this ability."""
    made: list[Mutant] = []
    for table in tables.FAMILIES:
        for chain, rules in tables.chains(table, knows_bridge=knows_bridge).items():
            base = tables._base(chain) if chain in tables._HOOKS else ""  # noqa: SLF001 - mutated
            if base:
                made += _of_base(table, chain)
            for place, rule in enumerate(rules):
                for what, other in _of_rule(rule):
                    name = f"{table} {chain}[{place}] {what}"
                    made.append(Mutant(name, table, chain, _replaced(place, other)))
    return made


@contextmanager
def in_force(mutant: Mutant) -> Iterator[None]:
    """Within, tables that are made in this process have this change."""
    chains, base = tables.chains, tables._base  # noqa: SLF001 - this is what is mutated

    def changed(table: str, *, knows_bridge: bool) -> Chains:
        found = dict(chains(table, knows_bridge=knows_bridge))
        if table == mutant.table and mutant.change is not None:
            found[mutant.chain] = mutant.change(found[mutant.chain])
        if table == mutant.table and mutant.base is not None:
            # The skeleton asks for the chain's base just after this.
            bases[mutant.chain] = mutant.base
        else:
            bases.clear()
        return found

    def based(hook: str) -> str:
        return bases.get(hook, str)(base(hook))

    bases: dict[str, Callable[[str], str]] = {}
    users = [it for it in list(sys.modules.values()) if getattr(it, "chains", None) is chains]
    for module in users:
        module.chains = changed  # type: ignore[attr-defined]
    tables._base = based  # noqa: SLF001
    try:
        yield
    finally:
        for module in users:
            module.chains = chains  # type: ignore[attr-defined]
        tables._base = base  # noqa: SLF001


def _of_base(table: str, chain: str) -> list[Mutant]:
    changes: dict[str, Callable[[str], str]] = {
        "accepts by policy": lambda text: text.replace("policy drop", "policy accept"),
        "is at priority 0": lambda text: re.sub(r"priority -\d+", "priority 0", text),
        "has no hook": lambda _: "",
    }
    return [Mutant(f"{table} {chain} {it}", table, chain, base=how) for it, how in changes.items()]


def _of_rule(rule: str) -> Iterator[tuple[str, str | None]]:
    """What is done to a rule, in words, and what becomes of it (None: nothing is left)."""
    yield f"without: {rule}", None
    parts = clauses(rule)
    for place, part in enumerate(parts):
        if _VERDICT.fullmatch(part):
            for other in ("drop", "accept"):
                if part != other:
                    yield f"{other} for {part}: {rule}", _joined(parts, place, other)
        elif len(parts) > 1:
            yield f"without {part}: {rule}", _joined(parts, place, None)


def _joined(parts: list[str], place: int, other: str | None) -> str:
    kept = [*parts[:place], *([] if other is None else [other]), *parts[place + 1 :]]
    return " ".join(kept)


def _replaced(place: int, other: str | None) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    def replaced(rules: tuple[str, ...]) -> tuple[str, ...]:
        return (*rules[:place], *([] if other is None else [other]), *rules[place + 1 :])

    return replaced
