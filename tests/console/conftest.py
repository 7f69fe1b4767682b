"""One simulated host for all of the console's tests, and a browser for each person."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import pytest_twisted
from hostile_names import HOSTILE
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.threads import deferToThread

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from broker.rpc.methods import LabelSet  # noqa: E402 - tools/ is not on the path of tests
from broker.sim.console import ConsoleHost, devices  # noqa: E402
from tools.console.chromium import Browser  # noqa: E402
from tools.console.ports import free_port  # noqa: E402

DOMAINS = 14


class Stage:
    """The host, and browsers that were started on it."""

    def __init__(self, directory):
        self.console = ConsoleHost(reactor, directory, port=free_port())
        self.host = self.console.host
        self._browsers = {}

    async def start(self):
        await self.host.start()
        await self.console.populate(DOMAINS)
        await gatherResults(
            [ensureDeferred(self.create_hostile(*it)) for it in enumerate(HOSTILE)],
            consumeErrors=True,
        )
        await self.console.filter()
        await self.console.break_a_protocol()
        await self.console.amend()
        await self.console.propose()

    async def create_hostile(self, number, name):
        uuid = f"00000000-0000-4000-9000-{number:012d}"
        await self.host.create(name, uuid, devices(300 + number, "red"))
        label = LabelSet(domain=f"uuid:{uuid}", label="web_red")
        await deferToThread(self.host.rpc().call, "label.set", label)

    async def browser(self, subject):
        if subject not in self._browsers:
            pki = self.console.pki.directory
            own = (
                (pki / f"{subject}.p12", self.console.passwords[subject]) if subject else (None, "")
            )
            browser = Browser(reactor, self.console.url, pki / "ca.crt", *own)
            self._browsers[subject] = browser
            await browser.start()
        return self._browsers[subject]

    async def stop(self):
        for browser in self._browsers.values():
            await browser.stop()
        await self.host.stop()


@pytest.fixture(scope="session")
def stage():
    directory = Path(tempfile.mkdtemp(prefix="xs-", dir="/tmp"))
    stage = Stage(directory)
    try:
        pytest_twisted.blockon(ensureDeferred(stage.start()))
        yield stage
    finally:
        pytest_twisted.blockon(ensureDeferred(stage.stop()))
        shutil.rmtree(directory)


@pytest_twisted.async_yield_fixture
async def visit(stage):
    """Opens the console as somebody; what a page complains of fails the test."""
    pages = []

    async def open_page(fragment="", subject="ann", *, answers=None, size=(1280, 900)):
        page = await (await stage.browser(subject)).page(*size)
        # A connection that a busy machine ended is made anew, and where not, the page says so.
        page.expected.append("net::ERR_CONNECTION")
        pages.append(page)
        if answers is not None:
            await page.answer(answers)
        await page.open(f"console/#/{fragment}")
        await page.until("document.querySelector('h1')?.textContent")
        return page

    yield open_page
    for page in pages:
        complaints, page.complaints = page.complaints, []
        await page.close()
        assert [it for it in complaints if not any(word in it for word in page.expected)] == []


@pytest.fixture(scope="session")
def axe():
    """axe-core, as it was published."""
    return (ROOT / "tests" / "data" / "axe-core" / "axe.min.js").read_text()
