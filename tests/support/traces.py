"""The shipped trace and dumps of real Xen, as what `brokerctl spec replay` takes."""

from __future__ import annotations

import json
import re

from support.dumps import DUMPS, dump

_LINE = re.compile(
    r"(?P<number>\d+) (?P<time>\d\d:\d\d:\d\d) dom\S+ (?P<connection>\S+) "
    r"(?P<what>WRITE|RM) (?P<path>\S+) ?(?P<value>.*?)\s*"
)
_GUESTS = {"e7620": 1, "f8150": 2}
"""Connections of guests, whose relative paths begin at their own domain."""
_WRITERS = {
    "e1dc0": "backend",
    "e4e60": "backend",
    "f4110": "hotplug",
    "f8970": "hotplug",
    **dict.fromkeys(("e4f70", "f4350", "f9100"), "toolstack"),
    **dict.fromkeys(_GUESTS, "frontend"),
}


def places(kind, domid, devid, backend=0):
    """The directories of both ends."""
    front = f"/local/domain/{domid}/device/{kind}/{devid}"
    if kind == "console" and devid == 0:
        front = f"/local/domain/{domid}/console"
    back = f"/local/domain/{backend}/backend/{kind}/{domid}/{devid}"
    return {"frontend": front, "backend": back}


def real_trace(kind, domid, devid, *, by_second=False, with_writers=True):
    """One device's part of the traced run, an operation a moment or a second a moment."""
    lines = []
    sides = places(kind, domid, devid)
    text = (DUMPS / "create-connect-destroy.ops.txt").read_text()
    for match in filter(None, map(_LINE.fullmatch, text.splitlines())):
        path = match["path"]
        if not path.startswith("/"):
            path = f"/local/domain/{_GUESTS.get(match['connection'], 0)}/{path}"
        hours, minutes, seconds = map(int, match["time"].split(":"))
        moment = (hours * 60 + minutes) * 60 + seconds
        for side, place in sides.items():
            if match["what"] == "RM" and (place == path or place.startswith(f"{path}/")):
                key, value = "", None
            elif path.startswith(f"{place}/"):
                key = path.removeprefix(f"{place}/")
                value = match["value"] if match["what"] == "WRITE" else None
            else:
                continue
            part = 0 if by_second else int(match["number"]) / 100_000
            line = {"t": moment + part, "side": side, "key": key, "value": value}
            if with_writers:
                line["writer"] = _WRITERS[match["connection"]]
            lines.append(line)
    return lines


def dumped(name, kind, domid, devid, backend=0):
    """One device in a dump, as a single snapshot."""
    nodes = dump(name)
    return [
        {"t": 0, "side": side, "key": path.removeprefix(f"{place}/"), "value": value.decode()}
        for side, place in places(kind, domid, devid, backend).items()
        for path, (value, _) in nodes.items()
        if path.startswith(f"{place}/")
    ]


def devices_dumped(name):
    """Every (kind, frontend, devid, backend) in a dump."""
    shape = re.compile(r"/local/domain/(\d+)/backend/(\w+)/(\d+)/(\d+)")
    found = [match for match in map(shape.fullmatch, dump(name)) if match]
    return [(it[2], int(it[3]), int(it[4]), int(it[1])) for it in found]


def jsonl(lines):
    """As a file."""
    return "".join(json.dumps(line) + "\n" for line in lines).encode()
