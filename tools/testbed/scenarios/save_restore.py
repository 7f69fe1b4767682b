"""Save, restore and reboot: the label comes back with the uuid, decisions are made afresh."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed import lasting
from tools.testbed.bed import XVDA
from tools.testbed.traced import traced

if TYPE_CHECKING:
    from tools.testbed.bed import Bed, Guest


def run(bed: Bed) -> None:
    """All of it traced by xenstored: what unmodified drivers do keeps to the descriptions."""
    lasting.two(bed)
    with traced(bed):
        three_lives(bed)


def three_lives(bed: Bed) -> None:
    """One domain, three domids."""
    one = bed.guest("one", "web_red", vifs=["bridge=xenbr0"], disks=["/srv/red-sr.img"])
    one.up(3)
    bed.connected(one, "vbd", XVDA)
    ssidref = bed.dom0.read(f"/vm/{one.uuid}/security/ssidref")
    first = one.domid
    bed.dom0.run(f"xl save {one.domid} /root/one.save")
    bed.soon("saved: its records are gone", lambda: not records(bed, first))
    bed.dom0.run("xl restore /root/one.save")
    came_back(bed, one, first, ssidref)
    bed.check("one pings two again", one.reaches(lasting.TWO))
    bed.check("one reads its disk again", one.try_run("head -c 1 /dev/xvda")[0] == 0)
    second = one.domid
    bed.dom0.run(f"xl reboot {one.domid}")
    bed.dom0.until("it is another domain", lambda: new_domid(bed, one) not in (None, second))
    came_back(bed, one, second, ssidref)
    one.up(3)
    bed.check("rebooted, one pings two", one.reaches(lasting.TWO))


def records(bed: Bed, domid: int) -> list[str]:
    """What is published or reported of a domid's channels."""
    return [
        path
        for path in bed.dom0.tree("/broker/v1")
        if f"/{domid}/" in f"{path}/".partition("/0/")[2] and "/order/" not in f"{path}/"
    ]


def new_domid(bed: Bed, guest: Guest) -> int | None:
    """The domid that goes by the guest's name now."""
    status, said = bed.dom0.try_run(f"xl domid {guest.name}")
    return int(said) if status == 0 else None


def came_back(bed: Bed, guest: Guest, before: int, ssidref: str | None) -> None:
    """Under another domid, with the same label, and nothing left of the domid before."""
    guest.domid = bed.dom0.until("it runs", lambda: new_domid(bed, guest)) or -1
    bed.check("under another domid", guest.domid != before)
    bed.soon(
        "the label is there",
        lambda: bed.dom0.read(f"/vm/{guest.uuid}/security/acm_label/labelname") == "web_red",
    )
    bed.soon(
        "and the ssidref", lambda: bed.dom0.read(f"/vm/{guest.uuid}/security/ssidref") == ssidref
    )
    bed.soon("its vif is open", lambda: bed.vif_is_open(guest))
    bed.soon("its disk is open", lambda: bed.enforced(guest, "vbd", XVDA) == "open")
    bed.check("no record of the old domid", not records(bed, before), records(bed, before))
