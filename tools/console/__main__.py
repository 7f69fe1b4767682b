"""`make console-pictures`: the pictures of the console in docs/images/, on simulated domains."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet import task
from twisted.internet.defer import Deferred

from broker.sim.console import ConsoleHost
from tools.console.chromium import Browser
from tools.console.ports import free_port

if TYPE_CHECKING:
    from broker.xenstore.transport import Reactor

IMAGES = Path(__file__).parents[2] / "docs" / "images"
DOMAINS = 50
WIDE, NARROW = (1280, 800), (390, 844)
PICTURES = (
    ("overview", "", WIDE, "light"),
    ("overview-narrow", "", NARROW, "dark"),
    ("reach", "reach", WIDE, "dark"),
    ("between", "between?a=1&b=0", WIDE, "light"),
    ("channel", "channel/vbd/49/51712/0", WIDE, "light"),
    ("channels-narrow", "channels", NARROW, "light"),
    ("filters", "filters", WIDE, "light"),
    ("policy", "policy", WIDE, "dark"),
)


async def draw(reactor: Reactor, images: Path) -> None:
    """Start a host, and take each picture once its page has settled; `images` is there."""
    directory = Path(tempfile.mkdtemp(prefix="xpb-", dir="/tmp"))
    host = ConsoleHost(reactor, directory, port=free_port())
    pki = host.pki.directory
    browser = Browser(reactor, host.url, pki / "ca.crt", pki / "ann.p12", host.passwords["ann"])
    browser.use_font("Inter")
    try:
        await host.host.start()
        await host.populate(DOMAINS)
        await host.filter()
        await host.break_a_protocol()
        await host.amend()
        await host.propose()
        await browser.start()
        page = await browser.page()
        await page.open()
        await page.says("Everything decided is enforced", "waits for a second person")
        for name, fragment, size, theme in PICTURES:
            await page.size(*size)
            await page.theme(theme)
            await page.go(fragment)
            await page.settled()
            await page.picture(images / f"console-{name}.png")
            sys.stdout.write(f"{images}/console-{name}.png\n")
    finally:
        await browser.stop()
        await host.host.stop()
        shutil.rmtree(directory)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    task.react(lambda reactor: Deferred.fromCoroutine(draw(reactor, IMAGES)))
