"""What certificates are made with unless somebody says otherwise; lives in days."""

from __future__ import annotations

from typing import Final

BROKER_HOST: Final = "xen-policy-broker"
"""A DNS name in every broker's certificate: for connections that have no host, as over vchan."""
BROKER: Final = "broker"
"""The broker's name among what was issued; no person can have it."""
AUTHORITY_DAYS: Final = 5 * 365
BROKER_DAYS: Final = 90
PERSON_DAYS: Final = 30
