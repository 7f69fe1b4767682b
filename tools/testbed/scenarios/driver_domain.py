"""A driver domain for network cards: its own agent grants, filters, denies and revokes there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.testbed.scenarios.filtered import ADDRESS, OWN, held, with_profile

if TYPE_CHECKING:
    from tools.testbed.bed import Bed, Guest

MIB = 384
STATE = "/var/lib/xen-policy-broker"
KEY = f"{STATE}/broker.pub"
AGENT = """store: xenbus
domid: {domid}
broker_key: {key}
state: {state}/agent
hotplug_socket: /run/xen-policy-broker/agent.sock
xl: /usr/sbin/xl
ungated: report
bridges: [xenbr0]
policies: /root/policies
"""
ETC = "/etc/xen-policy-broker"
SITE = "usr/lib/xen-policy-broker/lib/python3.11/site-packages"
SAME_PRODUCT = (
    "[ ! -e /host/product.tar ] || (mkdir -p /run/driver && mount /dev/vdb /run/driver &&"
    f" tar -C /run/driver/{SITE} -xf /host/product.tar && umount /run/driver)"
)
"""Where a tree is run instead of the packages, in the driver domain too: its root is `vdb`."""


def run(bed: Bed) -> None:
    """The same agent; its scripts are run by `xl devd`, inside."""
    bed.dom0.run(SAME_PRODUCT)
    driver = bed.guest(
        "driver",
        "backend_red",
        disks=["format=raw,vdev=xvda,access=w,target=/dev/vdb"],
        extra="driver_domain = 1",
        memory=MIB,
        initrd="driver-initrd",
    )
    bed.soon("it runs", lambda: driver.try_run("pidof xl")[0] == 0)
    driver.run(f"mkdir -p {STATE}; echo '{bed.dom0.run(f'base64 -w0 {KEY}')}' | base64 -d > {KEY}")
    policies = bed.dom0.run(f"tar -C {ETC} -c policies | gzip | base64 -w0")
    driver.run(f"echo '{policies}' | base64 -d | gzip -d | tar -C /root -x")
    text = AGENT.format(domid=driver.domid, key=KEY, state=STATE).replace("\n", "\\n")
    driver.run(f"printf '{text}' > /root/agent.yaml")
    driver.run("setsid broker-agent --config /root/agent.yaml > /run/agent.log 2>&1 < /dev/null &")
    bed.soon(
        "its agent listens",
        lambda: driver.try_run("test -S /run/xen-policy-broker/agent.sock")[0] == 0,
        180,
    )
    card = "bridge=xenbr0,backend=driver"
    one = bed.guest("one", "web_red", vifs=[card], start=False)
    with_profile(bed, one, "attach", given=OWN)
    try:
        served(bed, driver, one, card)
    finally:
        with_profile(bed, one, "detach")


def served(bed: Bed, driver: Guest, one: Guest, card: str) -> None:
    """Guests whose network cards the driver domain serves; one of them is under clean-traffic."""
    bed.create(one)
    two = bed.guest("two", "web_red", vifs=[card])
    blue = bed.guest("blue", "web_blue", vifs=[card])
    for guest in (one, two):
        opens_there(bed, driver, guest)
    one.up(ADDRESS)
    two.up(2)
    held(bed, one, two)
    verdict = bed.record(blue, "vif", backend=driver.domid)["verdict"]
    bed.check("blue, who shares no type with it, is denied", verdict == "deny", verdict)
    bed.check("blue's link there is shut", not is_open(driver, blue))
    blue.try_up(4)
    bed.check("blue pings nobody", not blue.reaches(2))
    bed.check("nobody hears blue", blue.mac() not in two.heard())
    believed_by_nobody(bed, driver, blue)
    bed.dom0.rpc("label.set", domain=f"uuid:{one.uuid}", label="web_blue")
    bed.soon("relabelled, one's link there is shut", lambda: not is_open(driver, one))
    bed.check("one pings two no more", not one.reaches(2))
    bed.dom0.rpc("label.set", domain=f"uuid:{one.uuid}", label="web_red")
    bed.soon("red again, it is open", lambda: is_open(driver, one))
    bed.check("one pings two again", one.reaches(2))


def opens_there(bed: Bed, driver: Guest, guest: Guest) -> None:
    """By the driver domain's own agent's report, and by its kernel."""
    bed.soon(
        f"{guest.name}'s vif is open there",
        lambda: bed.enforced(guest, "vif", backend=driver.domid) == "open",
    )
    bed.check("its link is up and bridged", is_open(driver, guest))


def is_open(driver: Guest, guest: Guest) -> bool:
    """Whether the guest's link in the driver domain is up and bridged."""
    link = driver.try_run(f"ip -o link show vif{guest.domid}.0")[1]
    return " master " in link and ",UP" in link


def believed_by_nobody(bed: Bed, driver: Guest, blue: Guest) -> None:
    """What the driver domain writes for itself: refused by xenstored, or by whoever reads it."""
    path = f"/broker/v1/decision/{driver.domid}/vif/{blue.domid}/0"
    grant = (bed.dom0.read(path) or "").replace("deny ", "grant ", 1)
    status, said = driver.try_run(f"xenstore-write {path} '{grant}'")
    bed.check(
        "it cannot write itself a decision", status != 0 and bed.dom0.read(path) != grant, said
    )
    # And if it could: a record without the broker's signature opens nothing.
    bed.dom0.store(("write", path, grant))
    bed.pause(5)
    bed.check("a decision that is not signed opens nothing", not is_open(driver, blue))
    bed.soon("the broker puts its own back", lambda: bed.dom0.read(path) != grant)
