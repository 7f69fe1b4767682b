"""One running product a module and store; every test ends with what must hold whatever happened."""

from __future__ import annotations

import pytest
import pytest_twisted
from support.product import Product
from support.xenstoreds import KINDS, start_store

STORES = [pytest.param(kind, marks=pytest.mark.xenstored) for kind in KINDS]


@pytest_twisted.async_yield_fixture(scope="module", params=STORES)
async def running(request):
    """The product on each store in turn; a module's `OPTIONS` are the product's."""
    options = getattr(request.module, "OPTIONS", {})
    daemon = start_store(request.param)
    product = Product(daemon, **options)
    try:
        await product.start()
        await product.settle_witness()
        yield product
    finally:
        product.close()
        daemon.stop()


@pytest_twisted.async_yield_fixture
async def product(running):
    """The module's product; what a test made is destroyed, and then the invariants hold."""
    yield running
    await running.clear()
    running.check()
