"""Who is who on the bridge, in a file for people's tools: the kernel knows only numbers.

Written by the agent (owner root), read by `brokerctl net show`. Nothing is enforced by it.
"""

from __future__ import annotations

import msgspec

from broker.net.label_ids import DOM0, NOBODY, class_of
from broker.net.model import NetError


class ReportedPort(msgspec.Struct, frozen=True):
    """One port: `label` is a domain's, or `uplink:` and a resource's name.

    `profiles` and `variables` are its filter's.
    """

    name: str
    index: int
    label: str
    bridge: str | None
    profiles: tuple[str, ...] = ()
    variables: dict[str, tuple[str, ...]] = {}


class Report(msgspec.Struct, frozen=True):
    """Ports with labels, and what each class and label number stands for; what dom0 is labelled.

    `policy` is the digest of the policy followed, `problem` why nothing passes (or empty), `alarms`
    and `samples` (refused packets) the last few, each with its time.
    """

    ports: tuple[ReportedPort, ...] = ()
    classes: dict[int, tuple[str, ...]] = {}
    labels: dict[int, str] = {}
    bootstrap: str = ""
    policy: str = ""
    problem: str = ""
    alarms: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()

    def end(self, number: int) -> str | None:
        """The label (or labels) that a refused packet was counted by; None: it has none."""
        if number == NOBODY:
            return None
        if number == DOM0:
            return self.bootstrap or "dom0"
        in_class = class_of(number)
        if in_class is not None:
            return ",".join(self.classes.get(in_class, ())) or f"class {in_class}"
        return self.labels.get(number) or f"label {number:08x}"


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
