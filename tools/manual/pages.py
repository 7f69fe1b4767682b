"""What each manual page says: from argparse, the method table, and the files in etc/."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker import VERSION
from broker.agent.main import build_parser as agent_parser
from broker.cli.main import build_parser as brokerctl_parser
from broker.rpc.catalogue import METHODS
from broker.service.main import build_parser as brokerd_parser
from broker.xenstore.store.main import build_parser as store_parser
from tools.manual.roff import Page, see_also

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.cli.groups import Parser

ETC: Final = Path(__file__).parents[2] / "etc"

_DOCS: Final = "/usr/share/doc/xen-policy-broker"
_KEY: Final = re.compile(r"(?:# )?([a-z_]+):(?: |$)")
_EVERYWHERE: Final = ("-h", "--help", "--json", "--socket", "--connect", "--cert", "--key", "--ca")
_SIGNALS: Final = {
    "brokerd": (
        ("SIGTERM, SIGINT", "Stop cleanly: every record and every gate stays as it is."),
        ("SIGHUP", "Load the configured policy file, as brokerctl policy load would."),
    ),
    "broker-agent": (("SIGTERM, SIGINT", "Stop; every gate stays as it is."),),
    "broker-store": (("SIGTERM, SIGINT", "Stop; what was stored is gone."),),
}
_EXITS: Final = {
    "brokerd": (
        ("0", "stopped"),
        ("1", "the state is refused"),
        ("2", "the configuration or the command line is not good"),
        ("3", "the audit log cannot be written: starting again may help"),
    ),
    "broker-agent": (
        ("0", "stopped"),
        ("1", "the network cannot be changed: starting again may help"),
        ("2", "the configuration, the key or the command line is not good"),
    ),
    "broker-store": (("0", "stopped"), ("2", "usage"), ("3", "it cannot listen")),
    "brokerctl": (
        ("0", "success"),
        ("1", "denied, or a check failed"),
        ("2", "bad input or usage"),
        ("3", "the broker cannot be reached, or gave no answer"),
    ),
}
_FILES: Final = {
    "brokerd": (
        ("/etc/xen-policy-broker/broker.yaml", "the configuration, broker.yaml(5)"),
        ("/var/lib/xen-policy-broker", "the durable state: keys, audit log, policy in force"),
        ("/run/xen-policy-broker/broker.sock", "the local socket, root alone"),
    ),
    "broker-agent": (
        ("/etc/xen-policy-broker/agent.yaml", "the configuration, agent.yaml(5)"),
        ("/etc/xen-policy-broker/broker.pub", "the broker's public key"),
        ("/var/lib/xen-policy-broker/agent", "nonces, and the last record of each device"),
    ),
}
_BRIEF: Final = {
    "brokerd": "decides which Xen domains may be connected to whom",
    "broker-agent": "opens and closes gates as the broker decided",
    "broker-store": "a xenstore in Python, without Xen, for trying things out",
    "brokerctl": "ask and administer the Xen policy broker",
}
_ABOUT: Final = {
    "brokerd": "Watches xenstore, decides each channel between domains against a label policy, "
    "writes the decision down, and publishes it signed. What is not granted stays closed. Under "
    "systemd it says when it is ready (Type=notify), feeds the watchdog while the store answers "
    "and the audit log can be written, takes over the sockets that it is handed, and logs to the "
    "journal with fields.",
    "broker-agent": "Runs in each backend domain, dom0 included. It verifies the broker's records, "
    "and opens and closes the gates of unmodified netback and blkback by them. Without a record "
    "that verifies, or without a heartbeat of the broker, nothing opens. Under systemd it says "
    "when it is ready (Type=notify), and feeds the watchdog while the store answers and gates are "
    "looked at.",
    "broker-store": "Serves an empty store at a unix socket, where who connects is domain 0.",
    "brokerctl": "The RPC's client, and offline tools for policies, protocol descriptions and "
    "certificates. With --json every answer is JSON, one value a line.",
}
_ALL: Final = (
    *("brokerctl(1)", "brokerd(8)", "broker-agent(8)", "broker-store(8)"),
    *("broker.yaml(5)", "agent.yaml(5)", "broker-policy(5)"),
)


def pages() -> dict[str, str]:
    """Each page's text, by its file's name."""
    return {
        "brokerctl.1": _brokerctl(),
        "brokerd.8": _program("brokerd", brokerd_parser()),
        "broker-agent.8": _program("broker-agent", agent_parser()),
        "broker-store.8": _program("broker-store", store_parser()),
        "broker.yaml.5": _configuration("broker.yaml", "brokerd's configuration", "brokerd(8)"),
        "agent.yaml.5": _configuration(
            "agent.yaml", "broker-agent's configuration", "broker-agent(8)"
        ),
        "broker-policy.5": _policy(),
    }


def _program(name: str, parser: argparse.ArgumentParser) -> str:
    page = Page(name, 8, _BRIEF[name], VERSION)
    page.heading("Synopsis")
    page.paragraph(_usage(parser))
    page.heading("Description")
    page.paragraph(_ABOUT[name])
    page.heading("Options")
    _options(page, parser, ())
    page.heading("Signals")
    for signal, effect in _SIGNALS[name]:
        page.item(signal, effect)
    _tail(page, name, 8)
    return page.text()


def _brokerctl() -> str:
    parser = brokerctl_parser()
    page = Page("brokerctl", 1, _BRIEF["brokerctl"], VERSION)
    page.heading("Synopsis")
    page.paragraph("brokerctl [OPTION]... COMMAND [ARGUMENT]...")
    page.heading("Description")
    page.paragraph(_ABOUT["brokerctl"])
    page.heading("Options")
    page.paragraph("Of every command that asks a broker, before it or after it:")
    _options(page, parser, ())
    page.heading("Commands")
    for words, leaf in _leaves(parser, ()):
        method = METHODS.find(".".join(words[1:]))
        page.subheading(_usage(leaf, short=True))
        also = "" if method is None else f" (verb {method.verb})"
        page.paragraph(f"{leaf.description or ''}{also}")
        _options(page, leaf, _EVERYWHERE)
        example = (leaf.epilog or "").removeprefix("example:\n")
        if example:
            page.verbatim(example)
    _tail(page, "brokerctl", 1)
    return page.text()


def _leaves(parser: Parser, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Parser]]:
    """Every command that does something, with the words that lead to it."""
    if parser.commands is None:
        yield above, parser
        return
    for name, below in parser.commands.choices.items():
        yield from _leaves(below, (*(above or ("brokerctl",)), name))


def _usage(parser: argparse.ArgumentParser, *, short: bool = False) -> str:
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    if short:  # what every command takes is said once
        for option in (
            "[-h]",
            "[--json]",
            "[--socket PATH]",
            "[--connect ADDRESS]",
            "[--cert FILE]",
            "[--key FILE]",
            "[--ca FILE]",
            "[--server-name NAME]",
            "[--profile FILE]",
        ):
            usage = usage.replace(f" {option}", "", 1)
    return usage


def _options(page: Page, parser: argparse.ArgumentParser, but: tuple[str, ...]) -> None:
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to ask
        hidden = isinstance(action, argparse._SubParsersAction | argparse._HelpAction)  # noqa: SLF001 - the same
        shared = but and set(action.option_strings) & set(but)
        profile = but and set(action.option_strings) & {"--server-name", "--profile"}
        if hidden or shared or profile or action.help == argparse.SUPPRESS:
            continue
        about = (action.help or "") % {**vars(action), "prog": parser.prog}
        choices = "" if action.choices is None else "{" + ",".join(map(str, action.choices)) + "}"
        takes = action.metavar or choices or ("" if action.nargs == 0 else action.dest.upper())
        name = ", ".join(action.option_strings) or action.metavar or action.dest
        page.item(
            f"{name} {takes}".strip() if action.option_strings else str(name), about or choices
        )


def _tail(page: Page, name: str, section: int) -> None:
    page.heading("Exit status")
    for code, meaning in _EXITS[name]:
        page.item(code, meaning)
    if name in _FILES:
        page.heading("Files")
        for path, about in _FILES[name]:
            page.item(path, about)
    others = [it for it in _ALL if it != f"{name}({section})"]
    see_also(page, [*others, f"{_DOCS}/"])


def _configuration(name: str, brief: str, program: str) -> str:
    """A configuration file is documented by its comments: each belongs to the key that follows."""
    page = Page(name, 5, brief, VERSION)
    page.heading("Description")
    text = (ETC / name).read_text(encoding="utf-8")
    head, _, rest = text.partition("\n\n")
    page.paragraph(_words(head.splitlines()))
    page.paragraph(
        "YAML; checked like a policy: what is wrong is told with its line and column. "
        f"{program} reads it when it starts."
    )
    page.heading("Keys")
    for block in rest.split("\n\n"):
        comments, setting = _parted(block.splitlines())
        key = _KEY.match(setting[0]) if setting else None
        if key is None:
            page.paragraph(_words(comments))
            continue
        page.item(key[1], _words(comments))
        page.verbatim("\n".join(setting))
    page.heading("Files")
    page.item(f"/etc/xen-policy-broker/{name}", "where the packages put it")
    see_also(page, [it for it in _ALL if not it.startswith(name)])
    return page.text()


def _parted(lines: list[str]) -> tuple[list[str], list[str]]:
    """The comments that begin a block, and its settings, also those that are commented out."""
    comments: list[str] = []
    for at, line in enumerate(lines):
        if not line.startswith("#") or _KEY.match(line):
            return comments, lines[at:]
        comments.append(line)
    return comments, []


def _words(comments: list[str]) -> str:
    return " ".join(line.removeprefix("#").strip() for line in comments)


def _policy() -> str:
    page = Page("broker-policy", 5, "a policy of the Xen policy broker", VERSION)
    page.heading("Description")
    page.paragraph(
        "A policy is one YAML file: which labels there are, which types each has (Simple Type "
        "Enforcement), which may not run together (Chinese Wall), which disks and bridges are "
        "which resource, and what is allowed or denied beyond that. What it does not grant is "
        f"denied. The language is described in {_DOCS}/policy.md; brokerctl policy check FILE "
        "says what is wrong, with line and column."
    )
    page.heading("Example")
    page.verbatim((ETC / "policy.yaml").read_text(encoding="utf-8"))
    see_also(page, [it for it in _ALL if not it.startswith("broker-policy")])
    return page.text()
