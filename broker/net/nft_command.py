"""nftables through the `nft` program, where the library is missing: one process a transaction."""

from __future__ import annotations

import shutil
import subprocess
from typing import Final

from broker.net.libnftables import Libnftables, TransactionError, UnavailableError, shortened

_PATHS: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
_TIMEOUT: Final = 30.0
"""Seconds for one transaction; ten thousand elements take a fraction of one."""


class NftCommand:
    """Transactions by `nft -f -`.

    Raises:
        UnavailableError: there is no `nft`.
    """

    def __init__(self) -> None:
        program = shutil.which("nft", path=_PATHS)
        if program is None:
            raise UnavailableError("neither libnftables.so.1 nor nft is here; install nftables")
        self._program = program

    def run(self, commands: list[str]) -> None:
        """One transaction: all commands in this order, or nothing.

        Raises:
            TransactionError: nothing was done, or nft did not answer in time.
        """
        if not commands:
            return
        try:
            done = subprocess.run(  # noqa: S603 - a fixed program; commands are ours, on its stdin
                [self._program, "-f", "-"],
                input="\n".join(commands).encode("ascii"),
                capture_output=True,
                timeout=_TIMEOUT,
                check=False,
                env={"PATH": _PATHS, "LC_ALL": "C"},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TransactionError(f"{self._program}: {error}") from error
        if done.returncode:
            raise TransactionError(shortened(done.stderr or done.stdout))

    def close(self) -> None:
        """Nothing is held between transactions."""


def open_transactor() -> Libnftables | NftCommand:
    """The library where it is installed, else the program.

    Raises:
        UnavailableError: neither is.
    """
    try:
        return Libnftables()
    except UnavailableError:
        return NftCommand()
