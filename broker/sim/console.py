"""`make demo-console`: a host of simulated domains to look at in the console, in a browser.

    python -m broker.sim.console [--domains 50] [--port 7443] [--directory DIR]

The store, brokerd and broker-agent are the product's own programs. Domains are labelled, connected
and denied as a policy says; one breaks a protocol, a change of the policy waits for a second
person, and every few seconds something happens, until it is interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from broker.core.filter_report import Lease, RuleCount, encode_filter_report
from broker.pki.authority import Authority
from broker.pki.names import Names
from broker.rpc.address import Credentials, parse_address
from broker.rpc.client import Client
from broker.rpc.methods import LabelSet, PolicyLoad
from broker.rpc.methods.filters import FilterAttach
from broker.sim.boot import uuid_of
from broker.sim.host import Domain, HostError, SimulatedHost
from broker.sim.toolstack import vbd, vif
from broker.xenstore.paths import filter_counts_path

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from twisted.internet.interfaces import IReactorCore

    from broker.sim.toolstack import Device
    from broker.xenstore.transport import Reactor

ROOT: Final = Path(__file__).parents[2]
PAUSE: Final = 4.0
"""Seconds between two things that happen by themselves."""
PEOPLE: Final = {"ann": "officer", "olga": "watcher", "rita": "red_team", "dan": "deployer"}
"""Who has a certificate, and in which role."""
ROLES: Final = """\
roles:
  watcher: [{verbs: read}]
  red_team:
    - {verbs: [domain.*, channel.*, label.list, decision.query], group: red}
    - {verbs: [filter.vifs, filter.show, filter.attached], group: red}
  deployer: [{verbs: [read, policy.load], second_person: true}]
  officer:
    - {verbs: [read, policy.load, policy.govern, policy.approve, filter.attach, filter.address]}
"""
_FILTERED: Final = 6
"""Domains whose vifs have filter profiles; the last of them learns no address."""
_AT_ONCE: Final = 10
"""Domains created together."""
_TIERS: Final = ("web_red", "web_blue", "db_red", "web_red", "db_blue", "web_blue")


class ConsoleHost:
    """A host with TLS and people; `directory` must be short (sockets)."""

    def __init__(self, reactor: Reactor, directory: Path, *, port: int) -> None:
        self.pki = Authority(directory / "pki")
        self.pki.init(("localhost", "127.0.0.1"), _now())
        self.passwords: dict[str, str] = {}
        for subject, role in PEOPLE.items():
            self.pki.issue(Names(subject, role), _now())
            self.passwords[subject] = self.pki.bundle(subject)
        self.url = f"https://localhost:{port}/"
        self.policy = (ROOT / "etc" / "policy.yaml").read_text() + ROLES
        policy = directory / "policy.yaml"
        policy.write_text(self.policy)
        self.host = SimulatedHost(
            reactor,
            directory,
            policy=policy,
            specs=ROOT / "protocol_specs",
            rpc=f"  listen: ['tcp:{port}:interface=127.0.0.1']\n  tls:\n"
            + "".join(
                f"    {key}: {self.pki.directory}/{name}\n"
                for key, name in (
                    *(("certificate", "broker.crt"), ("key", "broker.key")),
                    *(("ca", "ca.crt"), ("revoked", "revoked")),
                )
            ),
        )
        self.domains: list[Domain] = []

    def client(self, subject: str) -> Client:
        """A client of one of `PEOPLE`, over TLS."""
        directory = self.pki.directory
        credentials = Credentials(
            cert=directory / f"{subject}.crt",
            key=directory / f"{subject}.key",
            ca=directory / "ca.crt",
        )
        return Client(parse_address(f"tls:{self.url[8:-1]}", credentials))

    async def label(self, name: str, label: str) -> None:
        """Label a domain by its name, as local root."""
        await deferToThread(
            self.host.rpc().call, "label.set", LabelSet(domain=f"name:{name}", label=label)
        )

    async def create(self, name: str, label: str | None, devices: Sequence[Device]) -> Domain:
        """Label a name, unless `label` is None, and create the domain."""
        if label is not None:
            await self.label(name, label)
        domain = await self.host.create(name, uuid_of(name), devices)
        self.domains.append(domain)
        return domain

    async def destroy(self, domain: Domain) -> None:
        """Destroy a domain."""
        self.domains.remove(domain)
        await self.host.destroy(domain)

    async def populate(self, count: int, tell: Callable[[str], None] = lambda _: None) -> None:
        """Create `count` domains: customers' tiers, two rivals, a thief and a stray one."""
        special = (
            ("bank-a", "bank_a", "bank"),
            ("bank-b", "bank_b", "bank"),
            ("red-thief", "web_red", "blue"),
            ("stray", None, "red"),
        )
        tenants: list[tuple[str, str, list[Device]]] = []
        for number in range(max(0, count - len(special))):
            label = _TIERS[number % len(_TIERS)]
            tier, _, customer = label.partition("_")
            name = f"{customer}-{tier}{number // len(_TIERS) + 1}{'abcdef'[number % 6]}"
            tenants.append((name, label, devices(number, customer)))
        for start in range(0, len(tenants), _AT_ONCE):
            some = tenants[start : start + _AT_ONCE]
            await _together(self.label(name, label) for name, label, _ in some)
            await _together(self.create(name, None, wanted) for name, _, wanted in some)
            tell(f"{start + len(some)} domains")
        # In this order: of two rivals the first is admitted.
        for number, (name, own, customer) in enumerate(special):
            await self.create(name, own, devices(200 + number, customer))

    async def break_a_protocol(self) -> None:
        """A guest rewrites its backend's number, which no guest may."""
        domain = self.domains[0]
        if domain.connection is None:
            raise HostError(f"{domain.name} has no connection")
        front = domain.devices[0].frontend_dir(domain.domid)
        await domain.connection.write(f"{front}/backend-id", b"7")

    async def filter(self) -> None:
        """Hold some vifs to profiles, and report of them what an agent with a kernel would."""
        held = sorted((it for it in self.domains if "-web" in it.name), key=lambda it: it.name)
        for number, domain in enumerate(held[:_FILTERED]):
            given: dict[str, tuple[str, ...]] = {}
            if number % 2 == 0:
                given["IP"] = (f"10.0.0.{number + 10}",)
            attach = FilterAttach(
                domain=f"uuid:{domain.uuid}", profile="clean-traffic", given=given, device="0"
            )
            await deferToThread(self.client("ann").call, "filter.attach", attach)
        now = int(_now().timestamp())
        rules = [
            RuleCount(f"clean-traffic/{number}", 40 * number**2, 4000 * number**2)
            for number in range(1, 7)
        ]
        leases = [
            Lease(domain.domid, "0", f"10.0.0.{domain.domid + 100}", now + 3600)
            for domain in held[1 : _FILTERED - 1 : 2]
        ]
        report = encode_filter_report(now, rules, leases).encode("ascii")
        await self.host.write(filter_counts_path(0), report)

    async def amend(self) -> None:
        """An officer changes the policy."""
        self.policy = self.policy.replace('version: "1.0"', 'version: "1.1"', 1).replace(
            "the web tier only reads the archive", "the web tier reads the archive, no more", 1
        )
        load = PolicyLoad(text=self.policy, source="example-1.1.yaml")
        await deferToThread(self.client("ann").call, "policy.load", load)

    async def propose(self) -> None:
        """A deployer changes the policy, which waits for a second person."""
        text = self.policy.replace('version: "1.1"', 'version: "1.2"', 1).replace(
            "  vif: {protocol: vif, default: ste}", "  vif: {protocol: vif, default: deny}", 1
        )
        load = PolicyLoad(text=text, source="example-1.2.yaml", revoke=True)
        await deferToThread(self.client("dan").call, "policy.load", load)

    async def go_on(self, number: int) -> None:
        """Something happens: a domain comes, is labelled otherwise, or goes."""
        name = f"late{number // 3 + 1}"
        late = next((it for it in self.domains if it.name == name), None)
        if late is None:
            await self.create(name, "web_red", devices(100 + number, "red"))
        elif number % 3 == 1:
            await self.label(name, "web_blue")
        else:
            await self.destroy(late)


def devices(number: int, customer: str) -> list[Device]:
    """A network device, and a disk of a customer's."""
    mac = f"00:16:3e:00:{number >> 8:02x}:{number & 255:02x}"
    return [vif(0, mac), vbd(51712, f"/dev/vg/{customer}-{number}")]


async def _together(works: Iterable[Coroutine[Deferred[Any], Any, Any]]) -> None:
    """Do all of this at once; the first failure is the whole's."""
    await gatherResults([Deferred.fromCoroutine(it) for it in works], consumeErrors=True)


def _now() -> datetime:
    return datetime.now(UTC)


async def _main(reactor: Reactor, options: argparse.Namespace) -> None:
    directory = Path(options.directory or tempfile.mkdtemp(prefix="xpb-console-"))
    console = ConsoleHost(reactor, directory, port=options.port)

    def tell(words: str) -> None:
        sys.stdout.write(f"{words}\n")
        sys.stdout.flush()

    stopped = False

    async def stop() -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            await console.host.stop()
            if options.directory is None:
                shutil.rmtree(directory)

    # An interrupt ends the reactor, and leaves what is awaited below where it is.
    cast("IReactorCore", reactor).addSystemEventTrigger(
        "before", "shutdown", lambda: Deferred.fromCoroutine(stop())
    )
    try:
        tell("starting the store, brokerd and broker-agent")
        await console.host.start()
        await console.populate(options.domains, tell)
        await console.filter()
        await console.break_a_protocol()
        await console.amend()
        await console.propose()
        tell(f"\nThe console is at {console.url}")
        tell(f"Let your browser trust the authority {directory}/pki/ca.crt, and import one of:")
        for subject, role in PEOPLE.items():
            tell(
                f"  {directory}/pki/{subject}.p12: role {role}, "
                f"password {console.passwords[subject]}"
            )
        tell("Interrupt this (Ctrl-C) to end it.")
        number = 0
        while True:
            await task.deferLater(reactor, PAUSE)
            await console.go_on(number)
            number += 1
    finally:
        await stop()


def main() -> None:
    """Run the demo until it is interrupted; it ends with 1 where it does not come about."""
    parser = argparse.ArgumentParser(prog="broker.sim.console", description="The console's demo.")
    parser.add_argument("--domains", type=int, default=50, help="how many (%(default)s)")
    parser.add_argument("--port", type=int, default=7443, help="where to listen (%(default)s)")
    parser.add_argument("--directory", help="to be kept; its path must be short")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        task.react(lambda reactor: Deferred.fromCoroutine(_main(reactor, options)))


if __name__ == "__main__":
    main()
