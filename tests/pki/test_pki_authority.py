"""The authority's files: what it issues, renews and revokes, and what it refuses."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509 import CertificateBuilder
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from broker.cli import main as brokerctl
from broker.pki.authority import Authority, PkiError
from broker.pki.denied import DeniedListError, read_denied, serial_text
from broker.pki.names import Names, NamesError, check_names, names_of

NAME = x509.Name([])
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path):
    made = Authority(tmp_path / "pki")
    made.init(("broker.example", "192.0.2.1"), NOW)
    return made


def certificate(authority, name):
    return x509.load_pem_x509_certificate((authority.directory / f"{name}.crt").read_bytes())


def test_keys_are_their_owners_alone(authority):
    authority.issue(Names("alice", "officer"), NOW)
    assert stat.S_IMODE(authority.directory.stat().st_mode) == 0o700
    keys = sorted(path.name for path in authority.directory.glob("*.key"))
    assert keys == ["alice.key", "broker.key", "ca.key"]
    for name in (*keys, "issued.jsonl"):
        assert stat.S_IMODE((authority.directory / name).stat().st_mode) == 0o600


def test_a_browser_takes_what_is_issued_by_an_authority_of_either_age(authority, capsys):
    words = ("--dir", str(authority.directory), "--role", "officer", "--browser")
    for key in (None, Ed25519PrivateKey.generate()):
        if key is not None:
            former = CertificateBuilder(issuer_name=NAME, subject_name=NAME)
            former = former.public_key(key.public_key()).serial_number(1)
            former = former.not_valid_before(NOW).not_valid_after(NOW + timedelta(days=9000))
            files = (key, former.sign(key, None))
            authority._write_pair("ca", files)
        assert brokerctl.main(["pki", "issue", "alice", *words]) == 0
        password = capsys.readouterr().out.splitlines()[-1].rpartition(" ")[2]
        bundle = authority.directory / "alice.p12"
        assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
        held, one, _ = pkcs12.load_key_and_certificates(bundle.read_bytes(), password.encode())
        assert one == certificate(authority, "alice")
        assert isinstance(held.curve, ec.SECP256R1)
        assert one.public_key() == held.public_key()
        one.verify_directly_issued_by(certificate(authority, "ca"))


def test_what_is_issued_is_signed_short_lived_and_for_one_purpose(authority):
    authority.issue(Names("alice", "officer"), NOW)
    ca, alice, broker = (certificate(authority, name) for name in ("ca", "alice", "broker"))
    for one, purpose, days in (
        (alice, ExtendedKeyUsageOID.CLIENT_AUTH, 30),
        (broker, ExtendedKeyUsageOID.SERVER_AUTH, 90),
    ):
        one.verify_directly_issued_by(ca)
        assert one.not_valid_after_utc == NOW + timedelta(days=days)
        usage = one.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        assert (list(usage.value), usage.critical) == ([purpose], True)
        assert not one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert names_of(alice) == Names("alice", "officer")
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    sans = broker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sans.get_values_for_type(x509.DNSName) == ["xen-policy-broker", "broker.example"]
    assert [str(it) for it in sans.get_values_for_type(x509.IPAddress)] == ["192.0.2.1"]


def test_nothing_outlives_the_authority(authority):
    late = NOW + timedelta(days=5 * 365 - 1)
    issued = authority.issue(Names("alice", "officer"), late)
    assert issued.not_after == (NOW + timedelta(days=5 * 365)).timestamp()


def test_a_second_init_changes_nothing(authority):
    before = (authority.directory / "ca.key").read_bytes()
    with pytest.raises(PkiError, match="already"):
        authority.init((), NOW)
    assert (authority.directory / "ca.key").read_bytes() == before


@pytest.mark.parametrize("subject", ["broker", "ca"])
def test_a_person_cannot_have_the_name_of_the_authoritys_own_files(authority, subject):
    before = (authority.directory / f"{subject}.key").read_bytes()
    with pytest.raises(PkiError, match="choose another"):
        authority.issue(Names(subject, "officer"), NOW)
    assert (authority.directory / f"{subject}.key").read_bytes() == before


@pytest.mark.parametrize(
    ("subject", "role"),
    [("../x", "r"), ("", "r"), ("a/b", "r"), ("a:b", "r"), (".x", "r"), ("a", ""), ("a", "b c")],
)
def test_names_that_will_not_do_are_refused(authority, subject, role):
    with pytest.raises(NamesError):
        authority.issue(Names(subject, role), NOW)


def test_renewing_keeps_who_and_how_long_and_changes_the_key(authority):
    authority.issue(Names("alice", "officer"), NOW, timedelta(days=7))
    for number in range(1, 4):
        before = certificate(authority, "alice")
        authority.renew("alice", NOW + timedelta(days=number))
        after = certificate(authority, "alice")
        assert names_of(after) == Names("alice", "officer")
        assert after.not_valid_after_utc == NOW + timedelta(days=number + 7)
        assert after.public_key() != before.public_key()
    authority.renew("broker", NOW)
    sans = certificate(authority, "broker").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert "broker.example" in sans.value.get_values_for_type(x509.DNSName)


def test_who_was_revoked_is_not_renewed(authority):
    authority.issue(Names("alice", "officer"), NOW)
    authority.revoke("alice", NOW)
    with pytest.raises(PkiError, match="was revoked"):
        authority.renew("alice", NOW)
    with pytest.raises(PkiError, match="never issued"):
        authority.renew("bob", NOW)


def test_revoking_a_subject_denies_all_his_good_certificates_and_a_serial_one(authority):
    first = authority.issue(Names("alice", "officer"), NOW)
    second = authority.issue(Names("alice", "operator"), NOW)
    other = authority.issue(Names("bob", "operator"), NOW)
    assert authority.revoke("alice", NOW) == (first, second)
    denied = read_denied((authority.directory / "revoked").read_bytes(), "revoked")
    assert denied == {int(first.serial, 16), int(second.serial, 16)}
    assert authority.revoke(other.serial.upper(), NOW) == (other,)
    with pytest.raises(PkiError, match="no good certificate"):
        authority.revoke("alice", NOW)


def test_the_list_tells_what_is_good(authority):
    authority.issue(Names("alice", "officer"), NOW)
    authority.issue(Names("bob", "officer"), NOW)
    authority.revoke("bob", NOW)

    def states(days):
        listed = authority.listed(NOW + timedelta(days=days))
        return {it.issued.subject: it.state for it in listed}

    assert states(0) == {"broker": "good", "alice": "good", "bob": "revoked"}
    assert states(25) == {"broker": "good", "alice": "expires soon", "bob": "revoked"}
    assert states(31) == {"broker": "good", "alice": "expired", "bob": "revoked"}


@pytest.mark.parametrize("name", ["ca.key", "ca.crt", "issued.jsonl", "revoked"])
def test_damage_is_told_and_nothing_issued(authority, name):
    path = authority.directory / name
    path.write_bytes(b"nonsense here\n")
    with pytest.raises(PkiError):
        authority.listed(NOW)
        authority.issue(Names("alice", "officer"), NOW)
    path.unlink()
    with pytest.raises(PkiError, match="pki init"):
        authority.listed(NOW)
        authority.issue(Names("alice", "officer"), NOW)


def test_a_denylist_is_read_whole_or_not_at_all():
    data = b"# people\n\n0aF1 alice 2026-01-01\nff\n"
    assert read_denied(data, "x") == {0xAF1, 0xFF}
    for bad in (b"ff\nzz\n", b"\xff\n", b"0x12\n", b"1" * 41):
        with pytest.raises(DeniedListError, match="x:"):
            read_denied(bad, "x")


@given(st.integers(1, (1 << 159) - 1))
def test_a_serial_is_read_as_it_is_written(serial):
    assert read_denied(serial_text(serial).encode(), "x") == {serial}


@given(st.text(max_size=80), st.text(max_size=80))
def test_names_are_plain_or_refused(subject, role):
    try:
        names = check_names(subject, role)
    except NamesError as error:
        assert str(error).isascii()
    else:
        assert (names.subject + names.role).isascii()
        assert "/" not in subject
        assert not subject.startswith(".")


def run(capsys, *words):
    code = brokerctl.main(["pki", *words])
    return code, *capsys.readouterr()


def test_the_commands_from_nothing_to_a_working_set(tmp_path, capsys):
    where = ("--dir", str(tmp_path / "pki"))
    code, out, _ = run(capsys, "init", "--host", "broker.example", *where)
    assert code == 0
    assert "certificate: " in out
    code, out, _ = run(capsys, "issue", "alice", "--role", "officer", "--days", "7", *where)
    assert (code, "alice, role officer, good until" in out) == (0, True)
    assert run(capsys, "renew", "alice", *where)[0] == 0
    assert run(capsys, "renew", "broker", *where)[0] == 0
    code, out, _ = run(capsys, "revoke", "alice", *where)
    assert (code, out.count("is good no more")) == (0, 2)
    code, out, _ = run(capsys, "list", *where)
    assert (code, out.count("revoked")) == (0, 2)
    code, out, _ = run(capsys, "list", "--json", *where)
    assert [json.loads(line)["state"] for line in out.splitlines()].count("good") == 2


@pytest.mark.parametrize(
    "words",
    [
        ("issue", "alice", "--role", "officer"),
        ("renew", "alice"),
        ("revoke", "alice"),
        ("list",),
        ("issue", "../a", "--role", "officer"),
    ],
)
def test_the_commands_without_an_authority_say_what_to_do(words, tmp_path, capsys):
    code, _, err = run(capsys, *words, "--dir", str(tmp_path / "none"))
    assert code == 2
    assert err.startswith("brokerctl: ")


def test_init_says_it_in_json_too(tmp_path, capsys):
    code, out, _ = run(capsys, "init", "--json", "--dir", str(tmp_path / "pki"))
    assert code == 0
    assert "localhost" in json.loads(out)["hosts"]
    assert run(capsys, "init", "--dir", str(tmp_path / "pki"))[0] == 2
    code, _, err = run(capsys, "init", "--host", "b\u00e4d host", "--dir", str(tmp_path / "other"))
    assert (code, "host" in err) == (2, True)


def test_what_is_issued_and_revoked_is_told_as_json(tmp_path, capsys):
    where = ("--json", "--dir", str(tmp_path / "pki"))
    run(capsys, "init", *where)
    code, out, _ = run(capsys, "issue", "alice", "--role", "officer", "--browser", *where)
    told = json.loads(out)
    assert (code, told["issued"]["role"]) == (0, "officer")
    assert all(Path(told[name]).exists() for name in ("key", "certificate", "bundle"))
    assert told["password"]
    code, out, _ = run(capsys, "revoke", "alice", *where)
    assert (code, json.loads(out)["revoked"]["serial"]) == (0, told["issued"]["serial"])
    code, out, err = run(capsys, "revoke", "alice", *where)
    assert (code, err, json.loads(out)["error"]["code"]) == (2, "", "bad_input")


def test_no_certificate_is_issued_for_local_roots_role(tmp_path, capsys):
    where = ("--dir", str(tmp_path / "pki"))
    run(capsys, "init", *where)
    code, _, err = run(capsys, "issue", "alice", "--role", "root", *where)
    assert (code, "no certificate can have it" in err) == (2, True)
    assert not (tmp_path / "pki" / "alice.crt").exists()


@pytest.mark.parametrize("days", ["0", "3651", "-1", "x"])
def test_a_life_out_of_range_is_refused_in_few_words(days, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(capsys, "issue", "alice", "--role", "r", "--days", days, "--dir", str(tmp_path))
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err) < 1000
