"""xenstored writes down what happens meanwhile; then every vif and vbd of it is replayed."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING, Final

from tools.testbed.cache import ROOT
from tools.testbed.trace import operations, traces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.testbed.bed import Bed
    from tools.testbed.trace import Trace

_LOG: Final = "/run/xenstored-trace"
_KINDS: Final = ("vif", "vbd")
_CONNECTED: Final = '"side": "frontend", "key": "state", "value": "4"'
_OF_NO_STATE: Final = '"side": "frontend", "key": "state", "value": "9"'


@contextlib.contextmanager
def traced(bed: Bed) -> Iterator[None]:
    """Assert of what is done meanwhile that no channel's description was broken.

    Its guests are destroyed at the end, so that each channel is seen from its start to its end.
    """
    bed.dom0.run(f"xenstore-control logfile {_LOG}; xenstore-control log on")
    try:
        yield
        bed.destroy_all()
        bed.dom0.until("no backend is left", lambda: not _backends(bed))
    finally:
        bed.dom0.run("xenstore-control log off")
    file = f"{bed.scenario}/trace.txt"
    bed.dom0.run(f"mkdir -p /results/{bed.scenario} && mv {_LOG} /results/{file}")
    _replay(bed, (bed.results / file).read_text("utf-8", "backslashreplace"))


def _backends(bed: Bed) -> list[str]:
    """The devices that dom0 serves, but for those of domains that stay."""
    spared = {"broker", *(it.name for it in bed.machine.lasting.values())}
    tree = bed.dom0.tree("/local/domain/0/backend")
    return [path for path, who in tree.items() if path.endswith("/domain") and who not in spared]


def _replay(bed: Bed, text: str) -> None:
    asked = operations(text)
    found = traces(asked)
    for kind in _KINDS:
        of_kind = [it for it in found if it.channel.kind == kind]
        begun, ended = (sum(getattr(it, what) for it in of_kind) for what in ("begun", "ended"))
        bed.check(
            f"xenstored's trace has {begun} lives of {kind} channels from start to end",
            0 < begun == ended,
            f"{ended} ended",
        )
    changes = sum(len(it.changes) for it in found)
    blamed = [
        f"{it.channel} {said}"
        for it in found
        for lines in (it.jsonl(), it.jsonl(by_second=True))
        for said in _violations(it, lines)
    ]
    bed.check(
        f"replayed, {changes} of its {len(asked)} operations, it blames nobody", not blamed, blamed
    )
    for it in found:
        broken = it.jsonl().replace(_CONNECTED, _OF_NO_STATE)
        bed.check(
            f"with a frontend in no state, {it.channel.kind} {it.channel.frontend} is blamed",
            broken == it.jsonl() or any('"frontend"' in said for said in _violations(it, broken)),
        )


def _violations(trace: Trace, lines: str) -> list[str]:
    """What the product's own replay says of it."""
    words = ["spec", "replay", "--class", trace.channel.kind, "-"]
    done = subprocess.run(
        [ROOT / ".venv/bin/brokerctl", *words],
        input=lines,
        capture_output=True,
        text=True,
        check=False,
    )
    return [] if done.returncode == 0 else (done.stdout + done.stderr).splitlines()
