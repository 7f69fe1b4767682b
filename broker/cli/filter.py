"""`brokerctl filter …`: filter profiles in force, and whose vifs they are on."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from broker.cli import client, connection, groups, offline, show
from broker.rpc.errors import RpcError

if TYPE_CHECKING:
    import argparse

    from broker.cli.groups import Commands, Parser
    from broker.rpc.client import Client
    from broker.rpc.methods import filters as methods


def register(commands: Commands) -> None:
    """Add the commands."""
    client.method_command(commands, "filter.list", _list)
    _profile(client.method_command(commands, "filter.dump", _dump))
    leaf = client.method_command(commands, "filter.create", _create)
    leaf.add_argument("file", metavar="FILE", type=Path, help="the profile (YAML)")
    leaf = client.method_command(commands, "filter.update", _update)
    leaf.add_argument("file", metavar="FILE", type=Path, help="the profile (YAML)")
    leaf.add_argument("--replaces", metavar="DIGEST", help="only if this text is in force now")
    leaf.add_argument("--dry-run", action="store_true", help="say whether it would fit")
    leaf = groups.command(
        groups.group(commands, "filter"),
        "edit",
        client.asking(_edit),
        help="edit a filter profile in $EDITOR, and put it in place if nobody else did",
        example="brokerctl filter edit web-only",
    )
    connection.add_options(leaf, top=False)
    _profile(leaf)
    leaf = client.method_command(commands, "filter.destroy", _destroy)
    _profile(leaf)
    leaf.add_argument("--replaces", metavar="DIGEST", help="only if this text is in force now")
    leaf = client.method_command(commands, "filter.attach", _attach)
    _bound(leaf)
    leaf.add_argument(
        "--set",
        metavar="NAME=VALUE[,VALUE]",
        action="append",
        default=[],
        help="what a variable is given: IP=10.0.0.5,10.0.0.6",
    )
    _bound(client.method_command(commands, "filter.detach", _detach))
    client.method_command(commands, "filter.attached", _attached)
    client.method_command(commands, "filter.vifs", _vifs)
    client.method_command(commands, "filter.counts", _counts)
    leaf = client.method_command(commands, "filter.show", _show)
    leaf.add_argument("domain", metavar="DOMAIN", help="a running domain: domid, uuid or name")
    leaf.add_argument("--vif", metavar="DEVID", default="0", help="which; default: 0")
    leaf = client.method_command(commands, "filter.test", _test)
    leaf.add_argument("frame", metavar="FRAME", help="hex digits, or a file: pcap, or hex digits")
    leaf.add_argument("--vif", metavar="DOMAIN[/DEVID]", required=True, help="whose profiles")
    leaf.add_argument(
        "--direction",
        choices=["from-guest", "to-guest"],
        default="from-guest",
        help="default: from-guest",
    )
    leaf.add_argument(
        "--state",
        metavar="STATE",
        choices=["new", "established", "related", "invalid", "untracked"],
        help="of its connection: new, established, related, invalid or untracked; default: all "
        "that such a frame can have",
    )
    leaf.add_argument(
        "--learned", metavar="IP", action="append", help="an address taken to be learned"
    )


def _profile(leaf: Parser) -> None:
    leaf.add_argument("name", metavar="PROFILE")


def _bound(leaf: Parser) -> None:
    leaf.add_argument("domain", metavar="DOMAIN", help="a domid, a uuid or a name")
    _profile(leaf)
    leaf.add_argument("--vif", metavar="DEVID", help="on this vif alone; without it on all")


def _list(broker: Client, options: argparse.Namespace) -> int:
    profiles: tuple[methods.FilterProfile, ...] = client.call(broker, "filter.list")
    if options.json:
        for profile in profiles:
            show.json_line(profile)
        return client.SUCCESS
    rows = [
        (it.name, "shipped" if it.shipped else "stored", len(it.users), it.description)
        for it in profiles
    ]
    show.table(["Profile", "Is", "Users", "Description"], rows)
    return client.SUCCESS


def _dump(broker: Client, options: argparse.Namespace) -> int:
    profile: methods.FilterText = client.call(broker, "filter.dump", profile=options.name)
    if options.json:
        show.json_line(profile)
    else:
        # Bytes, so that what is written has the digest that is in force.
        show.document(profile.text)
        print(f"# {show.text(profile.digest)}", file=sys.stderr)
    return client.SUCCESS


def _text(path: Path) -> str:
    try:
        return offline.read(path).decode("utf-8")
    except UnicodeDecodeError:
        raise RpcError("bad_input", f"{path} is not UTF-8") from None


def _create(broker: Client, options: argparse.Namespace) -> int:
    change = client.call(
        broker, "filter.create", text=_text(options.file), source=str(options.file)
    )
    return _changed(change, options, "stored")


def _update(broker: Client, options: argparse.Namespace) -> int:
    change = client.call(
        broker,
        "filter.update",
        text=_text(options.file),
        source=str(options.file),
        replaces=options.replaces,
        dry_run=options.dry_run,
    )
    return _changed(change, options, "would be updated" if options.dry_run else "updated")


def _edit(broker: Client, options: argparse.Namespace) -> int:
    held: methods.FilterText = client.call(broker, "filter.dump", profile=options.name)
    with tempfile.TemporaryDirectory(prefix="brokerctl-") as directory:
        file = Path(directory) / f"{held.name}.yaml"
        file.write_text(held.text, encoding="utf-8")
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
        # The administrator's own words: options may stand there, as git and crontab take them.
        ended = subprocess.run(["/bin/sh", "-c", f'{editor} "$1"', "sh", file], check=False)  # noqa: S603
        if ended.returncode:
            raise RpcError("bad_input", f"the editor ended with {ended.returncode}")
        text = _text(file)
    change = client.call(
        broker,
        "filter.update",
        text=text,
        source=f"{held.name}.yaml",
        replaces=held.digest,
    )
    return _changed(change, options, "updated")


def _destroy(broker: Client, options: argparse.Namespace) -> int:
    change: methods.FilterChange = client.call(
        broker, "filter.destroy", profile=options.name, replaces=options.replaces
    )
    return _changed(change, options, "destroyed" if change.digest is None else "shipped text again")


def _changed(change: methods.FilterChange, options: argparse.Namespace, what: str) -> int:
    if options.json:
        show.json_line(change)
    elif not change.changed:
        show.line(f"{show.text(change.name)}: in force already")
    else:
        show.line(f"{show.text(change.name)}: {what}, on {change.vifs} vifs now")
    return client.SUCCESS


def _attach(broker: Client, options: argparse.Namespace) -> int:
    given = {}
    for text in options.set:
        name, equals, values = text.partition("=")
        if not equals or name in given:
            raise RpcError("bad_input", f"--set {text}: NAME=VALUE, each name once")
        given[name] = tuple(value for value in values.split(",") if value)
    answer = client.call(
        broker,
        "filter.attach",
        domain=options.domain,
        profile=options.name,
        device=options.vif,
        given=given,
    )
    return _told(answer, options, "attached")


def _detach(broker: Client, options: argparse.Namespace) -> int:
    answer = client.call(
        broker, "filter.detach", domain=options.domain, profile=options.name, device=options.vif
    )
    return _told(answer, options, "detached")


def _told(answer: methods.FilterAttached, options: argparse.Namespace, what: str) -> int:
    if options.json:
        show.json_line(answer)
    else:
        word = what if answer.changed else "attached so already"
        show.line(f"{show.text(options.name)}: {word}; {answer.vifs} vifs of it run")
    return client.SUCCESS


def _attached(broker: Client, options: argparse.Namespace) -> int:
    found: tuple[methods.FilterAttachment, ...] = client.call(broker, "filter.attached")
    if options.json:
        for attachment in found:
            show.json_line(attachment)
    elif found:
        rows = [
            (f"{it.bound_by}:{it.key}", it.device or "all", it.name, _given(it.given), it.set_by)
            for it in found
        ]
        show.table(["Domain", "Vif", "Profile", "Variables", "By"], rows)
    else:
        client.complain("nothing is attached but by the policy")
    return client.SUCCESS


def _given(given: dict[str, tuple[str, ...]]) -> str:
    return " ".join(f"{name}={','.join(values)}" for name, values in given.items())


def _vifs(broker: Client, options: argparse.Namespace) -> int:
    found: tuple[methods.FilteredVif, ...] = client.call(broker, "filter.vifs")
    if options.json:
        for vif in found:
            show.json_line(vif)
        return client.SUCCESS
    rows = [
        (
            f"{it.frontend_name or it.frontend}/{it.device}",
            ", ".join(it.profiles),
            _given(it.variables),
            ", ".join(it.learned),
            it.problem,
        )
        for it in found
    ]
    show.table(["Vif", "Profiles", "Variables", "Learned by DHCP", "Closed, because"], rows)
    return client.SUCCESS


def _counts(broker: Client, options: argparse.Namespace) -> int:
    reports: tuple[methods.FilterCounts, ...] = client.call(broker, "filter.counts")
    if options.json:
        for report in reports:
            show.json_line(report)
        return client.SUCCESS
    show.table(
        ["Backend", "Rule", "Packets", "Bytes"],
        [
            (it.backend_name or it.backend, rule.rule, rule.packets, rule.bytes)
            for it in reports
            for rule in it.rules
        ],
    )
    show.table(
        ["Backend", "Vif", "Learned", "Until"],
        [
            (
                it.backend_name or it.backend,
                f"{lease.frontend_name or lease.frontend}/{lease.device}",
                lease.address,
                datetime.fromtimestamp(lease.until, UTC).strftime("%Y-%m-%d %H:%M UTC"),
            )
            for it in reports
            for lease in it.learned
        ],
    )
    for it in reports:
        if it.omitted_rules or it.omitted_learned:
            left = f"{it.omitted_rules} rules and {it.omitted_learned} addresses"
            show.line(f"and {left} more of domain {it.backend}")
    return client.SUCCESS


def _show(broker: Client, options: argparse.Namespace) -> int:
    vif: methods.VifFilters = client.call(
        broker, "filter.show", domain=options.domain, device=options.vif
    )
    if options.json:
        show.json_line(vif)
    else:
        from_where = zip(vif.profiles, vif.from_where, strict=True)
        profiles = ", ".join(f"{name} ({where})" for name, where in from_where)
        facts = [("vif", vif.vif), ("profiles", profiles)]
        facts += [(name, ",".join(values)) for name, values in vif.variables.items()]
        if vif.learned:
            facts.append(("learned by DHCP", ", ".join(vif.learned)))
        if vif.problem:
            facts.append(("closed", vif.problem))
        show.facts([(name, show.text(value, 1000)) for name, value in facts])
    return client.DENIED if vif.problem else client.SUCCESS


def _test(broker: Client, options: argparse.Namespace) -> int:
    domain, _, device = options.vif.partition("/")
    dropped = False
    for frame in _frames(options.frame):
        outcome: methods.FilterOutcome = client.call(
            broker,
            "filter.test",
            domain=domain,
            device=device or "0",
            frame=frame.hex(),
            direction=options.direction,
            state=options.state,
            learned=None if options.learned is None else tuple(options.learned),
        )
        dropped |= outcome.verdict != "accept"
        if options.json:
            show.json_line(outcome)
            continue
        why = "; what it asks about cannot be read" if outcome.unreadable else ""
        why += _why(outcome)
        if outcome.verdict == "depends":
            why += " on its connection's state"
        show.line(show.text(f"{outcome.verdict}{_who(outcome)}{why}: {outcome.frame}", 600))
        for it in outcome.by_state:
            show.line(show.text(f"  {it.state}: {it.verdict}{_who(it)}{_why(it)}", 600))
    return client.DENIED if dropped else client.SUCCESS


def _who(outcome: methods.FilterOutcome | methods.FilterStateOutcome) -> str:
    return f" by {outcome.rule} ({outcome.where})" if outcome.rule else ""


def _why(outcome: methods.FilterOutcome | methods.FilterStateOutcome) -> str:
    return f"; {outcome.reason}" if outcome.reason else ""


def _frames(text: str) -> list[bytes]:
    """The frames that an argument is, or that the file has which it names."""
    from broker.filters.pcap import is_pcap, read_pcap  # noqa: PLC0415 - as in offline.policy

    try:
        return [bytes.fromhex(text)]
    except ValueError:
        data = offline.read(Path(text))
    try:
        if is_pcap(data):
            return read_pcap(data)
        return [bytes.fromhex(data.decode("ascii"))]
    except ValueError as error:
        raise RpcError("bad_input", f"{text}: neither hex digits nor a capture: {error}") from None
