"""`brokerctl policy diff`: what two policies decide differently."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from broker.cli import client, connection, groups, offline, show
from broker.cli.client import SUCCESS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Sequence

    from broker.core.difference import ChannelChange, Difference, PairChange, RunChange
    from broker.core.policy import Policy
    from broker.core.settings import SettingChange
    from broker.rpc.client import Client
    from broker.rpc.methods import PolicyChange

_Change = TypeVar("_Change", "ChannelChange", "PairChange", "RunChange")
_MOST_NAMES: Final = 12
"""More names of one list are counted; `--all` and `--json` give all."""
_LONGEST: Final = 1000
_EVERY: Final = 1 << 30


def register(commands: groups.Commands) -> None:
    """Add the command."""
    leaf = groups.command(
        groups.group(commands, "policy"),
        "diff",
        offline.reporting(_diff),
        help="what two policies decide differently: exact, whatever their texts",
        example="brokerctl policy diff corp-1.3.yaml corp-1.4.yaml",
    )
    leaf.add_argument("old", metavar="OLD", type=Path, help="the policy that is (YAML)")
    leaf.add_argument("new", metavar="NEW", type=Path, help="the policy that may be")
    leaf.add_argument("--all", action="store_true", help="lists of names in full, however long")
    leaf.add_argument(
        "--live",
        action="store_true",
        help="also what NEW would change for running domains and channels; OLD is in force",
    )
    connection.add_options(leaf, top=False)


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change as JSON: `kind`, whether something is gained, and what it is about."""

    kind: str
    gained: bool | None = None
    device_class: str | None = msgspec.field(name="class", default=None)
    access: str | None = None
    frontends: Sequence[str] | None = None
    backends: Sequence[str] | None = None
    resources: Sequence[str] | None = None
    labels: Sequence[str] | None = None
    others: Sequence[str] | None = None
    name: str | None = None
    before: str | None = None
    now: str | None = None


class _Same(msgspec.Struct, frozen=True):
    same_decisions: bool
    old: str
    new: str


def _diff(options: argparse.Namespace) -> int:
    from broker.core.difference import difference  # noqa: PLC0415 - as in offline.policy
    from broker.core.settings import setting_changes  # noqa: PLC0415

    old, new = offline.policy(options.old), offline.policy(options.new)
    found = difference(old, new)
    settings = setting_changes(old, new)
    if options.json:
        for line in _lines(found, settings):
            show.json_line(line)
        show.json_line(_Same(found.empty, old.digest, new.digest))
    else:
        _print(old, new, found, settings, _EVERY if options.all else _MOST_NAMES)
    if options.live:
        return client.asking(lambda broker, _: _live(broker, old, options))(options)
    return SUCCESS


def _live(broker: Client, old: Policy, options: argparse.Namespace) -> int:
    """What a dry run says of the domains that run, if OLD is what is in force."""
    change: PolicyChange = client.call(
        broker,
        "policy.load",
        text=offline.read(options.new).decode("utf-8"),
        source=str(options.new),
        replaces=old.digest,
        dry_run=True,
    )
    if options.json:
        show.json_line(change)
        return SUCCESS
    lines = [
        *(f"- {channel}" for channel in change.closes),
        *(f"+ {channel}" for channel in change.opens),
        *(f"- domain {domain}" for domain in change.refuses),
        *(f"- domain {domain}: its label is gone" for domain in change.unlabels),
    ]
    show.line("running now" if lines else "running now: nothing gains or loses")
    for line in lines:
        show.line(f"  {show.text(line, _LONGEST)}")
    return SUCCESS


def _lines(found: Difference, settings: Iterable[SettingChange]) -> Iterable[_Line]:
    for change in settings:
        yield _Line(change.what, name=change.name, before=change.before, now=change.now)
    for channel in found.channels:
        yield _Line(
            "channel",
            channel.gained,
            channel.device_class,
            channel.access,
            channel.frontends,
            channel.backends,
            channel.resources,
        )
    for pair in found.pairs:
        yield _Line(pair.what, pair.gained, labels=pair.labels, others=pair.others)
    for run in found.runs:
        yield _Line("run", run.gained, labels=run.labels)


def _print(
    old: Policy,
    new: Policy,
    found: Difference,
    settings: Sequence[SettingChange],
    most: int,
) -> None:
    named = f"{_version(old)} to {_version(new)}"
    if old.digest == new.digest:
        show.line(f"{named}: the same file")
        return
    if found.empty:
        show.line(f"{named}: the same decisions")
    else:
        show.line(named)
    for gained, title in ((True, "granted now"), (False, "granted no more")):
        _section(
            f"{title} (class: frontends -> backends)", found.channels, _channel, most, gained=gained
        )
    for what, ours in (("frames", "exchange frames"), ("together", "run together")):
        pairs = [pair for pair in found.pairs if pair.what == what]
        for gained, title in ((True, f"may {ours} now"), (False, f"may {ours} no more")):
            _section(title, pairs, _pair, most, gained=gained)
    for gained, title in ((True, "may run here now"), (False, "may run here no more")):
        _section(title, found.runs, _run, most, gained=gained)
    for what, title in (
        ("label", "labels (was -> is)"),
        ("resource", "resources (was -> is)"),
        ("class", "classes (was -> is)"),
        ("setting", "settings (was -> is)"),
    ):
        changes = [change for change in settings if change.what == what]
        if changes:
            show.line(f"\n{title}")
        for change in changes:
            sign = "+" if not change.before else "-" if not change.now else " "
            show.item(f"{sign} {change.name}: ", _both(change))


def _both(change: SettingChange) -> str:
    if not change.before or not change.now:
        return show.text(change.before or change.now, _EVERY)
    return show.text(f"{change.before} -> {change.now}", _EVERY)


def _section(
    title: str,
    changes: Iterable[_Change],
    words: Callable[[_Change, int], tuple[str, str]],
    most: int,
    *,
    gained: bool,
) -> None:
    told = [change for change in changes if change.gained is gained]
    if told:
        show.line(f"\n{title}")
    sign = "+" if gained else "-"
    for change in told:
        start, rest = words(change, most)
        show.item(f"{sign} {start}", rest)


def _channel(change: ChannelChange, most: int) -> tuple[str, str]:
    sides = f"{_names(change.frontends, most)} -> {_names(change.backends, most)}"
    over = f" over {_names(change.resources, most)}" if change.resources else ""
    access = "" if change.access == "all" else f" ({change.access})"
    return f"{show.text(change.device_class)}: ", f"{sides}{over}{access}"


def _pair(change: PairChange, most: int) -> tuple[str, str]:
    return "", f"{_names(change.labels, most)} with {_names(change.others, most)}"


def _run(change: RunChange, most: int) -> tuple[str, str]:
    return "", _names(change.labels, most)


def _names(names: Sequence[str], most: int) -> str:
    shown = ", ".join(show.text(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _version(policy: Policy) -> str:
    return f"{show.text(policy.name)} {policy.version[0]}.{policy.version[1]}"
