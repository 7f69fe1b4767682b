"""dom0's end of the channel: one JSON request a line in, one JSON answer a line out, any order.

    {"id": 1, "do": "run", "command": "xl list", "timeout": 10}
    {"id": 2, "do": "guest", "domid": 3, "command": "ip addr", "timeout": 10}
    {"id": 3, "do": "store", "requests": [["read", "/vm"], ["tree", "/broker"]]}
    {"id": 4, "do": "rpc", "socket": PATH, "method": "status", "arguments": {}}
      with "tls": DIR, where tester.crt, tester.key and ca.crt are, if the socket speaks TLS
    {"id": 5, "do": "exists", "path": PATH}

Runs on dom0's own Python, on nothing but its library, and shares no code with the product.
"""

import contextlib
import http.client
import json
import os
import re
import select
import socket
import ssl
import struct
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STORE = "/run/xenstored/socket"
BROKER_HOST = "xen-policy-broker"
"""A name in every broker's certificate."""
HANDSHAKE_SECONDS = 10
DIRECTORY, READ, GET_PERMS, WRITE, RM, ERROR = 1, 2, 3, 11, 13, 16


class RefusedError(Exception):
    """xenstored's answer was an error; its name is the argument."""


class Store:
    """A plain xenstore client: one request at a time, a connection for each batch."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(STORE)
        self._input = self._socket.makefile("rb")

    def close(self) -> None:
        """End the connection."""
        self._input.close()
        self._socket.close()

    def do(self, what: str, path: str, *rest: str) -> Any:  # noqa: ANN401 - as JSON has it
        """One request: read, list, tree, perms, write, remove."""
        if what == "read":
            return _text(self._call(READ, path))
        if what == "list":
            return self._names(path)
        if what == "tree":
            return self._tree(path)
        if what == "perms":
            return [it.decode() for it in self._call(GET_PERMS, path).split(b"\0") if it]
        if what == "write":
            self._call(WRITE, path, raw=rest[0].encode())
            return None
        if what == "remove":
            self._call(RM, path)
            return None
        raise ValueError(what)

    def _call(self, operation: int, path: str, raw: bytes = b"") -> bytes:
        payload = path.encode() + b"\0" + raw
        self._socket.sendall(struct.pack("<IIII", operation, 1, 0, len(payload)) + payload)
        answered, _, _, length = struct.unpack("<IIII", self._input.read(16))
        answer = self._input.read(length)
        if answered == ERROR:
            raise RefusedError(answer.rstrip(b"\0").decode())
        return answer

    def _names(self, path: str) -> list[str]:
        return [it.decode() for it in self._call(DIRECTORY, path).split(b"\0") if it]

    def _tree(self, path: str) -> dict[str, str]:
        found = {}
        left = [path]
        while left:
            here = left.pop()
            try:
                found[here] = _text(self._call(READ, here))
                left += [f"{here.rstrip('/')}/{name}" for name in self._names(here)]
            except RefusedError:
                continue  # gone meanwhile
        return found


class Guest:
    """A guest's console, by the terminal that xenconsoled offers."""

    def __init__(self, terminal: str) -> None:
        self.terminal = terminal
        self._fd = os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._fd, termios.TCSANOW)
        self._lock = threading.Lock()
        self._last = 0

    def run(self, command: str, timeout: float) -> tuple[int | None, str]:
        """Status and output; the status is None if it did not answer in time."""
        with self._lock:
            self._last += 1
            name = f"c{os.getpid()}x{int(time.monotonic())}x{self._last}"
            deadline = time.monotonic() + timeout
            os.write(self._fd, f"{name} {command}\n".encode())
            end = re.compile(rf"<{name}\r?\n(.*?)>{name} (\d+)\r?\n".encode(), re.DOTALL)
            said = b""
            while True:
                left = max(0, deadline - time.monotonic())
                if not select.select([self._fd], [], [], left)[0]:
                    return None, _text(said)
                try:
                    said += os.read(self._fd, 65536)
                except OSError:
                    return None, "the console is gone"
                found = end.search(said)
                if found:
                    return int(found[2]), _text(found[1].replace(b"\r", b""))


class Rpc(http.client.HTTPConnection):
    """HTTP over a unix socket; with certificates of the directory `tls` over TLS on one."""

    def __init__(self, path: str, tls: str | None) -> None:
        super().__init__("broker", timeout=25)
        self._path = path
        self._context = None
        if tls is not None:
            self._context = ssl.create_default_context(cafile=f"{tls}/ca.crt")
            self._context.load_cert_chain(f"{tls}/tester.crt", f"{tls}/tester.key")

    def connect(self) -> None:
        """To the path, whatever the name; what stands behind a proxy may take a moment."""
        deadline = time.monotonic() + 60
        while True:
            plain = socket.socket(socket.AF_UNIX)
            plain.settimeout(25)
            try:
                plain.connect(self._path)
                self.sock = plain
                if self._context is not None:
                    # One who comes while the proxies begin anew may wait for nothing.
                    plain.settimeout(HANDSHAKE_SECONDS)
                    self.sock = self._context.wrap_socket(plain, server_hostname=BROKER_HOST)
                    self.sock.settimeout(25)
            except OSError:
                plain.close()
                if self._context is None or time.monotonic() > deadline:
                    raise
                time.sleep(0.3)
            else:
                return

    def call(self, method: str, arguments: object) -> Any:  # noqa: ANN401 - as JSON has it
        """One call; the connection stays for the next."""
        headers = {"Content-Type": "application/json"}
        self.request("POST", f"/v1/{method}", json.dumps(arguments), headers)
        return json.loads(self.getresponse().read())


class Kept:
    """The connection to each socket; one call at a time, since a proxy serves one connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, Rpc] = {}

    def call(self, request: dict[str, Any]) -> Any:  # noqa: ANN401 - as JSON has it
        """One call, on a connection that is there or on a new one."""
        path, words = request["socket"], (request["method"], request["arguments"])
        with self._lock:
            kept = self._kept.pop(path, None)
            if kept is not None:
                # The broker hangs up on who is silent for long.
                with contextlib.suppress(ConnectionError, ssl.SSLError, http.client.HTTPException):
                    answer = kept.call(*words)
                    self._kept[path] = kept
                    return answer
                kept.close()
            fresh = Rpc(path, request.get("tls"))
            try:
                answer = fresh.call(*words)
            except BaseException:
                fresh.close()
                raise
            self._kept[path] = fresh
            return answer


class Server:
    """Answers requests from the channel `fd`, each in a thread of its own."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._writing = threading.Lock()
        self._guests: dict[int, Guest] = {}
        self._guests_lock = threading.Lock()
        self._broker = Kept()

    def serve(self) -> None:
        """Until the channel ends; the first answer, to request 0, says that dom0 is up."""
        self._send({"id": 0})
        for line in self._lines():
            request = json.loads(line)
            threading.Thread(target=self._answer, args=(request,), daemon=True).start()

    def _lines(self) -> Iterator[bytes]:
        data = b""
        while more := os.read(self._fd, 65536):
            *lines, data = (data + more).split(b"\n")
            yield from (line for line in lines if line)

    def _send(self, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode() + b"\n"
        with self._writing:
            while data:
                data = data[os.write(self._fd, data) :]

    def _answer(self, request: dict[str, Any]) -> None:
        doers = {
            "run": _run,
            "guest": self._guest,
            "rpc": self._rpc,
            "store": _store,
            "exists": _exists,
        }
        try:
            answer = doers[request["do"]](request)
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        self._send({"id": request["id"], **answer})

    def _rpc(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = self._broker.call(request)
        except (OSError, ValueError, http.client.HTTPException) as error:
            return {"refused": repr(error)}
        return {"result": answer["result"]} if "result" in answer else {"refused": answer}

    def _guest(self, request: dict[str, Any]) -> dict[str, Any]:
        domid = request["domid"]
        store = Store()
        try:
            terminal = store.do("read", f"/local/domain/{domid}/console/tty")
        finally:
            store.close()
        with self._guests_lock:
            guest = self._guests.get(domid)
            if guest is None or guest.terminal != terminal:
                guest = self._guests[domid] = Guest(terminal)
        status, output = guest.run(request["command"], request["timeout"])
        return {"status": status, "output": output}


def _run(request: dict[str, Any]) -> dict[str, Any]:
    process = subprocess.Popen(
        ["/bin/sh", "-c", request["command"]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=request["timeout"])
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, errors = process.communicate()
        return {"status": None, "output": _text(output), "errors": "timed out"}
    return {"status": process.returncode, "output": _text(output), "errors": _text(errors)}


def _exists(request: dict[str, Any]) -> dict[str, Any]:
    return {"exists": Path(request["path"]).exists()}


def _store(request: dict[str, Any]) -> dict[str, Any]:
    store = Store()
    answers: list[Any] = []
    try:
        for words in request["requests"]:
            try:
                answers.append(store.do(*words))
            except RefusedError as error:
                answers.append({"refused": str(error)})
    finally:
        store.close()
    return {"answers": answers}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _channel() -> str:
    for name in Path("/sys/class/virtio-ports").glob("*/name"):
        if name.read_text().strip() == "testbed":
            return f"/dev/{name.parent.name}"
    sys.exit("no channel to the machine outside")


Server(os.open(_channel(), os.O_RDWR)).serve()
