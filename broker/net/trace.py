"""What becomes of the packets from one port to another: nftables' own tracing, for a while.

A table of its own marks the packets; its element times out in the kernel, so tracing ends in time
even if nobody is left to end it. Facts: linux/netfilter/nf_tables.h (NFTA_TRACE_*).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from broker.net import frame, netlink
from broker.net.messages import Traced
from broker.net.tables import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.net.libnftables import Transactor

_TABLE: Final = "xpb_trace"
_GROUP: Final = 9
_MESSAGE: Final = (10 << 8) | 17
_NAME, _CHAIN, _TYPE, _VERDICT, _ID, _LINK, _NETWORK, _TRANSPORT = 1, 2, 4, 5, 6, 7, 8, 9
_VERDICT_CODE: Final = 1
_TYPES: Final = {1: "policy", 2: "return", 3: "rule"}
_VERDICTS: Final = {0: "drop", 1: "accept", -1: "continue", -2: "break", -3: "jump", -4: "goto"}


class Tracer:
    """Traces frames that are forwarded from the interface `sender` to `receiver` (indexes).

    Raises:
        TransactionError: the kernel does not trace.
    """

    def __init__(self, nft: Transactor, sender: int, receiver: int, seconds: float) -> None:
        self._nft = nft
        self._socket = netlink.NetlinkSocket(netlink.NETFILTER, (_GROUP,))
        milliseconds = max(1, int(seconds * 1000))
        element = f"{sender:d} . {receiver:d} timeout {milliseconds}ms"
        where = f"bridge {_TABLE}"
        hook = "type filter hook forward priority -201; policy accept;"
        try:
            nft.run(
                [
                    f"add table {where}",
                    f"delete table {where}",
                    f"add table {where}",
                    f"add set {where} pair {{ typeof iif . oif; flags timeout; }}",
                    f"add element {where} pair {{ {element} }}",
                    f"add chain {where} forward {{ {hook} }}",
                    f"add rule {where} forward iif . oif @pair meta nftrace set 1",
                ]
            )
        except Exception:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """What to wait on."""
        return self._socket.fileno()

    def steps(self) -> Iterator[Traced]:
        """What was decided, in our tables, about traced packets since the last call."""
        for kind, payload in self._socket.heard()[0]:
            if kind == _MESSAGE:
                values = netlink.attributes(payload, struct.calcsize("=BBH"))
                if netlink.word(values.get(_NAME)) in FAMILIES:
                    yield _step(values)

    def close(self) -> None:
        """Stop tracing."""
        self._socket.close()
        self._nft.run([f"add table bridge {_TABLE}", f"delete table bridge {_TABLE}"])


def _step(values: netlink.Attributes) -> Traced:
    code = netlink.attributes(values.get(_VERDICT, b"")).get(_VERDICT_CODE)
    verdict = "" if code is None else _verdict(int.from_bytes(code, "big", signed=True))
    kind = _TYPES.get(int.from_bytes(values.get(_TYPE, b""), "big"), "step")
    packet = f"{int.from_bytes(values.get(_ID, b''), 'big'):08x}"
    link = values.get(_LINK, b"")
    if link:
        packet += " " + frame.describe(
            link[:14] + values.get(_NETWORK, b"") + values.get(_TRANSPORT, b"")
        )
    return Traced(packet, netlink.word(values.get(_CHAIN)), f"{kind} {verdict}".strip())


def _verdict(code: int) -> str:
    return _VERDICTS.get(code, str(code))
