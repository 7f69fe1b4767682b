"""A channel by hand, the whole way: brokerctl, an unprivileged brokerd, dom0's helper and agent."""

from __future__ import annotations

import signal

import pytest_twisted
from bed import start_agent, until
from orders_bed import RULES
from test_helper import BROKER, GUEST
from test_with_brokerd import Whole
from twisted.internet import defer, reactor

from broker.agent.helper import HelperSession
from broker.agent.order_acts import Acts
from broker.agent.order_log import OrderLog
from broker.agent.order_rules import OrderRules
from broker.agent.orders import OrderSession

SECOND = "vif/1"
BACK = f"/local/domain/0/backend/vif/{GUEST}/1"


def start_orders(host, agent, directory):
    """dom0's agent takes orders, too."""
    rules = OrderRules(**RULES)
    orders = OrderSession(
        host.daemon.address,
        reactor,
        key=host.key(),
        orders=OrderLog(directory),
        rules=rules,
        make_acts=lambda connection: Acts(
            connection, reactor, rules, lambda *_: defer.succeed(True), patience=0.2, pause=0.1
        ),
        beat=agent.beat,
    )
    orders.startService()
    return orders


@pytest_twisted.ensureDeferred
async def test_a_running_guest_gets_a_vif_and_loses_it(store_daemon, tmp_path):
    host = Whole(store_daemon, tmp_path)
    host.store.write("/local/domain/0/name", "Domain-0")
    helper = HelperSession(store_daemon.address, reactor, broker=BROKER)
    helper.startService()
    host.start("--init")
    await until((tmp_path / "broker.sock").exists)
    await until(lambda: (host.read("/broker/v1/state") or b"") == b"enforcing")
    agent = start_agent(store_daemon.address, tmp_path / "agent", key=host.key())
    orders = start_orders(host, agent, tmp_path / "orders")
    try:
        host.create()
        await host.ctl("label", "set", "web", "web")
        (done,) = await host.ctl(
            *("channel", "connect", "--domain", "web", "--class", "vif", "--bridge", "xpbr0")
        )
        assert (done["device"], done["backend"], done["how"]) == ("1", 0, "set up")
        await host.comes_to(SECOND, "open", fe=GUEST)
        nonce = host.report(SECOND, "nonce", GUEST)
        await host.ctl("channel", "reset", f"vif/{GUEST}/1")
        await host.nonce(SECOND, other_than=nonce, fe=GUEST)
        await host.comes_to(SECOND, "open", fe=GUEST)
        await host.ctl("channel", "disconnect", f"vif/{GUEST}/1")
        assert host.read(f"{BACK}/mac") is None
        assert host.read(f"/libxl/{GUEST}/device/vif/1/backend") is None
        await until(lambda: not host.report(SECOND, "nonce", GUEST))
    finally:
        host.end(signal.SIGKILL)
        await orders.stopService()
        await agent.stop()
        await helper.stopService()
        host.close()
