"""Runs the brokerd that is installed here through a short life, and says what it had to import.

Given on standard input: a policy. Said on standard output: a JSON object of module names, each
with the file it came from. Exit 1 if brokerd did not do what is asked of it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import tempfile
import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 120.0
"""Seconds for any one step."""
CREDENTIALS = {"cert": "tester.crt", "key": "tester.key", "ca": "ca.crt"}
UNREACHABLE = 3
SPECS = "/usr/share/xen-policy-broker/protocol_specs"
METHODS = (
    *("status", "domain.list", "label.get", "label.rm", "label.list", "channel.list"),
    *("channel.explain", "channel.watch", "policy.show"),
)


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = str(path)

    def connect(self) -> None:
        """To the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


BROKERD = """
import sys
# A second OpenSSL beside cryptography's: the standard library does without, and so does the image.
sys.modules["_ssl"] = sys.modules["_hashlib"] = None
from broker.service.main import main
# Before it is confined.
said = open(sys.argv[1], "w")
status = main(sys.argv[2:])
# As it does when channels come that it has to look at.
from pathlib import Path
from broker.service.specs import load_descriptions
for description in load_descriptions(Path("@SPECS@")).values():
    description.monitor()
modules = {
    # A directory that is a package without any code has a path only.
    name: getattr(module, "__file__", None) or ("" if hasattr(module, "__path__") else None)
    for name, module in sys.modules.items()
    if name != "__main__" and module is not None
}
# What is there under this name is no module, but came from one.
modules["twisted.internet.reactor"] = modules["twisted.internet"].replace("__init__", "reactor")
import json
json.dump(modules, said)
said.close()
sys.exit(status)
""".replace("@SPECS@", SPECS)
"""brokerd itself, from start to stop; then what it has imported."""


def call(socket_path: Path, method: str, arguments: dict[str, object]) -> dict[str, object]:
    """One call of the RPC; a stream is cut after its head."""
    connection = Connection(socket_path)
    with contextlib.closing(connection):
        body = json.dumps(arguments)
        connection.request("POST", f"/v1/{method}", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.getheader("Content-Type") != "application/json":
            return {}
        found: dict[str, object] = json.loads(answer.read())
        return found


def looks(rpc: Path, path: str) -> bool:
    """Whether a browser or a scraper would get a page."""
    with contextlib.closing(Connection(rpc)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK


def until(what: str, holds: Callable[[], object]) -> object:
    """What `holds` says, once it says yes."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            value = holds()
            if value:
                return value
        time.sleep(0.05)
    raise TimeoutError(what)


def exercise(child: int, place: Path, policy: str) -> None:
    """Ask it everything, rightly and wrongly; have it reload; stop it."""
    rpc = place / "run/broker.sock"
    until("a broker that enforces", lambda: '"enforcing"' in json.dumps(call(rpc, "status", {})))
    for method in METHODS:
        call(rpc, method, {})
    call(rpc, "label.set", {"domain": "56b8d9d0-f417-45de-ab20-17715a9d5aab", "label": "none"})
    call(rpc, "policy.load", {"text": policy, "dry_run": True})
    call(rpc, "policy.load", {"text": "policy: {bad: [", "dry_run": True})
    call(rpc, "no.such", {})
    for path in ("/console/", "/metrics"):
        if not looks(rpc, path):
            raise ConnectionError(f"no {path}")
    names = [f"--{name}={place}/pki/{file}" for name, file in CREDENTIALS.items()]
    status = brokerctl("--connect", f"tls-unix:{place}/run/vchan.sock", *names, "status")
    if status == UNREACHABLE:
        raise ConnectionError("no answer over TLS")
    (place / "policy.yaml").write_text("nothing: good\n")
    os.kill(child, signal.SIGHUP)
    call(rpc, "status", {})
    os.kill(child, signal.SIGTERM)


def brokerctl(*arguments: str) -> int:
    """Run brokerctl: its exit status; what it says goes to standard error."""
    words = [sys.executable, "-I", "-m", "broker.cli.main", *arguments]
    child = os.posix_spawn(sys.executable, words, {}, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def prepare(place: Path, policy: str, seen: Path) -> None:
    """What it is configured with, in `place`, which brokerd sees as `seen`."""
    (place / "policy.yaml").write_text(policy)
    (place / "broker.yaml").write_text(
        f"state: state\npolicy: policy.yaml\nspecs: {SPECS}\n"
        f"rpc:\n  late: true\n  socket: {seen}/run/broker.sock\n"
        f"  listen: ['unix:{seen}/run/vchan.sock']\n"
        "  tls: {certificate: pki/broker.crt, key: pki/broker.key, ca: pki/ca.crt}\n"
    )
    for words in (["init"], ["issue", "--role=any", "tester"]):
        if brokerctl("pki", *words, f"--dir={place}/pki") != 0:
            raise OSError(f"brokerctl pki {words[0]} failed")


def main() -> int:
    """Both processes."""
    policy = sys.stdin.read()
    with tempfile.TemporaryDirectory(prefix="xpb-") as name:
        place = Path(name)
        prepare(place, policy, place)
        options = ["--config", f"{place}/broker.yaml", "--store", "embedded", "--init"]
        words = [sys.executable, "-I", "-c", BROKERD, f"{place}/imported", *options]
        child = os.posix_spawn(sys.executable, words, {})
        try:
            exercise(child, place, policy)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write((place / "imported").read_text())
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main())
