"""broker-agent: `broker-agent --config FILE`, until SIGTERM; every gate stays as it is then.

Exit status: 0 stopped; 1 the network cannot be changed, or what changes it did not answer in time:
starting again may help; 2 the configuration, the key or the command line is not good.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet import defer
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import (
    FilteringLogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from zope.interface import implementer

from broker.agent import hotplug
from broker.agent.bridges import Bridges
from broker.agent.config import AgentConfig, OrdersConfig, load_config, load_key
from broker.agent.destroy import Destroyer
from broker.agent.drop_reports import DropReports
from broker.agent.durable import DurableState
from broker.agent.filter_reports import FilterReports
from broker.agent.gates.blkback import Blkback
from broker.agent.gates.simulated import SimulatedGate
from broker.agent.gates.vbd import VbdGate
from broker.agent.gates.vif import VifGate
from broker.agent.helper import HelperSession
from broker.agent.net_helper import NetHelper
from broker.agent.order_acts import Acts
from broker.agent.order_log import OrderLog
from broker.agent.order_rules import PROTOCOLS, OrderRules
from broker.agent.orders import OrderSession
from broker.agent.self_report import SelfReports
from broker.agent.session import AgentSession
from broker.agent.untrusted_backends import UntrustedBackends
from broker.agent.vif_filters import NotHeld, VifFilters
from broker.agent.watchdog import Watchdog
from broker.core.agent_report import MISSING
from broker.net.links import LinkMonitor, LinkTable
from broker.net.model import NetError
from broker.net.privileges import give_up_net_admin
from broker.systemd.journal import JournalObserver, goes_to_journal
from broker.systemd.notify import Notifier
from broker.text.problems import ProblemsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from twisted.logger import ILogObserver
    from twisted.python.failure import Failure

    from broker.agent.gates.base import BackendNodes, Gate
    from broker.agent.gates.vif import PortFilter
    from broker.agent.hotplug import Reactor
    from broker.agent.regular_report import RegularReport
    from broker.net.link_changes import LinkChanger


@implementer(IReadDescriptor)
class _MonitorReader:
    """Puts the link monitor under the reactor."""

    def __init__(
        self, monitor: LinkMonitor, session: AgentSession, bridges: Bridges | None
    ) -> None:
        self._monitor = monitor
        self._session = session
        self._bridges = bridges

    def fileno(self) -> int:
        """What the reactor waits on."""
        return self._monitor.fileno()

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's name
        """For the reactor's own messages."""
        return "links"

    def doRead(self) -> None:  # noqa: N802 - Twisted's name
        """Links changed."""
        links = self._monitor.changed()
        if self._bridges is not None:
            self._bridges.links_changed()
        self._session.links_changed(links)

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002, N802 - Twisted's name and argument
        """The reactor lets go of it."""
        self._monitor.close()


class Agent:
    """All of one agent, from its configuration. Raises `OSError`, `ValueError`, as `load_key`."""

    log = Logger()

    def __init__(self, config: AgentConfig, reactor: Reactor, notifier: Notifier) -> None:
        self._config = config
        self._reactor = reactor
        key = load_key(Path(config.broker_key)) or self._nobodys_key()
        durable = DurableState(Path(config.state), config.domid)
        if durable.problem:
            self.log.critical("starting without memory: {why}", why=durable.problem)
        spared = {0, config.domid}
        if config.helper is not None and config.helper.broker_domid is not None:
            spared.add(config.helper.broker_domid)
        # In another backend domain there is no toolstack: there it can only be reported.
        destroy = Destroyer(reactor, spared, config.xl).destroy if config.domid == 0 else None
        refused = destroy if config.strict else None
        self._net = NetHelper(reactor)
        filters = VifFilters(config.domid, key, durable, Path(config.state))
        self._bridges = _bridges(config, durable, self._net, reactor, filters)
        frames = self._bridges or NotHeld(filters)
        self._session = AgentSession(
            config.store,
            reactor,
            domid=config.domid,
            key=key,
            durable=durable,
            make_gates=(
                _simulated_gates
                if config.gates == "simulated"
                else _real_gates(reactor, self._net, frames, config.route_through)
            ),
            bootstrap=config.bootstrap_devices,
            refused=refused,
            ungated=destroy if config.ungated == "destroy" else None,
            bridges=None if config.gates == "simulated" else frames,
            filters=filters,
            allow_observe=config.allow_observe,
        )
        self._counted: list[RegularReport] = []
        if self._bridges is not None:
            told, counts = (config.domid, reactor, self._session.connected), self._bridges.counts
            self._counted = [
                DropReports(*told, counts.refused),
                FilterReports(*told, counts.filters),
            ]
        self._alive = SelfReports(
            config.domid,
            reactor,
            self._session.connected,
            states=self._session.states,
            beat=lambda: self._session.beat() is not None,
            policy=lambda: None if self._bridges is None else self._bridges.policy or MISSING,
        )
        self._watchdog = Watchdog(self._session, notifier, reactor)
        self._net.back = lambda: self._session.links_changed(None)
        if self._bridges is not None:
            self._bridges.changed = self._net.back
        self._helper = (
            None
            if config.helper is None
            else HelperSession(
                config.store,
                reactor,
                broker=config.helper.broker_domid or 0,
                broker_uuid=config.helper.broker_uuid,
                found=spared.add,
                refused=refused,
            )
        )

        self._orders = _order_session(config, reactor, key, self._session.beat, spared)
        self._untrusted = (
            None
            if self._helper is None
            else UntrustedBackends(self._session.connected, key, reactor)
        )

    def start(self) -> None:
        """Begin.

        Raises:
            CannotListenError: the hotplug socket cannot be had.
            NetError: the network cannot be changed, or labels not be enforced on the bridges.
            OSError: the net helper cannot be started.
        """
        config = self._config
        if config.gates == "real":
            if self._bridges is not None:
                self._bridges.start()
            self._net.start()  # before any gate moves
            give_up_net_admin()
        if config.hotplug_socket is not None:
            service = hotplug.HotplugService(self._session, config.domid, strict=config.strict)
            hotplug.listen(service, Path(config.hotplug_socket), self._reactor)
        if config.gates == "real":
            self._reactor.addReader(_MonitorReader(LinkMonitor(), self._session, self._bridges))
        if self._helper is not None:
            self._helper.startService()
        if self._untrusted is not None:
            self._untrusted.start()
        self._session.startService()
        if self._orders is not None:
            self._orders.startService()
        for report in self._counted:
            report.start(now=False)
        self._alive.start()
        self._watchdog.start()

    def _nobodys_key(self) -> Ed25519PublicKey:
        """For a host whose broker has not made its key yet: its disk opens without a record.

        Nobody has the private half, so that no record verifies.
        """
        self.log.critical(
            "there is no broker's key at {path} yet: nothing opens but bootstrap devices; put "
            "the broker's public key there, then start the agent anew",
            path=self._config.broker_key,
        )
        return Ed25519PrivateKey.generate().public_key()

    async def stop(self) -> None:
        """Finish what is under way; no gate is moved."""
        self.log.info("stopping: every gate stays as it is")
        self._watchdog.stop()
        self._alive.stop()
        for report in self._counted:
            report.stop()
        if self._untrusted is not None:
            self._untrusted.stop()
        if self._orders is not None:
            await self._orders.stopService()
        await self._session.stopService()
        if self._helper is not None:
            await self._helper.stopService()
        if self._bridges is not None:
            self._bridges.stop()
        self._net.stop()


def _bridges(
    config: AgentConfig,
    durable: DurableState,
    helper: NetHelper,
    reactor: Reactor,
    filters: VifFilters,
) -> Bridges | None:
    if config.policies is None:
        return None
    return Bridges(
        config.bridges,
        policies=Path(config.policies),
        report=Path(config.net_report),
        durable=durable,
        helper=helper,
        reactor=reactor,
        filters=filters,
    )


def _order_session(
    config: AgentConfig,
    reactor: Reactor,
    key: Ed25519PublicKey,
    beat: Callable[[], int | None],
    spared: Collection[int],
) -> OrderSession | None:
    """Orders are for dom0's agent alone: elsewhere nobody may write what they are about."""
    if config.domid != 0:
        return None
    taken = config.orders or OrdersConfig()
    rules = OrderRules(
        kinds=taken.kinds,
        disks=taken.disks,
        spared=spared,
        bootstrap=config.bootstrap_devices,
        protocol=PROTOCOLS.get(platform.machine()),
    )
    destroy = Destroyer(reactor, spared, config.xl).destroy
    return OrderSession(
        config.store,
        reactor,
        key=key,
        orders=OrderLog(Path(config.state)),
        rules=rules,
        make_acts=lambda connection: Acts(connection, reactor, rules, destroy),
        beat=beat,
    )


def _simulated_gates(nodes: BackendNodes) -> dict[str, Gate]:
    gate = SimulatedGate(nodes)
    return {"vif": gate, "vbd": gate}


def _real_gates(
    reactor: Reactor, changer: LinkChanger, port_filter: PortFilter, route_through: str
) -> Callable[[BackendNodes], dict[str, Gate]]:
    def make(nodes: BackendNodes) -> dict[str, Gate]:
        vif = VifGate(LinkTable(), changer, nodes, port_filter, route_through=route_through)
        return {"vif": vif, "vbd": VbdGate(nodes, Blkback(), reactor)}

    return make


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="broker-agent", description="Enforces the broker's decisions."
    )
    parser.add_argument(
        "--config", required=True, type=Path, metavar="FILE", help="the configuration, agent.yaml"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The `broker-agent` command; returns its exit status."""
    options = build_parser().parse_args(arguments)
    # Imported here: importing it installs it.
    from twisted.internet import reactor as installed  # noqa: PLC0415

    reactor = cast("Reactor", installed)
    written: ILogObserver = textFileLogObserver(sys.stderr)
    if goes_to_journal():
        written = JournalObserver("broker-agent", written)
    level = FilteringLogObserver(written, [LogLevelFilterPredicate(LogLevel.info)])
    globalLogBeginner.beginLoggingTo([level], redirectStandardIO=False)
    notifier = Notifier()
    try:
        agent = Agent(load_config(options.config), reactor, notifier)
        agent.start()
    except ProblemsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except NetError as error:
        sys.stderr.write(f"broker-agent: {error}\n")
        return 1
    except (OSError, ValueError, CannotListenError) as error:
        sys.stderr.write(f"broker-agent: {error}\n")
        return 2
    reactor.addSystemEventTrigger(
        "before", "shutdown", lambda: defer.Deferred.fromCoroutine(agent.stop())
    )
    reactor.addSystemEventTrigger("before", "shutdown", notifier.stopping)
    notifier.ready()
    reactor.run()
    return 0
