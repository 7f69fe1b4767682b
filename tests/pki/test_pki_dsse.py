"""Signed bundles: DSSE over exact bytes, and nothing that only looks like it."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from broker.cli import main as brokerctl
from broker.pki.dsse import (
    POLICY_TYPE,
    BundleError,
    is_bundle,
    key_id,
    open_bundle,
    read_signer,
    sign,
)

KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
SIGNERS = {key_id(KEY.public_key()): KEY.public_key()}


@given(st.binary(max_size=300))
def test_what_is_signed_is_opened_to_the_same_bytes(payload):
    opened = open_bundle(sign(payload, KEY), SIGNERS)
    assert (opened.payload, opened.signer) == (payload, next(iter(SIGNERS)))
    assert is_bundle(sign(payload, KEY))


def test_the_signature_is_dsses():
    envelope = json.loads(sign(b"policy: p", KEY))
    encoded = b"DSSEv1 %d %b 9 policy: p" % (len(POLICY_TYPE), POLICY_TYPE.encode())
    KEY.public_key().verify(base64.b64decode(envelope["signatures"][0]["sig"]), encoded)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_changed_byte_is_opened_to_anything_else(place, change):
    data = bytearray(sign(b"policy: corp", KEY))
    data[place % len(data)] ^= change
    try:
        opened = open_bundle(bytes(data), SIGNERS)
    except BundleError:
        return
    assert opened.payload == b"policy: corp"


def changed(**fields):
    envelope = json.loads(sign(b"policy: corp", KEY)) | fields
    return json.dumps(envelope).encode()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"policy: corp", "not a signed policy"),
        (b"\xff", "not a signed policy"),
        (changed(payload="*"), "not a signed policy"),
        (changed(more=1), "not a signed policy"),
        (changed(signatures=[]), "signed by none"),
        (changed(signatures=[{"sig": "*"}]), "signed by none"),
        (changed(payloadType="text/plain"), "not a policy"),
        (changed(payload=base64.b64encode(b"policy: other").decode()), "signed by none"),
        (sign(b"policy: corp", OTHER), "signed by none"),
    ],
)
def test_what_is_not_signed_by_a_signer_is_refused(data, says):
    with pytest.raises(BundleError, match=says):
        open_bundle(data, SIGNERS)


def test_one_good_signature_of_several_will_do_but_not_any_number_is_tried():
    good = json.loads(sign(b"p", KEY))["signatures"][0]
    bad = json.loads(sign(b"p", OTHER))["signatures"][0]

    def opened(signatures):
        envelope = json.loads(sign(b"p", KEY)) | {"signatures": signatures}
        return open_bundle(json.dumps(envelope).encode(), SIGNERS)

    assert opened([bad, {**good, "keyid": "whatever"}]).payload == b"p"
    with pytest.raises(BundleError):
        opened([bad] * 16 + [good])


def test_a_signer_is_an_ed25519_public_key():
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert key_id(read_signer(pem, "x")) in SIGNERS
    for bad in (b"", b"x", pem.replace(b"MCow", b"MCox")):
        with pytest.raises(BundleError, match="x is no Ed25519"):
            read_signer(bad, "x")


def test_the_commands_make_a_key_and_sign_with_it(tmp_path, capsysbinary):
    name = tmp_path / "signer"
    assert brokerctl.main(["pki", "signer", str(name)]) == 0
    assert (tmp_path / "signer.key").stat().st_mode & 0o777 == 0o600
    assert brokerctl.main(["pki", "signer", str(name)]) == 2
    policy = tmp_path / "p.yaml"
    policy.write_text(
        'policy: p\nversion: "1.0"\nste_types: [t]\nbootstrap: a\n'
        "labels: {a: {ste: [t]}}\nclasses: {vif: {default: deny}}\n"
    )
    capsysbinary.readouterr()
    assert brokerctl.main(["policy", "sign", str(policy), "--key", f"{name}.key"]) == 0
    signer = read_signer((tmp_path / "signer.pub").read_bytes(), "x")
    opened = open_bundle(capsysbinary.readouterr().out, {key_id(signer): signer})
    assert opened.payload == policy.read_bytes()
    assert brokerctl.main(["policy", "sign", str(policy), "--key", f"{name}.pub"]) == 2
    assert brokerctl.main(["policy", "sign", "/nonexistent", "--key", f"{name}.key"]) == 2
    policy.write_text("policy: p\n")
    assert brokerctl.main(["policy", "sign", str(policy), "--key", f"{name}.key"]) == 2
    assert b"p.yaml:1:1" in capsysbinary.readouterr().err
