"""Certificates made: P-256, short lives, and each good for one thing only.

P-256 and not Ed25519, because browsers take part in the console and know nothing newer.

`now` is an aware time in UTC. A certificate begins a few minutes early, for clocks that differ.
"""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.pki import names
from broker.pki.defaults import BROKER_HOST

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    Party = tuple[x509.Name, ec.EllipticCurvePublicKey | Ed25519PublicKey]
    Span = tuple[datetime, datetime]

_SKEW: Final = timedelta(minutes=5)
_ORGANIZATION: Final = "xen-policy-broker"

Key = ec.EllipticCurvePrivateKey | Ed25519PrivateKey
"""A key of an authority; one that is older than the console has an Ed25519 key."""
Pair = tuple[Key, x509.Certificate]


def make_authority(now: datetime, life: timedelta) -> Pair:
    """A new authority: it signs certificates of brokers and people, and no other authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("authority")
    builder = _builder((name, key.public_key()), (name, key.public_key()), (now, now + life))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return key, builder.sign(key, hashes.SHA256())


def issue_broker(authority: Pair, hosts: Iterable[str], now: datetime, life: timedelta) -> Pair:
    """A broker's certificate, for the names and addresses it is reached by."""
    sans: list[x509.GeneralName] = [x509.DNSName(BROKER_HOST)]
    for host in dict.fromkeys(hosts):
        try:
            sans.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            sans.append(x509.DNSName(host))
    return _issue(authority, "broker", sans, ExtendedKeyUsageOID.SERVER_AUTH, (now, now + life))


def issue_person(authority: Pair, who: names.Names, now: datetime, life: timedelta) -> Pair:
    """A person's certificate: a subject in a role."""
    sans = [
        x509.UniformResourceIdentifier(names.SUBJECT + who.subject),
        x509.UniformResourceIdentifier(names.ROLE + who.role),
    ]
    return _issue(authority, who.subject, sans, ExtendedKeyUsageOID.CLIENT_AUTH, (now, now + life))


def _issue(
    authority: Pair,
    common_name: str,
    sans: Iterable[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    span: Span,
) -> Pair:
    authority_key, authority_certificate = authority
    key = ec.generate_private_key(ec.SECP256R1())
    # Nothing outlives what vouches for it.
    start, end = span[0], min(span[1], authority_certificate.not_valid_after_utc)
    builder = _builder(
        (_name(common_name), key.public_key()),
        (authority_certificate.subject, authority_key.public_key()),
        (start, end),
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)  # noqa: FBT003 - cryptography's signature
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    digest = None if isinstance(authority_key, Ed25519PrivateKey) else hashes.SHA256()
    return key, builder.sign(authority_key, digest)


def _builder(subject: Party, issuer: Party, span: Span) -> x509.CertificateBuilder:
    identifier = x509.SubjectKeyIdentifier.from_public_key(subject[1])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer[1])
    return (
        x509.CertificateBuilder()
        .subject_name(subject[0])
        .issuer_name(issuer[0])
        .public_key(subject[1])
        .serial_number(x509.random_serial_number())
        .not_valid_before(span[0] - _SKEW)
        .not_valid_after(span[1])
        .add_extension(identifier, critical=False)
        .add_extension(authority, critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
