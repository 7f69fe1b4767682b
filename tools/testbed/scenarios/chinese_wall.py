"""Chinese Wall: rivals never run beside each other; strict destroys, otherwise all is shut."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.testbed.bed import Bed

AGENT = "/etc/xen-policy-broker/agent.yaml"


def run(bed: Bed) -> None:
    """The second of two rivals: refused, destroyed under strict, welcome when the first is gone."""
    first = bed.guest("first", "bank_a", vifs=["bridge=xenbr0"])
    second = bed.guest("second", "bank_b", vifs=["bridge=xenbr0"])
    bed.guest("bare", "bank_b", start=False)
    bed.check("the first's vif is open", bed.vif_is_open(first))
    status = f"/vm/{second.uuid}/security/status"
    bed.soon("the second is refused", lambda: (bed.dom0.read(status) or "").startswith("refused"))
    bed.check("its vif is shut", not bed.vif_is_open(second), bed.link(second))
    bed.check("it runs all the same", second.domid in bed.dom0.domids())
    bed.dom0.run(f"cp {AGENT} {AGENT}.kept && sed -i 's/^strict: false/strict: true/' {AGENT}")
    try:
        bed.stop("broker-agent")
        bed.start("broker-agent")
        bed.soon("under strict it is destroyed", lambda: second.domid not in bed.dom0.domids())
        bed.dom0.try_run("xl create /root/bare.cfg")
        bed.soon("so is one without any device", lambda: bed.dom0.try_run("xl domid bare")[0] != 0)
        bed.destroy(first)
        bed.create(second)
        bed.soon(
            "once the first is gone the second may run, its vif open",
            lambda: bed.vif_is_open(second),
        )
        bed.check(
            "it is labelled",
            (bed.dom0.read(status) or "").startswith("labelled"),
            bed.dom0.read(status),
        )
    finally:
        bed.stop("broker-agent")
        bed.dom0.run(f"mv {AGENT}.kept {AGENT}")
        bed.start("broker-agent")
