"""dom0, as scenarios see it: commands, xenstore, the broker's RPC, consoles."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tools.testbed.machine import Machine

T = TypeVar("T")
PATIENCE = 300.0
"""Seconds before something is given up: an emulated machine on a busy one is slow."""

RPC_SECONDS = 90.0
"""For one call, with all that it takes to get through to a domain."""


class FailedError(AssertionError):
    """What a scenario asserts does not hold."""


class Dom0:
    """What can be done in dom0 of a running machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def try_run(self, command: str, timeout: float = PATIENCE) -> tuple[int | None, str]:
        """A shell command's status (None: not done in `timeout` seconds) and what it said."""
        said = self._machine.ask("run", timeout, command=command)
        return said["status"], said["output"] + said["errors"]

    def run(self, command: str, timeout: float = PATIENCE) -> str:
        """A shell command's output.

        Raises:
            FailedError: it failed, or was not done in `timeout` seconds.
        """
        said = self._machine.ask("run", timeout, command=command)
        if said["status"] != 0:
            raise FailedError(
                f"dom0: {command}: {said['status']}: {said['output']}{said['errors']}"
            )
        return str(said["output"])

    def on_console(
        self, domid: int, command: str, timeout: float = PATIENCE
    ) -> tuple[int | None, str]:
        """A command in a guest, by its console: its status (None: no answer) and what it said."""
        said = self._machine.ask("guest", timeout, domid=domid, command=command)
        return said["status"], said["output"]

    def store(self, *requests: Sequence[str]) -> list[Any]:
        """xenstore, in one batch: ("read"|"list"|"tree"|"perms"|"remove", path), ("write", p, v).

        A refused request answers {"refused": NAME}.
        """
        return list(self._machine.ask("store", 30, requests=requests)["answers"])

    def read(self, path: str) -> str | None:
        """A node's value, None if there is none."""
        value = self.store(("read", path))[0]
        return value if isinstance(value, str) else None

    def exists(self, path: str) -> bool:
        """Whether there is such a file, asked of the server alone."""
        return bool(self._machine.ask("exists", 30, path=path)["exists"])

    def tree(self, path: str) -> dict[str, str]:
        """All below a node, with itself."""
        return dict(self.store(("tree", path))[0])

    def domids(self) -> list[int]:
        """The domains there are, by xenstore: `xl list` takes a second of the one processor."""
        return [int(it) for it in self.store(("list", "/local/domain"))[0]]

    def rpc(self, method: str, **arguments: object) -> Any:  # noqa: ANN401 - as JSON has it
        """One call of the broker's RPC.

        Raises:
            FailedError: the broker is not there, or refuses.
        """
        words = {"method": method, "arguments": arguments, **self._machine.rpc}
        said = self._machine.ask("rpc", RPC_SECONDS, **words)
        if "result" not in said:
            raise FailedError(f"broker: {method} {arguments}: {said.get('refused')}")
        return said["result"]

    def until(self, what: str, holds: Callable[[], T], timeout: float = PATIENCE) -> T:
        """Wait until `holds()` is true, and return it.

        Raises:
            FailedError: it was not in `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            start = time.monotonic()
            value = holds()
            if value:
                return value
            now = time.monotonic()
            if now > deadline:
                raise FailedError(f"not within {timeout:.0f} s: {what}")
            # There is one processor in there: who asks all the time is what is waited for.
            time.sleep(max(0.4, min(2.0, 2 * (now - start))))


def quoted(text: str) -> str:
    """For a shell."""
    return shlex.quote(text)
