"""A label that somebody wrote into /vm, of another policy or of this one, counts for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed import lasting
from tools.testbed.bed import XVDA

if TYPE_CHECKING:
    from tools.testbed.bed import Bed, Guest

LABEL = "acm_label/labelname"
POLICY = "acm_label/policyname"


def run(bed: Bed) -> None:
    """The broker's own store of labels counts; what else stands there is put right."""
    red = lasting.two(bed)
    red.listen()
    for policy in ("elsewhere", "testbed"):
        not_believed(bed, policy, red)
    name = f"/vm/{red.uuid}/security/{POLICY}"
    bed.dom0.store(("write", name, "elsewhere"))
    bed.soon(
        "the name of another policy beside red's own label is put right",
        lambda: bed.dom0.read(name) == "testbed",
    )
    bed.check("red's vif is open still", bed.vif_is_open(red))


def not_believed(bed: Bed, policy: str, red: Guest) -> None:
    """An unlabelled guest says of itself that it is red, by `policy`."""
    guest = bed.guest(
        f"of_{policy}", None, vifs=["bridge=xenbr0"], disks=[f"/srv/red-{policy}.img"]
    )
    place = f"/vm/{guest.uuid}/security"
    bed.dom0.store(("write", f"{place}/{LABEL}", "web_red"), ("write", f"{place}/{POLICY}", policy))
    bed.soon(
        f"web_red of policy {policy} is taken away again",
        lambda: bed.dom0.read(f"{place}/{LABEL}") in {None, ""},
    )
    bed.soon(
        "the domain is unlabelled",
        lambda: (bed.dom0.read(f"{place}/status") or "").startswith("unlabelled"),
    )
    bed.soon("its vif is denied", lambda: bed.record(guest, "vif")["verdict"] == "deny")
    bed.soon("and its disk", lambda: bed.record(guest, "vbd", XVDA)["verdict"] == "deny")
    guest.try_up(3)
    bed.check("it pings nobody", not guest.reaches(lasting.TWO))
    bed.check("it sees no disk", guest.try_run("ls /dev/xvda")[0] != 0)
    bed.check("nobody hears it", guest.mac() not in red.heard())
    bed.destroy(guest)
