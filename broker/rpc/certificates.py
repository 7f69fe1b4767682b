"""TLS 1.3 with client certificates: the files behind it, and who a certificate stands for.

The files are looked at for every connection and every call, and read again when they changed: a
certificate renewed or revoked needs no restart. What cannot be read lets nobody in.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from broker.pki.denied import DeniedListError, read_denied, serial_text
from broker.pki.names import NamesError, names_of
from broker.rpc.admin import ROOT, Caller
from broker.rpc.errors import RpcError
from broker.rpc.files import read_regular
from broker.rpc.tls_files import Notice, NoticeKind, TlsFiles, TlsFilesError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from twisted.protocols.tls import TLSMemoryBIOProtocol

_SOON: Final = 0.2
"""A certificate expires soon once less than this share of its life is left."""
_MAX_WARNED: Final = 256

Stamp = tuple[int, int, int] | None


@implementer(IOpenSSLServerConnectionCreator)
class TlsContext:
    """Makes the TLS side of connections."""

    log = Logger()

    def __init__(self, files: TlsFiles) -> None:
        """Read the files.

        Raises:
            TlsFilesError: one of them does not read, does not fit, or is not kept to its owner.
        """
        self._files = files
        self._watched = (files.certificate, files.key, files.ca)
        self._stamps = tuple(map(_stamp, self._watched))
        self._context, self._ends = self._read()
        self.problem: str | None = None

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N802, N803 - Twisted's names
        """The TLS side of one connection."""
        del tlsProtocol
        self.refresh()
        return SSL.Connection(self._context, None)

    def refresh(self) -> None:
        """Read files that changed; what does not read leaves what was read before."""
        stamps = tuple(map(_stamp, self._watched))
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            self._context, self._ends = self._read()
        except TlsFilesError as error:
            self.problem = f"the new certificate is not used: {error}"
        else:
            self.problem = None
        if self.problem:
            self.log.error("{problem}", problem=self.problem)
        else:
            self.log.info("{path} was read again", path=str(self._files.certificate))

    def notices(self, now: datetime) -> tuple[Notice, ...]:
        """What of the broker's own expires soon or has expired, or does not read."""
        self.refresh()
        found = []
        if self.problem:
            action = "put it right: the files of `tls` in broker.yaml are read when they change"
            found.append(Notice("certificate_unread", self.problem, action))
        for path, certificate in self._ends:
            said = expiry(certificate, now)
            if said:
                over = not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc
                kind: NoticeKind = "certificate_expired" if over else "certificate_expiring"
                found.append(Notice(kind, f"{path} {said}", "brokerctl pki renew", urgent=over))
        return tuple(found)

    def expiries(self) -> tuple[tuple[str, float], ...]:
        """The broker's own certificates and when each expires, seconds since 1970."""
        return tuple((str(path), it.not_valid_after_utc.timestamp()) for path, it in self._ends)

    def _read(self) -> tuple[SSL.Context, tuple[tuple[Path, x509.Certificate], ...]]:
        files = self._files
        try:
            if files.key.stat().st_mode & 0o077:
                raise TlsFilesError(f"{files.key} can be read by others: chmod 600 {files.key}")
            chain = x509.load_pem_x509_certificates(read_regular(files.certificate))
            trusted = x509.load_pem_x509_certificates(read_regular(files.ca))
            key = load_pem_private_key(read_regular(files.key), None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise TlsFilesError(f"a TLS file does not read: {error}") from None
        if not isinstance(key, Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey):
            raise TlsFilesError(f"{files.key} is no Ed25519, EC or RSA key")
        try:
            context = _context(key, chain, trusted)
        except SSL.Error:
            raise TlsFilesError(f"{files.key} is not the key of {files.certificate}") from None
        ends = [(files.certificate, chain[0]), *((files.ca, it) for it in trusted)]
        return context, tuple(ends)


class CertificatePeers:
    """Tells who calls over TLS: by certificate alone, whatever socket is below."""

    log = Logger()

    def __init__(self, revoked: Path | None, now: Callable[[], float] = time.time) -> None:
        self._revoked = revoked
        self._now = now
        self._stamp: Stamp = None
        self._denied: frozenset[int] | None = frozenset() if revoked is None else None
        self._problem = ""
        self._warned: dict[str, tuple[float, str]] = {}
        """By subject, whose certificate expires soon: when, and what is to be said of it."""

    def __call__(self, transport: Any) -> Caller:  # noqa: ANN401 - Twisted's TLS transport has no better type
        """The caller at the other end.

        Raises:
            RpcError: `denied`: no certificate, or it is not valid now, is on the denylist, or
                does not say who he is in one way.
        """
        peer = transport.getPeerCertificate()
        if peer is None:
            raise RpcError("denied", "no certificate was shown; see brokerctl pki issue")
        certificate = peer.to_cryptography()
        serial = certificate.serial_number
        now = datetime.fromtimestamp(self._now(), UTC)
        if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
            raise RpcError("denied", f"the certificate {expiry(certificate, now)}; renew it")
        try:
            names = names_of(certificate)
        except NamesError as error:
            raise RpcError("denied", str(error)) from None
        if serial in self._list():
            raise RpcError(
                "denied", f"certificate {serial_text(serial)} of {names.subject} is revoked"
            )
        if names.role == ROOT:
            raise RpcError("denied", f"role {ROOT} is local root's; no certificate can have it")
        self._warn(certificate, names.subject, now)
        return Caller(subject=names.subject, role=names.role, person=names.subject)

    def notices(self) -> tuple[Notice, ...]:
        """What an operator should know: a denylist that does not read, and who expires soon."""
        found = []
        try:
            self._list()
        except RpcError:
            action = "put it right: brokerctl pki revoke makes one"
            found.append(Notice("denylist_unread", self._problem, action, urgent=True))
        now = self._now()
        self._warned = {who: it for who, it in self._warned.items() if now < it[0]}
        found += [
            Notice("certificate_expiring", said, "brokerctl pki renew")
            for _, said in self._warned.values()
        ]
        return tuple(found)

    def _list(self) -> frozenset[int]:
        """The denied serials as they are now."""
        path = self._revoked
        if path is not None:
            stamp = _stamp(path)
            if stamp is None or stamp != self._stamp:
                self._read(path)
                self._stamp = stamp
        if self._denied is None:
            # Said in the log and the status; the caller has no business with the broker's files.
            raise RpcError(
                "denied", "the broker cannot read its denylist and lets nobody in by TLS"
            )
        return self._denied

    def _read(self, path: Path) -> None:
        before = self._problem
        try:
            self._denied, self._problem = read_denied(read_regular(path), str(path)), ""
        except (OSError, DeniedListError) as error:
            self._denied = None
            self._problem = f"the denylist does not read, so nobody gets in by TLS: {error}"
        if self._problem and self._problem != before:
            self.log.error("{problem}", problem=self._problem)

    def _warn(self, certificate: x509.Certificate, subject: str, now: datetime) -> None:
        said = expiry(certificate, now)
        if not said:
            self._warned.pop(subject, None)
        elif subject not in self._warned:
            if len(self._warned) >= _MAX_WARNED:
                del self._warned[next(iter(self._warned))]
            until = certificate.not_valid_after_utc.timestamp()
            self._warned[subject] = until, f"the certificate of {subject} {said}"
            self.log.warn("the certificate of {subject} {said}", subject=subject, said=said)


def expiry(certificate: x509.Certificate, now: datetime) -> str:
    """What is to be said about a certificate's end at `now`; empty while there is time."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    day = end.strftime("%Y-%m-%d %H:%M UTC")
    if now < start:
        return f"is not valid before {start:%Y-%m-%d %H:%M} UTC"
    if now >= end:
        return f"expired on {day}"
    if (end - now) < (end - start) * _SOON:
        return f"expires on {day}"
    return ""


def _context(
    key: Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey,
    chain: Sequence[x509.Certificate],
    trusted: Sequence[x509.Certificate],
) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.use_certificate(chain[0])
    for certificate in chain[1:]:
        context.add_extra_chain_cert(certificate)
    context.use_privatekey(key)
    context.check_privatekey()
    store = context.get_cert_store()
    for certificate in trusted:
        if store is not None:
            store.add_cert(X509.from_cryptography(certificate))
        context.add_client_ca(certificate)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    # Nobody comes back without showing his certificate again.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context


def _stamp(path: Path) -> Stamp:
    """What changes when a file does; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
