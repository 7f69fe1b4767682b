"""Who is who on the bridge, in a file for people's tools: the kernel knows only numbers.

Written by the agent (owner root), read by `brokerctl net show`. Nothing is enforced by it.
"""

from __future__ import annotations

import msgspec

from broker.net.model import NetError


class ReportedPort(msgspec.Struct, frozen=True):
    """One port: `label` is a domain's, or `uplink:` and a resource's name."""

    name: str
    index: int
    label: str
    bridge: str | None


class Report(msgspec.Struct, frozen=True):
    """Ports with labels, and what each class number stands for.

    `policy` is the digest of the policy followed, `problem` why nothing passes (or empty), `alarms`
    and `samples` (refused packets) the last few, each with its time.
    """

    ports: tuple[ReportedPort, ...] = ()
    classes: dict[int, tuple[str, ...]] = {}
    policy: str = ""
    problem: str = ""
    alarms: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()

    def class_name(self, number: int) -> str:
        """The class's labels, in words; 0 is dom0 itself, or what has no class."""
        if number == 0:
            return "dom0 or unlabelled"
        return ", ".join(self.classes.get(number, ())) or f"class {number}"


def encode(report: Report) -> bytes:
    """The file's content."""
    return msgspec.json.format(msgspec.json.encode(report)) + b"\n"


def decode(data: bytes, source: str) -> Report:
    """The report in a file's content.

    Raises:
        NetError: it is none; says where.
    """
    try:
        return msgspec.json.decode(data, type=Report)
    except msgspec.MsgspecError as error:
        raise NetError(f"{source} is not the agent's report: {error}") from error
