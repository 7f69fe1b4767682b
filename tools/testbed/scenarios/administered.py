"""The broker's domain is administered without a network: brokerctl, over vchan, ending in TLS."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tools.testbed.bed import XVDA
from tools.testbed.dom0 import FailedError, quoted

if TYPE_CHECKING:
    from tools.testbed.bed import Bed, Guest

BROKER = "domain"
ETC = "/etc/xen-policy-broker"
CHANGED = f"{ETC}/policies/administered.yaml"
STREAM = "/run/stream.log"
ANCHOR = "/run/anchor.jsonl"
NO_CERTIFICATE = """python3 -c '
import socket, ssl
context = ssl.create_default_context(cafile="/etc/xen-policy-broker/pki/ca.crt")
plain = socket.socket(socket.AF_UNIX)
plain.settimeout(30)
plain.connect("/run/xen-policy-broker/vchan-1.sock")
try:
    with context.wrap_socket(plain, server_hostname="xen-policy-broker") as tls:
        tls.sendall(b"POST /v1/status HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
        print("answer:", tls.recv(4096))
except OSError as error:
    print("refused:", error)
'"""
COPY = (
    "cp /srv/broker.img /srv/copy.img && mkdir -p /run/copy &&"
    " mount -o loop /srv/copy.img /run/copy &&"
    f" brokerctl audit verify /run/copy/broker --anchor {ANCHOR}; status=$?;"
    " umount /run/copy; exit $status"
)
"""The domain's disk, as of now, looked at in dom0."""


def run(bed: Bed) -> None:
    """What docs/first-hour.md asks, of a broker that is in a domain; then as a browser does."""
    one = bed.guest("one", "web_red", vifs=["bridge=xenbr0"], disks=["/srv/red-ad.img"])
    bed.check("dom0 has no brokerd", bed.dom0.try_run("pidof -x brokerd")[0] != 0)
    bed.soon("one's disk is open", lambda: bed.enforced(one, "vbd", XVDA) == "open")
    # One that the guest never had would be taken away for good when it is denied.
    bed.connected(one, "vbd", XVDA)
    asked(bed)
    labelled(bed, one)
    watched(bed, one)
    changed_by_two(bed)
    proven(bed)
    browsed(bed)
    said = bed.dom0.run(NO_CERTIFICATE)
    bed.check("who has no certificate gets no answer", said.startswith("refused:"), said)


def asked(bed: Bed) -> None:
    """What only looks."""
    status = bed.dom0.try_run("brokerctl status")[1]
    bed.check("status: enforcing", "enforcing" in status, status)
    names = {it["name"]: it for it in ctl(bed, "domain list")}
    bed.check("domain list names one with its label", names["one"]["label"] == "web_red", names)
    bed.check("and the broker's own domain", "broker" in names, names)
    explained = ctl(bed, f"channel explain vbd/one/{XVDA}")
    bed.check("channel explain says granted", '"grant' in json.dumps(explained), explained)
    query = "decision query one Domain-0 --class vif"
    bed.check("decision query grants what is granted", bed.dom0.run(f"brokerctl {query}"))
    digest = bed.dom0.run(f"sha256sum < {ETC}/policy.yaml").split()[0]
    bed.check("policy show is the image's policy", digest in json.dumps(ctl(bed, "policy show")))


def labelled(bed: Bed, one: Guest) -> None:
    """An operator labels within her role, and a denial is explained."""
    said = by(bed, "olga", f"label set uuid:{one.uuid} web_blue")
    bed.check("an operator gives it another label", said[0] == 0, said)
    bed.soon("which takes the disk away", lambda: bed.enforced(one, "vbd", XVDA) == "closed")
    status, why = by(bed, "olga", f"channel explain vbd/one/{XVDA}")
    bed.check(
        "the denial is explained: the type that is lacking",
        status == 1 and "storage_red" in why,
        (status, why),
    )
    status, why = by(bed, "olga", f"label set uuid:{one.uuid} SystemManagement")
    bed.check(
        "a label that is not her role's she cannot give",
        status == 1 and "may not label.set" in why,
        (status, why),
    )


def watched(bed: Bed, one: Guest) -> None:
    """A live stream over one proxy, while another one carries the change."""
    bed.dom0.run(
        f"setsid brokerctl channel watch > {STREAM} 2>&1 < /dev/null & echo $! > {STREAM}.pid"
    )
    try:
        bed.soon(
            "channel watch begins", lambda: bed.dom0.run(f"cat {STREAM}") or relabelled(bed, one)
        )
        bed.dom0.rpc("label.set", domain=f"uuid:{one.uuid}", label="web_red")
        bed.soon(
            "channel watch tells of the disk as it falls",
            lambda: f"vbd/{one.domid}/{XVDA}" in bed.dom0.run(f"cat {STREAM}"),
        )
    finally:
        bed.dom0.run(f"kill $(cat {STREAM}.pid)")
    bed.soon("relabelled, its disk is open again", lambda: bed.enforced(one, "vbd", XVDA) == "open")


def relabelled(bed: Bed, one: Guest) -> bool:
    """There is something to be told of; whether it was told is asked again."""
    for label in ("web_red", "web_blue"):
        bed.dom0.rpc("label.set", domain=f"uuid:{one.uuid}", label=label)
    return False


def changed_by_two(bed: Bed) -> None:
    """Who is protected is governed: one officer proposes it, another one approves."""
    bed.dom0.run(
        f"sed 's/^version: .*/version: \"1.1\"/' {ETC}/policy.yaml > {CHANGED}"
        f" && echo 'protected: [SystemManagement]' >> {CHANGED}"
    )
    for who, words, wanted, word in (
        ("olga", f"policy load {CHANGED}", 1, "may not policy.load"),
        ("ann", f"policy load {CHANGED}", 0, "waits for a second person"),
    ):
        status, said = by(bed, who, words)
        bed.check(f"{who}: {word}", status == wanted and word in said, (status, said))
    pending = json.loads(by(bed, "bob", "policy pending --json")[1].splitlines()[0])
    status, said = by(bed, "ann", f"policy approve {pending['id']}")
    bed.check("nobody approves his own change", status == 1 and "nobody approves" in said, said)
    status, said = by(bed, "bob", f"policy approve {pending['id']}")
    bed.check("another officer does: it is in force", status == 0 and "is in force" in said, said)
    digest = bed.dom0.run(f"sha256sum < {CHANGED}").split()[0]
    bed.soon(
        "and published",
        lambda: digest in (bed.dom0.read("/broker/v1/policy/digest") or ""),
    )


def proven(bed: Bed) -> None:
    """Who did what, from the domain's own log."""
    status, _ = bed.dom0.try_run(f"{calling('ann')} audit checkpoint > {ANCHOR}")
    bed.check("an officer takes a checkpoint of the log", status == 0)
    for words, wanted in (
        ("--subject olga --event label_set", {"olga", "web_blue"}),
        ("--event policy_loaded", {"ann", "bob"}),
    ):
        logged = by(bed, "bob", f"audit tail {words}")[1]
        bed.check(
            f"audit tail {words} tells {', '.join(sorted(wanted))}",
            all(it in logged for it in wanted),
            logged,
        )
    verified = bed.dom0.try_run(COPY)
    bed.check("audit verify finds a copy of the log whole", verified[0] == 0, verified)


def browsed(bed: Bed) -> None:
    """The console and what is scraped, with a client certificate."""
    fetch = "python3 /host/inside/fetch.py /run/xen-policy-broker/vchan-1.sock"
    got = json.loads(bed.dom0.run(f"{fetch} ann /console/ /console/caller.json /metrics"))
    page, caller = got["/console/"], json.loads(got["/console/caller.json"]["body"])
    bed.check(
        "the console's page comes, under a strict policy",
        page["status"] == 200 and "default-src 'none'" in page["policy"],
        page,
    )
    pieces = [it for it in got if it not in {"/console/", "/console/caller.json", "/metrics"}]
    bed.check(
        "with every script and style it names",
        len(pieces) > 1 and all(got[it]["status"] == 200 for it in pieces),
        {it: got[it]["status"] for it in got},
    )
    bed.check("and knows who looks", caller == {"subject": "ann", "role": "officer"}, caller)
    metrics = got["/metrics"]
    bed.check(
        "/metrics counts decisions",
        metrics["status"] == 200 and "xpb_decisions" in metrics["body"],
        metrics["body"][:300],
    )
    health = ctl(bed, "status")
    bed.check("health is green", health["health"] == "green", health)


def by(bed: Bed, who: str, words: str) -> tuple[int | None, str]:
    """One call of `who`'s: the status, and what was said."""
    return bed.dom0.try_run(f"{calling(who)} {words}")


def calling(who: str) -> str:
    """The command with this person's certificate."""
    return (
        f"brokerctl --cert {quoted(f'{ETC}/pki/{who}.crt')} --key {quoted(f'{ETC}/pki/{who}.key')}"
    )


def ctl(bed: Bed, words: str) -> Any:  # noqa: ANN401 - as JSON has it
    """What brokerctl says, as JSON; a list where it says several lines."""
    said = bed.dom0.run(f"brokerctl {words} --json").splitlines()
    if not said:
        raise FailedError(f"brokerctl {words} says nothing")
    values = [json.loads(line) for line in said]
    return values if words.endswith("list") else values[0]
