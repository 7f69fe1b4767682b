"""An authority in a directory: its key, what it issued, what it revoked.

ca.key ca.crt            the authority (the key stays here)
broker.key broker.crt    for brokerd
<subject>.key .crt       for people, to be handed over
<subject>.p12            the same for a browser, where it was asked for
revoked                  the serial denylist, for brokerd
issued.jsonl             every certificate ever issued
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import pkcs12

from broker.pki.certificates import Pair, issue_broker, issue_person, make_authority
from broker.pki.defaults import AUTHORITY_DAYS, BROKER, BROKER_DAYS, PERSON_DAYS
from broker.pki.denied import DeniedListError, read_denied, serial_text
from broker.pki.names import Names, check_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

AUTHORITY_LIFE: Final = timedelta(days=AUTHORITY_DAYS)
BROKER_LIFE: Final = timedelta(days=BROKER_DAYS)
PERSON_LIFE: Final = timedelta(days=PERSON_DAYS)
SOON: Final = 0.2
"""A certificate expires soon once less than this share of its life is left."""

_DAY: Final = 86400.0
_RESERVED: Final = frozenset({BROKER, "ca"})
_REVOKED_HEAD: Final = b"# Certificates that are good no more: serial, then who and when.\n"

State = Literal["good", "expires soon", "expired", "revoked"]


class PkiError(Exception):
    """What was asked of the authority cannot be done; the message says why and what to do."""


class Issued(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of issued.jsonl; `serial` in hex, times in seconds since 1970, UTC."""

    serial: str
    subject: str
    role: str | None
    hosts: tuple[str, ...]
    not_before: float
    not_after: float


class Listed(msgspec.Struct, frozen=True):
    """A certificate issued, and whether it is good now."""

    issued: Issued
    state: State


class Authority:
    """The authority in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def init(self, hosts: tuple[str, ...], now: datetime, life: timedelta = AUTHORITY_LIFE) -> None:
        """Make the authority and the broker's certificate.

        Raises:
            PkiError: there is one already, or a host's name will not do.
            OSError: the files cannot be written.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            if (self.directory / "ca.key").exists():
                raise PkiError(f"{self.directory} holds an authority already; it stays as it is")
            authority = make_authority(now, life)
            self._write("revoked", _REVOKED_HEAD, 0o644)
            self._broker(authority, hosts, now, BROKER_LIFE)
            self._write_pair("ca", authority)

    def issue(self, who: Names, now: datetime, life: timedelta = PERSON_LIFE) -> Issued:
        """A key and a certificate for a person, in the place of those he had here.

        Raises:
            PkiError: the name is taken for something else, or there is no authority.
            OSError: the files cannot be read or written.
        """
        who = check_names(who.subject, who.role)
        if who.subject in _RESERVED:
            raise PkiError(f"{who.subject} is the authority's own name for a file; choose another")
        with self._locked():
            pair = issue_person(self._authority(), who, now, life)
            return self._record(who.subject, who.role, (), pair)

    def bundle(self, subject: str) -> str:
        """Write `<subject>.p12`, which browsers take; answers the password it was closed with.

        Raises:
            PkiError: the subject's key or certificate is not here.
            OSError: the files cannot be read or written.
        """
        with self._locked():
            key, certificate = self._pair(subject)
            password = secrets.token_urlsafe(12)
            closed = serialization.BestAvailableEncryption(password.encode("ascii"))
            data = pkcs12.serialize_key_and_certificates(
                subject.encode("ascii"), key, certificate, None, closed
            )
            self._write(f"{subject}.p12", data, 0o600)
        return password

    def renew(self, subject: str, now: datetime) -> Issued:
        """The same again, with a new key and the same length of life.

        Raises:
            PkiError: nothing was issued to the subject, or what was is revoked.
            OSError: the files cannot be read or written.
        """
        last = [it for it in self.listed(now) if it.issued.subject == subject]
        if not last or last[-1].state == "revoked":
            what = "was revoked" if last else "was never issued"
            raise PkiError(f"the certificate of {subject[:80]!a} {what}; use issue")
        issued = last[-1].issued
        life = timedelta(days=max(1, round((issued.not_after - issued.not_before) / _DAY)))
        if issued.role is not None:
            return self.issue(Names(subject, issued.role), now, life)
        with self._locked():
            return self._broker(self._authority(), issued.hosts, now, life)

    def revoke(self, which: str, now: datetime) -> tuple[Issued, ...]:
        """Put a subject's good certificates, or the one of a serial, on the denylist.

        Raises:
            PkiError: nothing good goes by that name or serial.
            OSError: the files cannot be read or written.
        """
        found = tuple(
            it.issued
            for it in self.listed(now)
            if it.state in ("good", "expires soon")
            and which.lower() in (it.issued.serial, it.issued.subject.lower())
        )
        if not found:
            raise PkiError(f"no good certificate goes by {which[:80]!a}; see brokerctl pki list")
        day = now.strftime("%Y-%m-%d")
        lines = [f"{it.serial} {it.subject} {day}\n".encode("ascii") for it in found]
        with self._locked():
            before = (self.directory / "revoked").read_bytes()
            self._write("revoked", b"".join([before, *lines]), 0o644)
        return found

    def listed(self, now: datetime) -> tuple[Listed, ...]:
        """Everything issued, in order.

        Raises:
            PkiError: the list does not read, or there is no authority.
        """
        path, revoked = self.directory / "issued.jsonl", self.directory / "revoked"
        try:
            denied = read_denied(revoked.read_bytes(), str(revoked))
            lines = path.read_bytes().splitlines()
            issued = [msgspec.json.decode(line, type=Issued) for line in lines]
        except FileNotFoundError as error:
            raise PkiError(f"no authority there: {error.filename}; brokerctl pki init") from None
        except (DeniedListError, msgspec.MsgspecError) as error:
            raise PkiError(f"{path}: {error}") from None
        return tuple(Listed(it, _state(it, denied, now.timestamp())) for it in issued)

    def _authority(self) -> Pair:
        return self._pair("ca")

    def _pair(self, name: str) -> Pair:
        path = self.directory / f"{name}.key"
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
            certificate = x509.load_pem_x509_certificate(path.with_suffix(".crt").read_bytes())
        except FileNotFoundError as error:
            raise PkiError(f"no authority there: {error.filename}; brokerctl pki init") from None
        except (ValueError, TypeError) as error:
            raise PkiError(f"{path} does not read: {error}") from None
        if not isinstance(key, EllipticCurvePrivateKey | Ed25519PrivateKey):
            raise PkiError(f"{path} is no EC or Ed25519 key")
        return key, certificate

    def _broker(
        self, authority: Pair, hosts: tuple[str, ...], now: datetime, life: timedelta
    ) -> Issued:
        try:
            pair = issue_broker(authority, hosts, now, life)
        except ValueError as error:
            raise PkiError(f"a host's name will not do: {error}") from None
        return self._record(BROKER, None, hosts, pair)

    def _record(self, subject: str, role: str | None, hosts: tuple[str, ...], pair: Pair) -> Issued:
        """Write down what is issued, before it is handed out."""
        certificate = pair[1]
        issued = Issued(
            serial_text(certificate.serial_number),
            subject,
            role,
            hosts,
            certificate.not_valid_before_utc.timestamp(),
            certificate.not_valid_after_utc.timestamp(),
        )
        path = self.directory / "issued.jsonl"
        before = path.read_bytes() if path.exists() else b""
        self._write(path.name, before + msgspec.json.encode(issued) + b"\n", 0o600)
        self._write_pair(subject, pair)
        return issued

    def _write_pair(self, name: str, pair: Pair) -> None:
        key, certificate = pair
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self._write(f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        self._write(f"{name}.key", pem, 0o600)

    def _write(self, name: str, data: bytes, mode: int) -> None:
        """Replace a file whole, or not at all; nobody sees it with another mode."""
        path = self.directory / name
        temporary = path.with_name(f".{name}.new")
        temporary.unlink(missing_ok=True)
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(file, mode)
            os.fsync(file)
        temporary.replace(path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One command at a time."""
        try:
            file = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise PkiError(f"no authority there: {self.directory}; brokerctl pki init") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)


def _state(issued: Issued, denied: frozenset[int], now: float) -> State:
    if int(issued.serial, 16) in denied:
        return "revoked"
    if now >= issued.not_after:
        return "expired"
    left = (issued.not_after - now) / (issued.not_after - issued.not_before)
    return "expires soon" if left < SOON else "good"
