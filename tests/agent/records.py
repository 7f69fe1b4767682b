"""Hand-signed records and heartbeats for the agent's tests."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.core.record import Record, sign_record

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
NONCE = "0123456789abcdef0123456789abcdef"
OTHER_NONCE = "f" * 32
INPUTS = "ab" * 32
OTHER_INPUTS = "cd" * 32
UUID = "56b8d9d0-f417-45de-ab20-17715a9d5aab"


def record(verdict="grant", key=KEY, **changes):
    """One signed record about vif/3/0 -> 0, with `changes` to its fields."""
    fields = {
        "verdict": verdict,
        "seq": 7,
        "id": "11111111-2222-4333-8444-555555555555",
        "frontend": 3,
        "backend": 0,
        "device_class": "vif",
        "device": "0",
        "uuid": UUID,
        "nonce": NONCE,
        "inputs": INPUTS,
        "labels": ("red", "dom0"),
        "resource": None,
        "policy": "sha256:" + "1" * 64,
        "spec": "sha256:" + "2" * 64,
        "reason": "",
    }
    return sign_record(Record(**{**fields, **changes}), key)
