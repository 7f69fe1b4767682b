"""Headless Chromium with somebody's client certificate, driven over its DevTools pipe.

Debian's own chromium, and nothing beside it: its certificates are in an NSS database in a home of
its own, and the policy that makes it choose one is mounted for this process alone (so root).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet import defer, error, protocol, task, threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from broker.xenstore.transport import Reactor

PATIENCE = 40.0
"""Seconds to wait for any one thing."""
TOOLS = ("chromium", "certutil", "pk12util", "unshare")
_POLICIES = "/etc/chromium/policies/managed"
_MOUNT = f'mkdir -p {_POLICIES} && mount --bind "$1" {_POLICIES} && shift && exec "$@"'
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--remote-debugging-pipe", "--disable-background-networking", "--disable-extensions"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--mute-audio"),
    *("--disable-features=Translate,OptimizationHints,MediaRouter", "--no-default-browser-check"),
    *("--force-color-profile=srgb", "--disable-background-timer-throttling"),
)


Json = Any
"""Whatever Chromium says."""


class ChromiumError(Exception):
    """Chromium is not there, ended, or a page did not do as it was asked."""


class _Pipe(protocol.ProcessProtocol):
    """Messages are JSON, ended by a NUL: to file descriptor 3, and back from 4."""

    def __init__(self, on_message: Callable[[dict[str, Json]], None]) -> None:
        self.ended: defer.Deferred[None] = defer.Deferred()
        self._on_message = on_message
        self._rest = b""

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N802, N803 - Twisted's names
        if childFD != 4:
            return
        *messages, self._rest = (self._rest + data).split(b"\0")
        for message in messages:
            self._on_message(json.loads(message))

    def processEnded(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        del reason
        self.ended.callback(None)


class Browser:
    """One browser of one person. `start` and `stop` are to be awaited."""

    def __init__(
        self, reactor: Reactor, url: str, ca: Path, p12: Path | None, password: str
    ) -> None:
        self.url = url
        self.home = Path(tempfile.mkdtemp(prefix="xs-", dir="/tmp"))
        self._reactor = reactor
        self._waiting: dict[int, defer.Deferred[Json]] = {}
        self._number = 0
        self._listeners: dict[str, list[Callable[[dict[str, Json]], None]]] = {}
        self._pipe = _Pipe(self._message)
        self._process: Json = None
        self._trust(ca, p12, password)

    def _trust(self, ca: Path, p12: Path | None, password: str) -> None:
        missing = [name for name in TOOLS if shutil.which(name) is None]
        if missing:
            raise ChromiumError(
                f"{', '.join(missing)} missing: apt-get install chromium libnss3-tools"
            )
        database = self.home / ".local" / "share" / "pki" / "nssdb"
        database.mkdir(parents=True)
        (self.home / ".pki").symlink_to(self.home / ".local" / "share" / "pki")
        where = ("-d", f"sql:{database}")
        _run("certutil", *where, "-N", "--empty-password")
        _run("certutil", *where, "-A", "-t", "C,,", "-n", "authority", "-i", str(ca))
        if p12 is not None:
            _run("pk12util", *where, "-i", str(p12), "-W", password)
        policies = self.home / "policies"
        policies.mkdir()
        chosen = json.dumps({"pattern": self.url.rstrip("/"), "filter": {}})
        (policies / "console.json").write_text(
            json.dumps({"AutoSelectCertificateForUrls": [chosen]})
        )

    def use_font(self, family: str) -> None:
        """Let the system's font be this one, where it is installed; before `start`."""
        aliases = "".join(
            f"<alias binding='same'><family>{generic}</family><prefer><family>{family}</family>"
            "</prefer></alias>"
            for generic in ("system-ui", "sans-serif")
        )
        file = self.home / ".config" / "fontconfig" / "fonts.conf"
        file.parent.mkdir(parents=True)
        file.write_text(f"<?xml version='1.0'?><fontconfig>{aliases}</fontconfig>")

    async def start(self) -> None:
        """Start Chromium and attach to its first page."""
        words = ["unshare", "--mount", "sh", "-c", _MOUNT, "sh", str(self.home / "policies")]
        words += ["chromium", *_FLAGS, f"--user-data-dir={self.home}/profile", "about:blank"]
        environment = {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "XDG_CACHE_HOME": str(self.home / "cache"),
        }
        # In a group of its own, so that all its processes can be ended.
        self._process = self._reactor.spawnProcess(
            self._pipe,
            "setsid",
            ["setsid", *words],
            env=environment,
            childFDs={0: "r", 1: "r", 2: "r", 3: "w", 4: "r"},
        )
        await self.send("Browser.getVersion")

    async def stop(self) -> None:
        """End Chromium, and forget its home."""
        if self._process is not None and self._process.pid is not None:
            group = self._process.pid
            self._process.loseConnection()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            await self._pipe.ended
        shutil.rmtree(self.home, ignore_errors=True)

    async def page(self, width: int = 1280, height: int = 900) -> Page:
        """A new tab."""
        target = await self.send("Target.createTarget", url="about:blank")
        session = await self.send(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        page = Page(self, session["sessionId"], target["targetId"], self._reactor)
        self._listeners[session["sessionId"]] = [page.told]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.send(f"{domain}.enable")
        await page.size(width, height)
        return page

    async def send(self, method: str, session: str | None = None, **fields: Json) -> Json:
        """One command's result; raises ChromiumError where there is none."""
        self._number += 1
        number = self._number
        answer: defer.Deferred[Json] = defer.Deferred()
        self._waiting[number] = answer
        message = {"id": number, "method": method, "params": fields}
        if session is not None:
            message["sessionId"] = session
        self._process.writeToChild(3, json.dumps(message).encode() + b"\0")
        answer.addTimeout(PATIENCE, self._reactor)
        try:
            return await answer
        except (defer.TimeoutError, error.ConnectionLost):
            raise ChromiumError(f"{method} was not answered in {PATIENCE:.0f} s") from None

    def _message(self, message: dict[str, Json]) -> None:
        answer = self._waiting.pop(message.get("id", 0), None)
        if answer is None:
            for listener in self._listeners.get(message.get("sessionId", ""), ()):
                listener(message)
        elif "error" in message:
            answer.errback(ChromiumError(message["error"]["message"]))
        else:
            answer.callback(message["result"])


class Page:
    """One tab.

    `complaints` are its uncaught exceptions, and errors that its console shows; `expected` are
    words of those that a test brings about.
    """

    def __init__(self, browser: Browser, session: str, target: str, reactor: Reactor) -> None:
        self.complaints: list[str] = []
        self.expected: list[str] = []
        self.requests: list[str] = []
        self.paused: list[dict[str, Json]] = []
        self._browser = browser
        self._session = session
        self._target = target
        self._reactor = reactor
        self._answers: Callable[[dict[str, Json]], Json] | None = None

    def told(self, message: dict[str, Json]) -> None:
        """An event of the tab."""
        method, fields = message["method"], message["params"]
        if method == "Runtime.exceptionThrown":
            details = fields["exceptionDetails"]
            self.complaints.append(
                details.get("exception", details).get("description", "exception")
            )
        elif method == "Log.entryAdded" and fields["entry"]["level"] == "error":
            self.complaints.append(f"{fields['entry']['text']} {fields['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(fields["request"]["url"])
        elif method == "Fetch.requestPaused":
            self._paused(fields)

    async def send(self, method: str, **fields: Json) -> Json:
        """A command to this tab."""
        return await self._browser.send(method, self._session, **fields)

    async def open(self, path: str = "console/") -> None:
        """Go to a path of the broker's."""
        found = await self.send("Page.navigate", url=self._browser.url + path)
        if found.get("errorText"):
            raise ChromiumError(f"{path}: {found['errorText']}")

    async def go(self, fragment: str) -> None:
        """Go to a page of the console that is open."""
        wanted = json.dumps("#/" + fragment)
        # The console's own listener was there first, so it has turned the page by then.
        await self.run(
            f"new Promise((turned) => {{ if (location.hash === {wanted}) return turned();"
            " addEventListener('hashchange', () => setTimeout(turned), {once: true});"
            f" location.hash = {wanted}; }})"
        )

    async def run(self, expression: str) -> Json:
        """The value of an expression; a promise is waited for."""
        found = await self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise ChromiumError(details.get("exception", {}).get("description", str(details)))
        return found["result"].get("value")

    async def until(self, expression: str, what: str = "") -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + PATIENCE
        while not await self.run(f"Boolean({expression})"):
            if time.monotonic() > deadline:
                text = await self.run("document.body?.innerText.slice(0, 1500)")
                raise ChromiumError(f"waited for {what or expression}; the page says: {text}")
            await task.deferLater(self._reactor, 0.03)

    async def says(self, *words: str) -> None:
        """Wait until the page shows all these words."""
        wanted = json.dumps(words)
        await self.until(
            f"{wanted}.every((it) => document.body?.innerText.includes(it))", f"the words {words}"
        )

    async def settled(self) -> None:
        """Wait until nothing loads any more, and two frames were drawn since."""
        await self.until("!document.querySelector('.skeleton, [aria-busy]')", "what loads")
        await self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 120)))")

    async def text(self) -> str:
        """What the page shows."""
        return str(await self.run("document.body.innerText"))

    async def click(self, words: str, among: str = "button, a") -> None:
        """Click what says these words, or begins with them where they end with `...`."""
        whole = not words.endswith("...")
        said = "it.textContent.trim()"
        test = (
            f"{said} === {json.dumps(words)}"
            if whole
            else f"{said}.startsWith({json.dumps(words[:-3])})"
        )
        found = f"[...document.querySelectorAll({json.dumps(among)})].find((it) => {test})"
        await self.until(found, f"{among} that says {words}")
        await self.run(f"{found}.click()")

    async def attach(self, selector: str, name: str, text: str) -> None:
        """Choose a file of this name and text in a field for files."""
        file = self._browser.home / name
        await threads.deferToThread(file.write_text, text)
        document = await self.send("DOM.getDocument")
        found = await self.send(
            "DOM.querySelector", nodeId=document["root"]["nodeId"], selector=selector
        )
        await self.send("DOM.setFileInputFiles", nodeId=found["nodeId"], files=[str(file)])

    async def press(self, key: str, *, shift: bool = False) -> None:
        """A key of the keyboard: Tab, Enter, Escape, or a letter."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        fields = {
            "key": key,
            "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper())),
            "modifiers": 8 if shift else 0,
        }
        await self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **fields)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **fields)

    async def write(self, text: str) -> None:
        """Text, where the focus is."""
        await self.send("Input.insertText", text=text)

    async def size(self, width: int, height: int = 900, scale: int = 1) -> None:
        """The window's size in CSS pixels."""
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    async def theme(self, name: str) -> None:
        """`light` or `dark`, as the system would prefer."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        await self.send("Emulation.setEmulatedMedia", features=features)

    async def picture(self, file: Path) -> None:
        """A PNG of the window."""
        found = await self.send("Page.captureScreenshot", format="png")
        await threads.deferToThread(file.write_bytes, b64decode(found["data"]))

    async def answer(self, answers: Callable[[dict[str, Json]], Json] | None) -> None:
        """Answer calls in the broker's place, as `answers(request)` says.

        That is a result, or an HTTP status with its body; None (the broker answers), `...` (nobody
        does) or "lost" (nobody is there).
        """
        self._answers = answers
        if answers is None:
            await self.send("Fetch.disable")
        else:
            await self.send("Fetch.enable", patterns=[{"urlPattern": "*/v1/*"}])

    def _paused(self, fields: dict[str, Json]) -> None:
        number = fields["requestId"]
        request = fields["request"]
        said = None if self._answers is None else self._answers(request)
        if said is ...:
            self.paused.append(fields)
            return
        if said is None:
            sending = self.send("Fetch.continueRequest", requestId=number)
        elif said == "lost":
            sending = self.send(
                "Fetch.failRequest", requestId=number, errorReason="ConnectionRefused"
            )
        else:
            status, body = said if isinstance(said, tuple) else (200, {"result": said})
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            sending = self.send(
                "Fetch.fulfillRequest",
                requestId=number,
                responseCode=status,
                responseHeaders=[{"name": "Content-Type", "value": "application/json"}],
                body=b64encode(data).decode(),
            )
        # A page that went elsewhere meanwhile takes no answer any more.
        defer.ensureDeferred(sending).addErrback(lambda failure: failure.trap(ChromiumError))

    async def close(self) -> None:
        """Close the tab."""
        await self._browser.send("Target.closeTarget", targetId=self._target)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChromiumError(f"{words[0]}: {done.stderr.strip() or done.stdout.strip()}")
