"""A policy that closes a live vif and disk while the guest is paused; the next one opens them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed import lasting
from tools.testbed.bed import XVDA

if TYPE_CHECKING:
    from tools.testbed.bed import Bed, Guest

POLICIES = "/etc/xen-policy-broker/policies"
IN_TIME = 2.0
"""Seconds of dom0's time from the policy's coming into force until dom0's kernel has shut both."""
CLOSED = "/run/closed"
WATCH = """
while [ -z "$vif" ] || [ -z "$vbd" ]; do
  read now rest < /proc/uptime
  [ -n "$vif" ] || [ -e {vif} ] || vif=$now
  [ -n "$vbd" ] || [ -e {vbd} ] || vbd=$now
  sleep 0.1
done
echo $vif $vbd > {to}
"""
"""Without a process a look, but for the sleep: dom0 has one slow processor."""


def run(bed: Bed) -> None:
    """One writes and pings without end until it is paused; nothing of it comes through after."""
    one, two = lasting.pair(bed)
    one.run("echo kept | dd of=/dev/xvda conv=fsync 2>/dev/null")
    bed.check("one pings two", one.reaches(2))
    one.run("(while :; do date | dd of=/dev/xvda seek=8 conv=fsync; done) > /dev/null 2>&1 &")
    one.run("ping -i 0.2 10.0.0.2 > /dev/null 2>&1 &")
    first = bed.dom0.run(f"cat {POLICIES}/testbed-1.0.yaml")
    closing = first.replace('"1.0"', '"1.1"').replace(
        "web_red: {ste: [red, storage_red]}", "web_red: {ste: [alien]}"
    )
    opening = first.replace('"1.0"', '"1.2"')
    for number, text in ((1, closing), (2, opening)):
        bed.dom0.run(f"cat > {POLICIES}/testbed-1.{number}.yaml <<'END'\n{text}END")
    try:
        bed.dom0.run(f"xl pause {one.domid}")
        watch_closing(bed, one)
        bed.dom0.rpc("policy.load", text=closing, source="testbed-1.1.yaml", revoke=True)
        loaded = bed.uptime()
        text = bed.dom0.run(f"until [ -s {CLOSED} ]; do sleep 0.5; done; cat {CLOSED}")
        vif, vbd = (float(it) - loaded for it in text.split())
        bed.check(
            f"within {IN_TIME:.0f} s of the policy's coming into force both are shut"
            f" (vif {vif:.1f} s, vbd {vbd:.1f} s)",
            max(vif, vbd) < IN_TIME,
        )
        bed.soon(
            "the agent reports the disk closed", lambda: bed.enforced(one, "vbd", XVDA) == "closed"
        )
        bed.check(
            "blkback's threads are gone", not bed.blkback_threads(one), bed.blkback_threads(one)
        )
        bed.check("no loop device is left", not bed.loops(lasting.IMAGE), bed.loops(lasting.IMAGE))
        written = bed.dom0.run(f"sha256sum {lasting.IMAGE}")
        two.listen()
        bed.dom0.run(f"xl unpause {one.domid}")
        bed.check("unpaused, one pings two no more", not one.reaches(2))
        bed.check("two's card gets no frame of one's", one.mac() not in two.heard())
        bed.check("two pings one no more", not two.reaches(1))
        bed.check(
            "not a byte of the image changes", bed.dom0.run(f"sha256sum {lasting.IMAGE}") == written
        )
    finally:
        bed.dom0.rpc("policy.load", text=opening, source="testbed-1.2.yaml")
    bed.soon("the next policy opens the vif", lambda: bed.vif_is_open(one))
    bed.soon("and the disk", lambda: bed.enforced(one, "vbd", XVDA) == "open")
    bed.check("one pings two again", one.reaches(2))
    bed.soon(
        "what one had left to write is written",
        lambda: bed.dom0.run(f"sha256sum {lasting.IMAGE}") != written,
    )
    status, said = one.try_run("dd if=/dev/xvda bs=512 count=1 2>/dev/null | head -c 4")
    bed.check("one reads its disk again", (status, said) == (0, "kept"), (status, said))


def watch_closing(bed: Bed, guest: Guest) -> None:
    """Have dom0 note when its kernel no longer bridges the vif, and no longer serves the disk."""
    thread = bed.dom0.run(f"ps -eo pid,comm | awk '$2 ~ /^{guest.domid}\\.xvda/ {{print $1}}'")
    watch = WATCH.format(
        vif=f"/sys/class/net/vif{guest.domid}.0/master", vbd=f"/proc/{thread.strip()}", to=CLOSED
    )
    bed.dom0.run(f"rm -f {CLOSED}; ({watch}) > /dev/null 2>&1 &")
