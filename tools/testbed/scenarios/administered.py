"""The broker's domain is administered without a network: brokerctl, over vchan, ending in TLS."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tools.testbed.bed import XVDA
from tools.testbed.dom0 import FailedError

if TYPE_CHECKING:
    from tools.testbed.bed import Bed

BROKER = "domain"
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
    " brokerctl audit verify /run/copy/broker; status=$?; umount /run/copy; exit $status"
)
"""The domain's disk, as of now, looked at in dom0."""


def run(bed: Bed) -> None:
    """Every call, what it answers, and that it means the very domains that run here."""
    one = bed.guest("one", "web_red", vifs=["bridge=xenbr0"], disks=["/srv/red-ad.img"])
    bed.check("dom0 has no brokerd", bed.dom0.try_run("pidof -x brokerd")[0] != 0)
    bed.soon("one's disk is open", lambda: bed.enforced(one, "vbd", XVDA) == "open")
    status = bed.dom0.try_run("brokerctl status")[1]
    bed.check("status: enforcing", "enforcing" in status, status)
    names = {it["name"]: it for it in ctl(bed, "domain list")}
    bed.check("domain list names one with its label", names["one"]["label"] == "web_red", names)
    bed.check("and the broker's own domain", "broker" in names, names)
    explained = ctl(bed, f"channel explain vbd/one/{XVDA}")
    bed.check("channel explain says granted", '"grant' in json.dumps(explained), explained)
    query = "decision query one Domain-0 --class vif"
    bed.check("decision query grants what is granted", bed.dom0.run(f"brokerctl {query}"))
    digest = bed.dom0.run("sha256sum < /etc/xen-policy-broker/policy.yaml").split()[0]
    bed.check("policy show is the image's policy", digest in json.dumps(ctl(bed, "policy show")))
    bed.dom0.run(f"brokerctl label set uuid:{one.uuid} web_blue")
    bed.soon("label set takes the disk away", lambda: bed.enforced(one, "vbd", XVDA) == "closed")
    logged = bed.dom0.run("brokerctl audit list")
    bed.check("audit list says who set it", "tester" in logged, logged)
    verified = bed.dom0.try_run(COPY)
    bed.check("audit verify finds a copy of the log whole", verified[0] == 0, verified)
    said = bed.dom0.run(NO_CERTIFICATE)
    bed.check("who has no certificate gets no answer", said.startswith("refused:"), said)


def ctl(bed: Bed, words: str) -> Any:  # noqa: ANN401 - as JSON has it
    """What brokerctl says, as JSON; a list where it says several lines."""
    said = bed.dom0.run(f"brokerctl {words} --json").splitlines()
    if not said:
        raise FailedError(f"brokerctl {words} says nothing")
    values = [json.loads(line) for line in said]
    return values if words.endswith("list") else values[0]
