"""Where brokerctl finds the broker: options, the environment, or a profile.

An option wins over the environment, and that over the profile. A profile is YAML:

    connect: tls:broker.example.org:7443
    cert: alice.crt            # relative paths begin at the profile's place
    key: alice.key
    ca: ca.crt
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from broker.rpc.address import Address, AddressError, Credentials, local, parse_address
from broker.text.marked_yaml import load_struct

if TYPE_CHECKING:
    from broker.cli.groups import Parser

DEFAULT_SOCKET: Final = "/run/xen-policy-broker/broker.sock"
_OPTIONS: Final = {
    "socket": ("PATH", f"the broker's socket (default: $XPB_SOCKET, else {DEFAULT_SOCKET})"),
    "connect": ("ADDRESS", "tls:HOST:PORT, or tls-unix:/PATH, instead (default: $XPB_CONNECT)"),
    "cert": ("FILE", "your certificate, for TLS (default: $XPB_CERT)"),
    "key": ("FILE", "its key (default: $XPB_KEY)"),
    "ca": ("FILE", "who vouches for the broker (default: $XPB_CA)"),
    "server-name": ("NAME", "the broker's name in its certificate, where that is not the host"),
    "profile": ("FILE", "a YAML file with connect, cert, key, ca (default: $XPB_PROFILE)"),
}


class Profile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a profile may say."""

    connect: str
    cert: str
    key: str
    ca: str
    server_name: str | None = None


def add_options(parser: Parser, *, top: bool) -> None:
    """Give a parser the options; on a command of its own (not `top`) they say nothing by default.

    So that `brokerctl --socket PATH status` and `brokerctl status --socket PATH` agree.
    """
    group = parser.add_argument_group("where the broker is")
    for name, (metavar, words) in _OPTIONS.items():
        shown = words if top or name in ("socket", "connect") else argparse.SUPPRESS
        group.add_argument(
            f"--{name}",
            metavar=metavar,
            default=None if top else argparse.SUPPRESS,
            help=shown,
        )


def address(options: argparse.Namespace) -> Address:
    """The address that options, environment and profile come to.

    Raises:
        AddressError: it will not do, or what goes with it is missing or cannot be read.
        ProblemsError: the profile is not as it should be.
    """
    if options.socket is not None:
        return local(options.socket)
    connect, socket = _said(options, "connect"), os.environ.get("XPB_SOCKET")
    if options.connect is None and options.profile is None and socket:
        return local(socket)
    profile = _profile(_said(options, "profile"))
    text = connect if connect is not None else None if profile is None else profile[0].connect
    if text is None:
        return local(DEFAULT_SOCKET)
    if not text.startswith("tls"):
        return parse_address(text, None)
    return parse_address(text, _credentials(options, profile))


def _credentials(options: argparse.Namespace, profile: tuple[Profile, Path] | None) -> Credentials:
    files: dict[str, Path] = {}
    for name in ("cert", "key", "ca"):
        said = _said(options, name)
        if said is not None:
            files[name] = Path(said)
        elif profile is not None:
            files[name] = profile[1] / getattr(profile[0], name)
        else:
            raise AddressError(f"TLS needs --{name} FILE, or $XPB_{name.upper()}, or a profile")
    name_said = _said(options, "server_name")
    if name_said is None and profile is not None:
        name_said = profile[0].server_name
    return Credentials(**files, server_name=name_said)


def _profile(path: str | None) -> tuple[Profile, Path] | None:
    if path is None:
        return None
    file = Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise AddressError(f"{path}: {error.strerror}") from None
    return load_struct(data, path, Profile), file.absolute().parent


def _said(options: argparse.Namespace, name: str) -> str | None:
    """An option, else the environment; empty is nothing."""
    given: str | None = getattr(options, name)
    return given if given is not None else os.environ.get(f"XPB_{name.upper()}") or None
