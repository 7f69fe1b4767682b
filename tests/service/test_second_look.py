"""Nobody is blamed for what the toolstack did between two of the broker's reads."""

from __future__ import annotations

import pytest
import pytest_twisted

from broker.service.mirror import HIDDEN, Device
from broker.service.second_look import make_sure
from broker.xenstore.errors import DeniedError, NotFoundError

OLD, NEW, LIE = (b"/local/domain/%d/backend/vif/3/0" % backend for backend in (0, 5, 7))
BEFORE = (OLD, b"0")


class Reads:
    """A store that answers each read with the next of these."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def read_many(self, paths):
        assert paths[0] == paths[-1] == "/libxl/3/device/vif/0/backend"
        return [self.answers.pop(0) for _ in paths]


@pytest.mark.parametrize(
    ("answers", "copies"),
    [
        ((OLD, LIE, b"7", OLD), (LIE, b"7")),
        ((OLD, OLD, b"0", OLD), (OLD, b"0")),
        ((OLD, DeniedError("EACCES"), b"0", OLD), (HIDDEN, b"0")),
        ((NEW, NEW, b"5", NEW), BEFORE),
        ((OLD, NEW, b"5", NEW), BEFORE),
        ((NotFoundError("ENOENT"), LIE, b"7", NotFoundError("ENOENT")), BEFORE),
    ],
    ids=["a lie", "put right", "hidden", "attached anew", "in between", "gone"],
)
@pytest_twisted.ensureDeferred
async def test_a_guest_is_blamed_only_while_the_toolstacks_copy_stands(answers, copies):
    device = Device(3, "vif", "0")
    device.set_keys({"backend": OLD})
    device.set_copies((NEW, b"5"))
    store = Reads(*answers)
    await make_sure(store, {device: BEFORE})
    assert device.copies == copies
    assert not store.answers
