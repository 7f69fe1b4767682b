"""`brokerctl filter check|create-from`: profiles' files, without a broker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from broker.cli import groups, offline, show
from broker.cli.client import BAD_INPUT, SUCCESS

if TYPE_CHECKING:
    import argparse

    from broker.filters.model import Profile

_SHIPPED: Final = Path(__file__).parents[2] / "etc/filters"


def register(commands: groups.Commands) -> None:
    """Add the commands."""
    group = groups.group(commands, "filter")
    leaf = groups.command(
        group,
        "check",
        offline.reporting(_check),
        help="check files of filter profiles, with what they include",
        example="brokerctl filter check etc/filters/*.yaml",
    )
    leaf.add_argument("files", metavar="FILE", nargs="+", type=Path)
    leaf.add_argument(
        "--filters",
        metavar="DIR",
        type=Path,
        default=_SHIPPED,
        help="where profiles that are included are looked for; default: the shipped ones",
    )
    leaf = groups.command(
        group,
        "create-from",
        offline.reporting(_create_from),
        help="write the profile that a libvirt nwfilter's XML is",
        example="brokerctl filter create-from no-mac-spoofing.xml > no-mac-spoofing.yaml",
    )
    leaf.add_argument("file", metavar="FILE", type=Path, help="what virsh nwfilter-dumpxml wrote")
    leaf.add_argument(
        "--partial",
        action="store_true",
        help="also where some of it cannot be expressed: that is reported, and left out",
    )


class _Checked(msgspec.Struct, frozen=True):
    """A profile that is good."""

    name: str
    file: str
    rules: int
    digest: str


def _check(options: argparse.Namespace) -> int:
    # What filters import is not needed for other commands.
    from broker.filters.library import build_library  # noqa: PLC0415
    from broker.filters.load import load_profile  # noqa: PLC0415
    from broker.net.filters.holdable import unholdable  # noqa: PLC0415

    asked: dict[str, tuple[Path, Profile]] = {}
    profiles: list[Profile] = []
    for path in options.files:
        profile = load_profile(offline.read(path), str(path))
        asked.setdefault(profile.name, (path, profile))
        profiles.append(profile)
    others = [path for path in sorted(options.filters.glob("*.yaml")) if path.stem not in asked]
    profiles += [load_profile(offline.read(path), str(path)) for path in others]
    refused = unholdable(build_library(profiles))
    if refused:
        offline.report(refused, "error", as_json=options.json)
        return BAD_INPUT
    for path, profile in asked.values():
        rules = sum(1 for _ in profile.rules())
        if options.json:
            show.json_line(_Checked(profile.name, str(path), rules, profile.digest))
        else:
            show.line(f"{profile.name}: good, {rules} rules")
            show.line(profile.digest)
    return SUCCESS


def _create_from(options: argparse.Namespace) -> int:
    from broker.filters.nwfilter import convert  # noqa: PLC0415 - as above

    converted = convert(offline.read(options.file), str(options.file))
    offline.report(converted.left_out, "error", as_json=options.json)
    if converted.left_out and not options.partial:
        print("brokerctl: nothing was written; --partial leaves these out", file=sys.stderr)
        return BAD_INPUT
    if options.json:
        show.json_line(converted)
    else:
        show.document(converted.text)
    return SUCCESS
