"""xenstore dumps of real Xen, as `xenstore-ls -f -p` prints them."""

from __future__ import annotations

import re
from pathlib import Path

DUMPS = Path(__file__).parents[1] / "data" / "real-xen-4.17"
_LINE = re.compile(r'(?P<path>/\S*) = "(?P<value>.*)"\s+\((?P<perms>[^)]*)\)')


def dump(name):
    """`{path: (value, permissions)}` of a dump, such as "1-domu-created-paused"."""
    nodes = {}
    for line in (DUMPS / f"{name}.txt").read_text().splitlines():
        match = _LINE.fullmatch(line)
        assert match, line
        nodes[match["path"]] = (match["value"].encode(), tuple(match["perms"].split(",")))
    return nodes
