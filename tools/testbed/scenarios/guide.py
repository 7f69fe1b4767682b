"""docs/real-host.md to the letter: its commands, in its order, in dom0's shell, and its checks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tools.testbed.bed import XVDA
from tools.testbed.cache import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tools.testbed.bed import Bed, Guest

BROKER = "nowhere"
"""The host is to be as Debian left it."""
LEAVES_A_WRECK = True
GUIDE = ROOT / "docs/real-host.md"
INSIDE = "/host/inside/guide"
CONSOLE = "/var/log/xen/console/guest-broker.log"
ETC = "/etc/xen-policy-broker"
SCRIPT = "/etc/xen/scripts/block"
PATIENCE = 900.0
"""Seconds for one block: one of them packs the mini-domain."""
DISK = "/dev/vg/red-web1"


def run(bed: Bed) -> None:
    """Steps 1 to 8, then back to stock; what a person types or edits is done by stand-ins."""
    web1 = prepare(bed)
    steps = list(blocks(GUIDE.read_text()))
    bed.check("the guide has eight steps with commands", {it[0] for it in steps} == set("12345678"))
    for number, (step, kind, text) in enumerate(steps):
        said = ""
        if kind == "yaml":
            edit(bed, step, text)
        else:
            said = bed.dom0.run(typed(bed, step, text), PATIENCE)
        ends = number + 1 == len(steps) or steps[number + 1][0] != step
        if ends and step in CHECKS:
            CHECKS[step](bed, web1, said)
    back_to_stock(bed, web1)


def blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """Each code block of a numbered step: the step, `yaml` or `shell`, what it says."""
    step, lines = "", None
    for line in text.splitlines():
        if line.startswith("## "):
            step = line[3:4] if line[3:5].rstrip(".").isdigit() else ""
        elif line == "```" and lines is None:
            lines = []
        elif line == "```":
            if step:
                # What is typed begins with a command; what is put into a file with a key.
                kind = "yaml" if lines[0].endswith(":") else "shell"
                yield step, kind, "\n".join(lines)
            lines = None
        elif lines is not None:
            lines.append(line)


def typed(bed: Bed, step: str, text: str) -> str:
    """A block as it goes to bash, in the directory and with the variables of those before."""
    given = "/dev/null"
    if step == "5":
        bed.dom0.until(
            "the key is on the console",
            lambda: bed.dom0.try_run(f"grep -q 'END PUBLIC' {CONSOLE}")[0] == 0,
        )
        # What is pasted from the console.
        bed.dom0.run(f"sed -n '/BEGIN PUB/,/END PUB/p' {CONSOLE} | tr -d '\\r' > /run/pasted")
        given = "/run/pasted"
    text = text.replace("UUID-OF-WEB1", bed.guests[0].uuid)
    if step == "6":
        # "a moment after the agent's restart": as one who asks again
        text = text.replace("brokerctl status", "until brokerctl status; do sleep 5; done")
    if step == "8":
        # "instead of the bridges: [] in it"
        text = f"sed -i '/^bridges: \\[\\]$/d' {ETC}/agent.yaml\n{text}"
    return (
        f"cat > /run/block <<'END-OF-BLOCK'\n. /run/before\nset -e\n{text}\n"
        "(set +e; export -p; echo cd $PWD) > /run/after; mv /run/after /run/before\n"
        f"END-OF-BLOCK\nPATH={INSIDE}:$PATH bash /run/block < {given}"
    )


def edit(bed: Bed, step: str, text: str) -> None:
    """What the guide says to put into a file."""
    if step == "3":
        bed.dom0.run(f"cat >> {ETC}/policy.yaml <<'END'\n{text}\nEND")
        bed.dom0.run(f"brokerctl policy check {ETC}/policy.yaml")
    else:
        bed.dom0.run(
            f"sed -i '/^bootstrap_devices: /d' {ETC}/agent.yaml;"
            f"cat >> {ETC}/agent.yaml <<'END'\n{text}\nEND"
        )


def prepare(bed: Bed) -> Guest:
    """A stock host: nothing of the product's; and a guest's configuration, with its disk."""
    stock = bed.dom0.run(f"sha256sum < {SCRIPT}.xen-utils")
    bed.dom0.run("dpkg --purge --force-depends xen-policy-broker-agent xen-policy-broker")
    bed.check("purged, Xen's own disk script is back", stock_script(bed) == stock)
    bed.dom0.run("cp /host/debs/*.deb /root/; echo cd /root > /run/before")
    bed.dom0.run("mkdir -p /dev/vg && echo web1 > /srv/web1 && truncate -s 16M /srv/web1")
    bed.dom0.run(f"ln -s $(losetup --show --find /srv/web1) {DISK}")
    web1 = bed.guest("web1", None, vifs=["bridge=xenbr0"], disks=[DISK], start=False)
    bed.dom0.run("cp /root/web1.cfg /etc/xen/web1.cfg")
    return web1


def stock_script(bed: Bed) -> str:
    """The digest of what hotplugs disks here."""
    return bed.dom0.run(f"sha256sum < {SCRIPT}")


def installed(bed: Bed, _web1: Guest, _said: str) -> None:
    """Step 2's check."""
    bed.check("disks are the agent's", bed.dom0.run(f"readlink {SCRIPT}").strip() == "block-broker")
    bed.check("broker-agent is active", "active" in stand_in(bed, "systemctl status broker-agent"))
    bed.soon(
        "and says that there is no broker's key yet",
        lambda: "no broker's key" in stand_in(bed, "journalctl -u broker-agent"),
    )


def domain_made(bed: Bed, _web1: Guest, _said: str) -> None:
    """Step 4's check."""
    bed.soon("the mini-domain enforces", lambda: bed.dom0.read("/broker/v1/state") == "enforcing")
    bed.soon("its console says so", lambda: "enforcing on xenbus" in bed.dom0.run(f"cat {CONSOLE}"))


def way_in(bed: Bed, _web1: Guest, said: str) -> None:
    """Step 6's check."""
    digest = bed.dom0.run(f"sha256sum < {ETC}/policy.yaml").split()[0]
    told = " ".join(said.split())
    for words in ("health green", "state enforcing", digest):
        bed.check(f"status tells {words[:16]}", words in told, said)


def labelled(bed: Bed, web1: Guest, _said: str) -> None:
    """Step 7's check."""
    web1.domid = int(bed.dom0.run("xl domid web1"))
    bed.connected(web1, "vbd", XVDA)
    bed.check("in the guest the disk is there", web1.run("head -c 4 /dev/xvda") == "web1")
    for words, wanted in (
        ("domain list --long", "web_red"),
        ("channel list", "grant"),
        (f"channel explain vbd/web1/{XVDA}", "grant"),
    ):
        said = stand_in(bed, f"brokerctl {words}")
        bed.check(f"{words} tells {wanted}", wanted in said, said)


def bridged(bed: Bed, web1: Guest, _said: str) -> None:
    """Step 8's check, and the agent's log's."""
    bed.soon("the vif is open", lambda: bed.vif_is_open(web1))
    # Until the agent has begun anew it says that there is no report.
    shown = "brokerctl net show || true"
    bed.soon(
        "net show lists it with its label",
        lambda: re.search(rf"vif{web1.domid}\.0.*web_red", stand_in(bed, shown)),
    )
    log = stand_in(bed, "journalctl -u broker-agent")
    _, alive, since = log.partition("the broker's heartbeat is alive")
    known = alive and "heartbeat refused" not in since
    bed.check("no heartbeat is refused since the key is there", known, log)


def back_to_stock(bed: Bed, web1: Guest) -> None:
    """The end of the guide: packages purged, and guests served by Xen's own scripts."""
    bed.destroy(web1)
    stand_in(bed, "apt purge xen-policy-broker-agent xen-policy-broker")
    bed.dom0.run("sed -i '/vif-broker/d' /etc/xen/xl.conf")
    bed.check("nothing of it is in /etc/xen", not bed.dom0.run("find /etc/xen -name '*broker-*'"))
    bed.check("no divert is left", not bed.dom0.run("dpkg-divert --list '*xen*'"))
    bed.dom0.run("xl destroy broker")
    bed.create(web1)
    bed.connected(web1, "vbd", XVDA)
    bed.check("Xen's own script serves the guest", web1.run("head -c 4 /dev/xvda") == "web1")


def stand_in(bed: Bed, command: str) -> str:
    """What a command says, with the stand-ins and the variables of the steps before."""
    return bed.dom0.run(f"PATH={INSIDE}:$PATH bash -c '. /run/before; {command}'")


CHECKS: dict[str, Callable[[Bed, Guest, str], None]] = {
    "2": installed,
    "4": domain_made,
    "6": way_in,
    "7": labelled,
    "8": bridged,
}
