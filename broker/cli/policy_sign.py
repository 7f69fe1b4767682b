"""`brokerctl policy sign`, `brokerctl pki signer`: policies that brokers know to be somebody's own.

Works on files; no broker is asked.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.cli import client, groups, offline, show
from broker.pki.dsse import key_id, sign
from broker.policy.load import load_policy
from broker.text.problems import ProblemsError

if TYPE_CHECKING:
    import argparse


def register(commands: groups.Commands) -> None:
    """Add the commands."""
    leaf = groups.command(
        groups.group(commands, "policy"),
        "sign",
        _sign,
        help="sign a policy: what this prints is loaded in its place",
        example="brokerctl policy sign corp.yaml --key signer.key > corp.signed",
    )
    leaf.add_argument("file", metavar="FILE", type=Path, help="the policy (YAML)")
    leaf.add_argument("--key", metavar="FILE", type=Path, required=True, help="as pki signer made")
    leaf = groups.command(
        groups.group(commands, "pki"),
        "signer",
        _signer,
        help="a key to sign policies with: NAME.key, and NAME.pub for brokerd's policy_signers",
        example="brokerctl pki signer signer",
    )
    leaf.add_argument("name", metavar="NAME", type=Path, help="where: a path without its ending")


def _sign(options: argparse.Namespace) -> int:
    try:
        data = options.file.read_bytes()
        load_policy(data, str(options.file))
        key = serialization.load_pem_private_key(options.key.read_bytes(), None)
    except ProblemsError as error:
        offline.report(error.problems, "error", as_json=options.json)
        return client.BAD_INPUT
    except OSError as error:
        return client.bad_input(options, f"{error.filename}: {error.strerror}")
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        return client.bad_input(options, f"{options.key}: {error}")
    if not isinstance(key, Ed25519PrivateKey):
        words = f"{options.key} is no Ed25519 key; make one: brokerctl pki signer"
        return client.bad_input(options, words)
    sys.stdout.write(sign(data, key).decode("ascii"))
    return client.SUCCESS


def _signer(options: argparse.Namespace) -> int:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        for suffix, data, mode in ((".key", private, 0o600), (".pub", public, 0o644)):
            path = options.name.with_name(options.name.name + suffix)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(file, "wb") as stream:
                stream.write(data)
    except OSError as error:
        return client.bad_input(options, f"{error.filename}: {error.strerror}")
    if options.json:
        named = {"private": f"{options.name}.key", "public": f"{options.name}.pub"}
        show.json_line({"key": key_id(key.public_key()), **named})
        return client.SUCCESS
    show.line(f"{show.text(str(options.name))}.key and .pub: {key_id(key.public_key())}")
    return client.SUCCESS
