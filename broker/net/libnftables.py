"""nftables in process: transactions through `libnftables.so.1`, driven by ctypes.

Debian's python3-nftables is the same thing outside any virtual environment. The library answers
a change in tens of microseconds, where starting `nft` costs more than a millisecond. A context
belongs to the network namespace in which it was made. ABI: nftables/libnftables.h, since 0.8.
"""

from __future__ import annotations

import ctypes
from typing import Final, Protocol

from broker.net.model import NetError

_LIBRARY: Final = "libnftables.so.1"
_MAX_ERROR: Final = 600
"""Characters of the library's message that are passed on: it quotes the whole command."""


class TransactionError(NetError):
    """The kernel, or nft's parser, refused a transaction: nothing of it was done."""


class UnavailableError(NetError):
    """This way to nftables does not exist here."""


class Transactor(Protocol):
    """Something that carries out nft commands, all of them or none, in this order."""

    def run(self, commands: list[str]) -> None:
        """One transaction; raises `TransactionError` if nothing was done."""

    def close(self) -> None:
        """Give back what it holds; the kernel's tables stay."""


class Libnftables:
    """Transactions in process.

    Raises:
        UnavailableError: the library is not installed, or gives no context.
    """

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise UnavailableError(
                f"{_LIBRARY} cannot be loaded ({error}); install libnftables1"
            ) from error
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        library.nft_ctx_free.restype = None
        for buffer in (library.nft_ctx_buffer_error, library.nft_ctx_buffer_output):
            buffer.argtypes = [ctypes.c_void_p]
            buffer.restype = ctypes.c_int
        library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        library.nft_run_cmd_from_buffer.restype = ctypes.c_int
        self._library = library
        self._context = library.nft_ctx_new(0)
        if not self._context:
            raise UnavailableError("libnftables gives no context: no netlink socket?")
        if library.nft_ctx_buffer_error(self._context) or library.nft_ctx_buffer_output(
            self._context
        ):
            raise UnavailableError("libnftables has no memory for its messages")

    def run(self, commands: list[str]) -> None:
        """One transaction: all commands in this order, or nothing.

        Raises:
            TransactionError: nothing was done; says what nft says.
        """
        if not commands:
            return
        if self._context is None:
            raise TransactionError("the nftables context is closed")
        text = "\n".join(commands).encode("ascii")
        if self._library.nft_run_cmd_from_buffer(self._context, text):
            raise TransactionError(shortened(self._library.nft_ctx_get_error_buffer(self._context)))

    def close(self) -> None:
        """Free the context."""
        if self._context is not None:
            self._library.nft_ctx_free(self._context)
            self._context = None


def shortened(message: bytes | None) -> str:
    """What nft itself says, in one line of bounded length."""
    text = (message or b"").decode("ascii", "backslashreplace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "nftables refused: " + "; ".join(line[:200] for line in lines)[:_MAX_ERROR]
