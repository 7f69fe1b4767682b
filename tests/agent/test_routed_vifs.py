"""vif-route through the agent: from signed records to packets that dom0 routes between guests."""

from __future__ import annotations

import contextlib
import itertools
import signal
import socket

import pytest
from agent_host import agent_host
from bridged_host import Bridged
from support.xenstoreds import wait_until

pytestmark = pytest.mark.root

ADDRESS = {3: "10.3.0.2", 4: "10.4.0.2"}
OWN = "192.0.2.7"


class Routed(Bridged):
    """vif3.0 and vif4.0 are in no bridge; dom0's own address is on eth0, and it forwards."""

    def __init__(self, daemon, lab, directory, *, bridges="[]"):
        super().__init__(daemon, lab, directory)
        text = self.config.read_text().replace("[xpbr0]", bridges)
        self.config.write_text(text)
        lab.host.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        lab.host.ip("addr", "add", f"{OWN}/24", "dev", "eth0")
        lab.host.ip("link", "set", "eth0", "up")
        self.sysctl("net.ipv4.ip_forward=1")
        self._looks = itertools.count()
        self.udp = {}
        for domid, guest in lab.guests.items():
            guest.ip("addr", "add", f"{ADDRESS[domid]}/32", "dev", "eth0")
            guest.ip("route", "add", "default", "dev", "eth0")
            with guest.entered():
                made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind((ADDRESS[domid], 7000))
            self.udp[domid] = made

    def sysctl(self, setting):
        self.run("sysctl", "-qw", setting)

    def attach_routed(self, fe, **values):
        script = "/etc/xen/scripts/vif-broker-route"
        mac = f"00:16:3e:00:00:{fe:02x}"
        self.attach("vif/0", fe=fe, mac=mac, script=script, ip=ADDRESS[fe], **values)
        wait_until(lambda: self.report("vif/0", "nonce", fe), f"a nonce of {fe}")

    def begin_routed(self, labels):
        self.start()
        for fe, label in labels.items():
            self.attach_routed(fe)
            self.grant(fe, label)
        self.come_to("open", *labels)

    def routes(self, source=3, target=4):
        """Whether a datagram from one guest reaches the other, tried for a while.

        Only those of this very look count: one of an earlier look may arrive late.
        """
        datagram = str(next(self._looks)).encode()
        receiver = self.udp[target]
        receiver.settimeout(0.1)
        for _ in range(6):
            with contextlib.suppress(OSError):
                self.udp[source].sendto(datagram, (ADDRESS[target], 7000))
            with contextlib.suppress(TimeoutError):
                while receiver.recv(100) != datagram:
                    pass
                return True
        return False

    def routes_to(self, link):
        return self.run("ip", "-4", "route", "show", "dev", link).split()

    def close(self):
        for it in self.udp.values():
            it.close()
        super().close()


@pytest.fixture
def host(tmp_path):
    with agent_host(Routed, tmp_path) as made:
        yield made


def test_labels_decide_whom_dom0_routes_to(host):
    host.begin_routed({3: "web", 4: "shop"})
    assert host.lab.shown("vif3.0") == host.lab.shown("vif4.0") == (True, False)
    assert host.routes_to("vif3.0")[:2] == [ADDRESS[3], "scope"]
    assert f"src {OWN} metric 2" in " ".join(host.routes_to("vif3.0"))
    host.beat_until(host.routes, "packets between web and shop")
    host.beat_until(lambda: host.routes(4, 3), "and back")  # dom0 takes its time over proxy_arp
    host.grant(4, "bank")
    host.be_labelled(vif4="bank")
    assert not host.routes()
    assert not host.routes(4, 3)
    assert host.lab.shown("vif4.0") == (True, False), "a label's change touches no link"
    host.decide("vif/0", "deny", fe=4)
    wait_until(lambda: host.lab.shown("vif4.0") == (False, False), "the denied closed")
    assert host.routes_to("vif4.0") == []
    host.grant(4, "shop")
    host.come_to("open", 3, 4)
    host.beat_until(host.routes, "packets again")
    host.be_labelled(vif3="web", vif4="shop")
    assert "(routed)" in host.net_show()


def test_nothing_is_routed_to_a_vif_without_a_grant_whatever_is_up(host):
    host.begin_routed({3: "web"})
    host.lab.host.ip("link", "set", "vif4.0", "up")
    host.lab.host.ip("route", "add", ADDRESS[4], "dev", "vif4.0")
    host.run("sysctl", "-qw", "net.ipv4.conf.vif4/0.proxy_arp=1")
    assert not host.routes()
    assert not host.routes(4, 3)


def test_what_is_routed_goes_on_while_the_agent_is_away_and_is_taken_over(host):
    host.begin_routed({3: "web", 4: "shop"})
    host.beat_until(host.routes, "packets between web and shop")
    host.end(signal.SIGKILL)
    wait_until(host.routes, "packets without an agent")
    host.report_file.unlink()
    host.start()
    wait_until(host.report_file.exists, "taken over")
    assert host.labels() == {"vif3.0": "web", "vif4.0": "shop"}
    wait_until(host.routes, "packets of what was taken over")
    host.end(signal.SIGKILL)
    # Bridged meanwhile by somebody else, it is not what was opened.
    host.lab.host.ip("link", "set", "vif4.0", "master", "xpbr0")
    host.report_file.unlink()
    host.start()
    wait_until(host.report_file.exists, "taken over")
    assert host.labels() == {"vif3.0": "web"}


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"ip": "10.3.0.2 nowhere"}, "not an IP address or network"),
        ({"ip": " ".join(f"10.9.{n}.0/24" for n in range(65))}, "more than 64"),
        ({"script": "/etc/xen/scripts/vif-nat"}, "vif-nat is not supported"),
        ({"script": "vif-openvswitch"}, "vif-openvswitch is not supported"),
    ],
)
def test_what_cannot_be_routed_stays_closed_and_says_why(host, values, why):
    host.start()
    script = "/etc/xen/scripts/vif-route"
    host.attach("vif/0", **{"script": script, "ip": ADDRESS[3], **values})
    wait_until(lambda: host.report("vif/0", "nonce"), "a nonce")
    host.grant(3, "web")
    host.come_to("failed", 3)
    assert why.replace(" ", "%20") in host.reason(3)
    assert host.lab.shown("vif3.0") == (False, False)


def test_without_dom0s_address_nothing_is_routed_and_the_link_is_closed_again(host):
    host.lab.host.ip("addr", "flush", "dev", "eth0")
    host.start()
    host.attach_routed(3)
    host.grant(3, "web")
    host.come_to("failed", 3)
    assert "eth0%20has%20no%20IPv4" in host.reason(3)
    assert host.lab.shown("vif3.0") == (False, False)
    host.lab.host.ip("addr", "add", f"{OWN}/24", "dev", "eth0")
    host.come_to("open", 3)


def test_bridged_and_routed_vifs_of_one_host_are_held_to_the_same_labels(tmp_path):
    with agent_host(Routed, tmp_path, bridges="[xpbr0]") as host:
        lab = host.lab
        # Guest 4 is bridged, and its neighbours are dom0's address on the bridge.
        lab.host.ip("addr", "add", "10.4.0.1/24", "dev", "xpbr0")
        host.start()
        host.attach_routed(3)
        host.attach("vif/0", fe=4, mac="00:16:3e:00:00:04")
        wait_until(lambda: host.report("vif/0", "nonce", 4), "a nonce")
        host.grant(3, "web")
        host.grant(4, "shop")
        host.come_to("open", 3, 4)
        lab.guests[4].ip("route", "replace", "10.4.0.1", "dev", "eth0")
        lab.guests[4].ip("route", "replace", "default", "via", "10.4.0.1")
        host.beat_until(host.routes, "packets between routed and bridged")
        host.grant(4, "bank")
        host.be_labelled(vif4="bank")
        assert not host.routes()
        assert not host.routes(4, 3)


def test_the_stock_script_names_the_same_set_up(host):
    host.start()
    host.attach("vif/0", script="/etc/xen/scripts/vif-route", ip=ADDRESS[3])
    wait_until(lambda: host.report("vif/0", "nonce"), "a nonce")
    host.grant(3, "web")
    host.come_to("open", 3)
    assert host.lab.shown("vif3.0") == (True, False)
