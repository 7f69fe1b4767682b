"""`brokerd`: reads the configuration, opens the state, and runs until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import gc
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.logger import (
    FilteringLogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from broker import VERSION
from broker.confine.process import ConfineError
from broker.pki.dsse import BundleError, key_id, read_signer
from broker.policy.load import load_policy
from broker.rpc.errors import ListenError, RpcError
from broker.rpc.files import read_regular
from broker.rpc.local import SocketInUseError
from broker.rpc.tls_files import TlsFilesError
from broker.service import events
from broker.service.admin import BrokerAdmin
from broker.service.audit import Audit
from broker.service.authority import local_root
from broker.service.budget import Budget
from broker.service.config import EMBEDDED, Settings, load_settings
from broker.service.confinement import confine_brokerd
from broker.service.engine import Engine
from broker.service.exposing import Exposing
from broker.service.filter_profiles import read_shipped
from broker.service.freshness import check_freshness
from broker.service.health import Health
from broker.service.heartbeat import INTERVAL, Heartbeat
from broker.service.orders import By, Orders
from broker.service.policies import Policies
from broker.service.specs import load_descriptions
from broker.service.statedir import RefusedError, StateDir
from broker.service.tickets import Tickets
from broker.service.watchdog import Watchdog
from broker.systemd.journal import JournalObserver, goes_to_journal
from broker.systemd.notify import Notifier
from broker.systemd.sockets import inherited_unix_sockets
from broker.text.problems import ProblemsError
from broker.xenstore import paths
from broker.xenstore.errors import StoreError
from broker.xenstore.session import StoreSession
from broker.xenstore.store.server import StoreServer
from broker.xenstore.store.store import EmbeddedStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IReactorFromThreads, IReactorTime, IReactorUNIX
    from twisted.logger import ILogObserver

    from broker.core.definition import Action
    from broker.rpc.server import Servers
    from broker.rpc.tls_files import Notice
    from broker.service.mirror import Device
    from broker.xenstore.client import StoreConnection
    from broker.xenstore.transport import Reactor

_COLLECT_EVERY: Final = 50_000
"""Objects made, less those that went, between two looks for garbage."""


LATEST: Final = 30.0
"""Seconds after which an RPC that comes late is served, whatever the store does."""
_UNSERVED: Final = (CannotListenError, ListenError, SocketInUseError, TlsFilesError)


class UnwritableError(Exception):
    """The audit log cannot be written now; nothing is wrong with the state."""


class Brokerd:
    """One broker, wired: state, engine, heartbeat, store session, RPC."""

    log = Logger()

    def __init__(self, settings: Settings, reactor: Reactor, *, init: bool) -> None:
        """Open the state and prepare everything; nothing is connected yet.

        Raises:
            RefusedError: the state will not do.
            UnwritableError: the audit log cannot be written.
            ProblemsError: the descriptions, or the policy that seeds an empty state, are not good.
            BundleError: a key that may sign policies is none.
            TlsFilesError, ListenError: what the RPC is to be served with will not do.
            OSError: something cannot be read or written.
        """
        self.refused: str | None = None
        self.on_refused: Callable[[], object] = lambda: None
        self._settings = settings
        self._reactor = reactor
        self._init = init
        descriptions = load_descriptions(settings.specs)
        keys = [read_signer(read_regular(it), str(it)) for it in settings.policy_signers]
        signers = {key_id(key): key for key in keys}
        self._statedir = StateDir(settings.state, init=init, rotation=settings.rotation)
        key = self._statedir.key
        budget = Budget(settings.burst, settings.refill)
        clock = cast("IReactorTime", reactor)
        self.audit = Audit(self._statedir.journal, self._statedir.state, budget, clock)
        self.engine = Engine(
            self.audit,
            key,
            clock,
            adopt=settings.adopt_labels,
            patience=settings.patience,
            check=self._check_store,
        )
        self.engine.judge.specs = {name: it.digest for name, it in descriptions.items()}
        self.engine.police.teach(descriptions)
        self._policies = Policies(
            self.engine, self._statedir, signers, approval_life=settings.approval_life
        )
        self._checked = False
        self._public_key = key.public_key()
        started = events.Started(time.time(), VERSION, self._statedir.note)
        if not self.audit.commit([started]):
            raise UnwritableError(f"the audit log cannot be written: {self.audit.broken}")
        self.engine.filters.restore(read_shipped(settings.filters), self._statedir)
        if not self._policies.restore() and settings.policy is not None:
            self._seed(settings.policy)
        self.heartbeat = Heartbeat(self.engine, self.audit, key)
        self.notifier = Notifier()
        self.watchdog = Watchdog(self.engine, self.heartbeat, self.notifier)
        self._beating = LoopingCall(self._beat)
        self._beating.clock = reactor
        self._embedded, address = _store(settings, reactor)
        self.address = address
        self._session = StoreSession(
            address,
            reactor,
            on_connect=self._connected,
            on_event=self._event,
            on_disconnect=self.engine.disconnected,
        )
        self.orders = Orders(self.engine, key, clock, lambda: self.heartbeat.published)
        self.admin = BrokerAdmin(self.engine, self._policies, self.heartbeat, self.orders, address)
        self.health = Health(
            self.engine, self.heartbeat, self._policies, address, patience=settings.patience
        )
        self.admin.health = self.health
        self.engine.police.on_punish = self._punish
        label_signers = [read_signer(read_regular(it), str(it)) for it in settings.label_signers]
        self.admin.tickets = Tickets(self.engine, self.admin.labels, key, label_signers)
        self._rpc: Servers | None = None if settings.late else self._servers()
        self.health.notices = self._notices
        self.admin.exposing = Exposing(self.engine, self.heartbeat, self.health, self._expiries)

    def start(self) -> None:
        """Serve, connect, beat.

        Raises:
            OSError, CannotListenError, ListenError, SocketInUseError: a socket cannot be made.
        """
        self._settings.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._embedded is not None:
            self._embedded.start()
        if self._rpc is not None:
            self._rpc.start()
        else:
            self._reactor.callLater(LATEST, self._serve)
        self.notifier.ready()
        self._session.startService()
        self._beating.start(INTERVAL, now=False)

    async def stop(self) -> None:
        """Stop cleanly: every record and every gate stays as it is."""
        self.notifier.stopping()
        engine = self.engine
        if self._beating.running:
            self._beating.stop()
        if self._rpc is not None:
            await self._rpc.stop()
        connection = engine.connection
        engine.phase = "stopped"
        engine.decider.clear()
        if connection is not None and self.refused is None:
            try:
                await connection.write(paths.STATE, b"stopped")
            except StoreError as error:
                self.log.warn("the store does not know that the broker stopped: {e}", e=error)
        await self._session.stopService()
        if self._embedded is not None:
            await self._embedded.stop()
        self.audit.note(events.Stopped(time.time()))
        self.audit.sign()  # a disk that is full is said, and keeps nobody from stopping
        self._statedir.close()
        self.log.info("stopped; every record and every gate stays as it is")

    def reload(self) -> None:
        """SIGHUP: load the configured policy file, as `policy.load` would."""
        path = self._settings.policy
        if path is None:
            self.log.error("SIGHUP: no policy file is configured")
            return
        try:
            change = self._policies.load(read_regular(path), str(path), local_root("signal SIGHUP"))
        except (RpcError, OSError) as error:
            problems: tuple[str, ...] = getattr(error, "problems", ())
            for problem in problems:
                self.log.warn("SIGHUP: {problem}", problem=problem)
            what = "; ".join([str(error), *problems[:1]])
            self.audit.failed(f"SIGHUP: the policy in force stays: {what}")
            return
        if change.proposal is not None:
            return
        if not change.changed:
            self.log.info("SIGHUP: {path} is in force already", path=path)
        announcing = Deferred.fromCoroutine(self.engine.announce())
        announcing.addErrback(lambda failure: failure.trap(StoreError) and None)

    def confine(self) -> None:
        """Give up for good what is not needed from here on.

        Raises:
            ConfineError: it was asked for, the kernel can, and it did not succeed.
        """
        if self._settings.confine:
            self.health.unheld = confine_brokerd(self._settings)
        else:
            self.health.unheld = ("confinement: broker.yaml says `confine: false`",)
        for what in self.health.unheld:
            self.log.warn("brokerd runs without {what}", what=what)

    def _servers(self) -> Servers:
        # With TLS and HTTP a third of all that is imported.
        from broker.rpc.server import Servers  # noqa: PLC0415 - where they come late

        settings = self._settings
        return Servers(
            self.admin,
            settings.socket,
            settings.listen,
            settings.tls,
            self._reactor,
            limits=settings.limits,
            inherited=inherited_unix_sockets(),
        )

    def _serve(self) -> None:
        """Serve the RPC, if it comes late and has not come yet; the decisions go on without it."""
        if self._rpc is not None or self.engine.phase == "stopped":
            return
        try:
            self._rpc = self._servers()
            self._rpc.start()
        except (OSError, *_UNSERVED) as error:
            self.log.critical("nobody can reach the broker: {error}", error=error)

    def _notices(self) -> tuple[Notice, ...]:
        return () if self._rpc is None else self._rpc.notices()

    def _expiries(self) -> tuple[tuple[str, float], ...]:
        return () if self._rpc is None else self._rpc.expiries()

    def _seed(self, path: Path) -> None:
        """The configured policy, for a state that has none yet: bad input if it is not good."""
        data = read_regular(path)
        if not self._settings.policy_signers:
            load_policy(data, str(path))
        try:
            self._policies.load(data, str(path), local_root("the first start"))
        except RpcError as error:
            raise RefusedError("; ".join([str(error), *error.problems])) from None

    def _event(self, path: str, token: str) -> None:
        """A watch fired: the results of orders are nothing that is decided on."""
        if not self.orders.event(path):
            self.engine.event(path, token)

    def _punish(
        self, action: Action, device: Device, domid: int | None, uuid: str | None, reason: str
    ) -> None:
        """Have dom0's agent do what a denial cannot."""
        if action == "reset":
            self.orders.reset(device, By(reason=reason))
        elif domid is not None and uuid is not None:
            self.orders.destroy(domid, uuid, reason)

    async def _connected(self, connection: StoreConnection) -> None:
        await self.engine.connected(connection)
        await self.heartbeat.beat()
        self.log.info("enforcing on {address}", address=self.address)
        self._reactor.callLater(0, self._serve)

    async def _check_store(self, connection: StoreConnection) -> None:
        """Once, before anything is published: is the state as new as what is?"""
        if self._checked:
            return
        try:
            await check_freshness(
                connection, self.engine.mirror, self.audit, self._public_key, init=self._init
            )
        except RefusedError as error:
            self.refused = str(error)
            self._reactor.callLater(0, self.on_refused)
            raise StoreError("EPERM", "the state is refused") from None
        self._checked = True

    def _beat(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._pulse())

    async def _pulse(self) -> None:
        """Every two seconds; a store that answers nothing holds this up, and the watchdog bites."""
        self.engine.tick()
        self.health.tick()
        await self.heartbeat.beat()
        await self.watchdog.look()


def _store(settings: Settings, reactor: Reactor) -> tuple[StoreServer | None, str]:
    """The store of the broker's own, if that is configured, and the store's address."""
    if settings.store != EMBEDDED:
        return None, settings.store
    socket = settings.state / "store.sock"
    server = StoreServer(
        EmbeddedStore(),
        str(socket),
        cast("IReactorUNIX", reactor),
        guest_sockets=str(settings.state / "store.d"),
    )
    return server, f"unix:{socket}"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="brokerd", description="Decide which domains may be connected to whom."
    )
    parser.add_argument(
        "--config", required=True, type=Path, metavar="FILE", help="the configuration, broker.yaml"
    )
    parser.add_argument(
        "--store", metavar="unix:PATH|xenbus|embedded", help="wins over the configuration's"
    )
    parser.add_argument("--state", type=Path, metavar="DIR", help="wins over the configuration's")
    parser.add_argument(
        "--init",
        action="store_true",
        help="make a new state, or accept one that is lost, corrupt or older than what is "
        "published",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run brokerd: its exit status.

    0 after a clean stop, 1 if the state is refused, 2 for bad input, 3 if the audit log cannot be
    written: starting again may help.
    """
    options = build_parser().parse_args(arguments)
    # Twisted's own news (ports that start, the main loop) help no operator; its errors do.
    levels = LogLevelFilterPredicate()
    levels.setLogLevelForNamespace("log_legacy", LogLevel.warn)
    written: ILogObserver = textFileLogObserver(sys.stderr)
    if goes_to_journal():
        written = JournalObserver("brokerd", written)
    observer = FilteringLogObserver(written, [levels])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    reactor = cast("Reactor", _reactor)
    try:
        settings = load_settings(options.config, store=options.store, state=options.state)
        brokerd = Brokerd(settings, reactor, init=options.init)
        brokerd.start()
        brokerd.confine()
    except RefusedError as error:
        sys.stderr.write(f"brokerd: refused to start: {error}\n")
        return 1
    except ConfineError as error:
        sys.stderr.write(f"brokerd: cannot be confined: {error}\n")
        return 2
    except UnwritableError as error:
        sys.stderr.write(f"brokerd: {error}\n")
        return 3
    except (
        ProblemsError,
        BundleError,
        OSError,
        *_UNSERVED,
    ) as error:
        sys.stderr.write(
            f"{error}\n" if isinstance(error, ProblemsError) else f"brokerd: {error}\n"
        )
        return 2
    # Hardly anything here is garbage in a cycle; looking for it as often as Python does by
    # itself costs one part in twenty of a busy broker's time.
    gc.set_threshold(_COLLECT_EVERY)
    gc.enable()  # in a mini-domain it is not yet
    brokerd.on_refused = _reactor.stop
    threads = cast("IReactorFromThreads", _reactor)
    signal.signal(signal.SIGHUP, lambda *_: threads.callFromThread(brokerd.reload))
    _reactor.addSystemEventTrigger(
        "before", "shutdown", lambda: maybeDeferred(lambda: Deferred.fromCoroutine(brokerd.stop()))
    )
    brokerd.log.info(
        "brokerd {version} started: store {store}, public key {key}",
        version=VERSION,
        store=brokerd.address,
        key=settings.state / "broker.pub",
    )
    _reactor.run()
    if brokerd.refused is not None:
        sys.stderr.write(f"brokerd: refused to go on: {brokerd.refused}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
