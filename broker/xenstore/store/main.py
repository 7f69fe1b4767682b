"""`broker-store`: the embedded store as a program of its own."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, cast

from twisted.internet import reactor as _reactor
from twisted.internet.error import CannotListenError
from twisted.logger import globalLogBeginner, textFileLogObserver

from broker.xenstore.store.server import StoreServer
from broker.xenstore.store.store import EmbeddedStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.interfaces import IReactorUNIX


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="broker-store", description="A xenstore in pure Python, without Xen."
    )
    parser.add_argument("--socket", required=True, metavar="PATH", help="domain 0's unix socket")
    parser.add_argument(
        "--guest-sockets",
        metavar="DIR",
        help="make DIR/<domid>.sock for each introduced domain; who connects speaks as that domid",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve an empty store until SIGINT or SIGTERM: 0 after that, 3 if it cannot listen."""
    options = build_parser().parse_args(arguments)
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    server = StoreServer(
        EmbeddedStore(),
        options.socket,
        cast("IReactorUNIX", _reactor),
        guest_sockets=options.guest_sockets,
    )
    try:
        server.start()
    except (OSError, CannotListenError) as error:
        sys.stderr.write(f"broker-store: cannot listen: {error}\n")
        return 3
    _reactor.addSystemEventTrigger("before", "shutdown", server.stop)
    sys.stderr.write(f"broker-store: listening on {options.socket}\n")
    sys.stderr.flush()
    _reactor.run()
    return 0
