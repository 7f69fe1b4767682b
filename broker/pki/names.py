"""Who a certificate stands for: its URI SANs `xpb:subject:<name>` and `xpb:role:<name>`."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from cryptography import x509

SUBJECT: Final = "xpb:subject:"
ROLE: Final = "xpb:role:"

_PREFIX: Final = "xpb:"
_SUBJECT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_ROLE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.()-]{0,127}")


class NamesError(ValueError):
    """A certificate does not say, in exactly one way, who it stands for; or a name will not do."""


class Names(msgspec.Struct, frozen=True):
    """A person, and the role he acts in."""

    subject: str
    role: str


def check_names(subject: str, role: str) -> Names:
    """Names that can stand in a certificate.

    Raises:
        NamesError: one of them will not do.
    """
    if not _SUBJECT_NAME.fullmatch(subject):
        raise NamesError(
            f"{subject[:80]!a} is no subject: 1 to 64 letters, digits and _.@-, beginning with a "
            "letter or digit"
        )
    if not _ROLE_NAME.fullmatch(role):
        raise NamesError(
            f"{role[:80]!a} is no role: letters, digits and _.()-, beginning with a letter or digit"
        )
    return Names(subject, role)


def names_of(certificate: x509.Certificate) -> Names:
    """Who the certificate stands for.

    Raises:
        NamesError: not exactly one subject and one role are named, or it holds another
            `xpb:` name.
    """
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uris = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        uris = []
    ours = [uri for uri in uris if uri.lower().startswith(_PREFIX)]
    subjects = [uri.removeprefix(SUBJECT) for uri in ours if uri.startswith(SUBJECT)]
    roles = [uri.removeprefix(ROLE) for uri in ours if uri.startswith(ROLE)]
    if len(subjects) != 1 or len(roles) != 1 or len(ours) != 2:
        raise NamesError(
            f"the certificate names {len(subjects)} subjects and {len(roles)} roles "
            f"in its URI SANs; it needs one {SUBJECT}<name> and one {ROLE}<name>"
        )
    return check_names(subjects[0], roles[0])
