"""Chinese Wall: rivals never run beside each other; strict destroys, otherwise all is shut."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.testbed.bed import Bed, Guest

AGENT = "/etc/xen-policy-broker/agent.yaml"


def run(bed: Bed) -> None:
    """The second of two rivals: refused, destroyed under strict, welcome when the first is gone."""
    first = bed.guest("first", "bank_a", vifs=["bridge=xenbr0"])
    second = bed.guest("second", "bank_b", vifs=["bridge=xenbr0"])
    bare = bed.guest("bare", "bank_b", start=False)
    bed.soon("the first's vif is open", lambda: bed.vif_is_open(first))
    first.up(1)
    status = f"/vm/{second.uuid}/security/status"
    bed.soon("the second is refused", lambda: (bed.dom0.read(status) or "").startswith("refused"))
    bed.check("its vif is shut", not bed.vif_is_open(second), bed.link(second))
    bed.check("it runs all the same", second.domid in bed.dom0.domids())
    first.listen()
    second.try_up(2)
    bed.check("it pings nobody", not second.reaches(1))
    bed.check("the first hears nothing of it", second.mac() not in first.heard())
    bed.dom0.run(f"cp {AGENT} {AGENT}.kept && sed -i 's/^strict: false/strict: true/' {AGENT}")
    try:
        bed.stop("broker-agent")
        bed.start("broker-agent")
        bed.soon("under strict it is destroyed", lambda: second.domid not in bed.dom0.domids())
        bed.check("the first is not", first.domid in bed.dom0.domids())
        destroyed_at_once(bed, bare)
        bed.destroy(first)
        bed.create(second)
        bed.soon(
            "once the first is gone the second may run, its vif open",
            lambda: bed.vif_is_open(second),
        )
        bed.soon("it is labelled", lambda: (bed.dom0.read(status) or "").startswith("labelled"))
    finally:
        bed.stop("broker-agent")
        bed.dom0.run(f"mv {AGENT}.kept {AGENT}")
        bed.start("broker-agent")


def destroyed_at_once(bed: Bed, guest: Guest) -> None:
    """It comes to be (xl may not even get to the end of that), is refused, and is no more."""
    refused = "grep -c 'destroying domain [0-9]*: refused' /results/broker-agent.log || true"
    before = bed.dom0.run(refused)
    bed.dom0.try_run(f"xl create -p /root/{guest.name}.cfg")
    bed.soon("so is one without any device", lambda: bed.dom0.run(refused) != before)
    bed.soon("and it is gone", lambda: bed.dom0.try_run(f"xl domid {guest.name}")[0] != 0)
