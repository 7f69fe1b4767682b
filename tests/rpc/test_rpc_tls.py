"""The RPC over TLS 1.3, on real sockets: a certificate alone says who calls, or nobody gets in."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL.crypto import X509
from pytest_twisted import ensureDeferred
from rpc_fake_admin import EVENT, FakeAdmin
from twisted.internet import reactor, task
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs

from broker.pki.names import ROLE, SUBJECT
from broker.rpc import methods
from broker.rpc.address import AddressError, open_connection, parse_address
from broker.rpc.certificates import CertificatePeers, TlsContext, TlsFilesError
from broker.rpc.client import Client, UnreachableError
from broker.rpc.errors import RpcError
from broker.rpc.limits import Limits, Places, Rates
from broker.rpc.server import RECHECK, ListenError, TlsServer

DEADLINE = 30.0
NOTHING = methods.Nothing()


def uris(*names):
    return [x509.UniformResourceIdentifier(name) for name in names]


async def call(address, name="status", arguments=NOTHING):
    return await deferToThread(Client(address).call, name, arguments)


async def refused(address, code="denied"):
    """The refusal of a call; nothing has answered it, whatever the handshake made of it."""
    with pytest.raises((RpcError, UnreachableError)) as caught:
        await call(address)
    if isinstance(caught.value, RpcError):
        assert caught.value.code == code
    return str(caught.value)


async def until(condition):
    end = reactor.seconds() + DEADLINE
    while not condition():
        assert reactor.seconds() < end
        await task.deferLater(reactor, 0.005)


@pytest.mark.parametrize("listen", ["tcp:0:interface=127.0.0.1", "unix:{dir}/tls.sock"])
@ensureDeferred
async def test_a_call_over_tls_is_answered_and_its_caller_is_the_certificates(
    listen, serve_tls, people, admin, short_dir
):
    address = serve_tls(listen.format(dir=short_dir))
    status = await call(address(people.issue("alice", "officer")))
    assert status.health == "green"
    [(name, caller, _)] = admin.calls
    assert (name, caller.subject, caller.role, caller.person) == (
        *("status", "alice", "officer", "alice"),
    )


@ensureDeferred
async def test_root_at_a_tls_socket_without_a_certificate_gets_nothing(
    serve_tls, people, admin, short_dir
):
    path = f"{short_dir}/vchan.sock"
    serve_tls(f"unix:{path}")
    assert os.getuid() == 0

    def ask():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(people.files.ca)
        with socket.socket(socket.AF_UNIX) as plain:
            plain.connect(path)
            # TLS 1.3: this end is done before the broker has said what it thinks of it.
            with context.wrap_socket(plain, server_hostname="xen-policy-broker") as tls:
                assert tls.version() == "TLSv1.3"
                tls.sendall(b"GET /openapi.json HTTP/1.1\r\n\r\n")
                return tls.recv(1)

    # Of the alert or the end, whichever comes first.
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await deferToThread(ask)
    assert not admin.calls
    await until(lambda: admin.away)
    assert "did not return a certificate" in admin.away[0]


@ensureDeferred
async def test_plain_http_at_a_tls_socket_gets_nothing(serve_tls, admin, short_dir):
    path = f"{short_dir}/vchan.sock"
    serve_tls(f"unix:{path}")

    def ask():
        with socket.socket(socket.AF_UNIX) as plain:
            plain.connect(path)
            plain.sendall(b"GET /openapi.json HTTP/1.1\r\n\r\n")
            return plain.recv(4096)

    answer = await deferToThread(ask)
    assert b"HTTP" not in answer
    assert not admin.calls


@ensureDeferred
async def test_tls_before_1_3_is_refused(serve_tls, people, admin):
    address = serve_tls()(people.issue("alice"))

    def ask():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(people.files.ca)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection((address.host, address.port)) as plain:
            context.wrap_socket(plain, server_hostname="localhost")

    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        await deferToThread(ask)


@ensureDeferred
async def test_a_certificate_of_another_authority_is_refused(
    serve_tls, people, admin, tmp_path, make_people
):
    stranger = make_people(tmp_path / "other")
    own = stranger.issue("alice", "officer")
    address = serve_tls()
    said = await refused(address(stranger.credentials("alice", ca=people.files.ca)))
    assert "unknown ca" in said or "hung up" in said
    assert own.cert.exists()
    assert not admin.calls


@pytest.mark.parametrize(
    ("start", "life"), [(timedelta(days=-9), timedelta(days=1)), (timedelta(days=9), timedelta(1))]
)
@ensureDeferred
async def test_a_certificate_that_is_not_valid_now_is_refused(
    start, life, serve_tls, people, admin
):
    own = people.issue("alice", now=people.now + start, life=life)
    await refused(serve_tls()(own))
    assert not admin.calls


@ensureDeferred
async def test_a_certificate_made_for_a_server_calls_nothing(serve_tls, people, admin):
    await refused(serve_tls()(people.credentials("broker")))
    sans = uris(SUBJECT + "alice", ROLE + "officer")
    own = people.sign("alice", sans, purpose=ExtendedKeyUsageOID.SERVER_AUTH)
    await refused(serve_tls()(own))
    assert not admin.calls


@pytest.mark.parametrize(
    ("sans", "says"),
    [
        ([], "0 subjects and 0 roles"),
        (uris(SUBJECT + "alice"), "1 subjects and 0 roles"),
        (uris(ROLE + "officer"), "0 subjects and 1 roles"),
        (uris(SUBJECT + "alice", ROLE + "a", ROLE + "b"), "1 subjects and 2 roles"),
        (uris(SUBJECT + "alice", SUBJECT + "bob", ROLE + "b"), "2 subjects and 1 roles"),
        (uris(SUBJECT + "alice", ROLE + "a", "xpb:more:x"), "needs one"),
        (uris(SUBJECT + "alice", "XPB:role:a"), "0 roles"),
        (uris(SUBJECT + "local:uid=0", ROLE + "a"), "is no subject"),
        (uris(SUBJECT + "", ROLE + "a"), "is no subject"),
        (uris(SUBJECT + "alice", ROLE + "a%20b"), "is no role"),
        (uris(SUBJECT + "alice", ROLE + "root"), "local root's"),
        ([x509.DNSName("alice"), *uris("https://x/xpb:role:a")], "0 subjects"),
    ],
)
@ensureDeferred
async def test_a_certificate_that_does_not_say_who_in_one_way_is_refused(
    sans, says, serve_tls, people, admin
):
    own = people.sign("odd", sans or [x509.DNSName("odd")])
    assert says in await refused(serve_tls()(own))
    assert not admin.calls
    assert says in admin.away[0]


@ensureDeferred
async def test_a_revoked_certificate_calls_nothing_from_the_next_call_on(serve_tls, people, admin):
    address = serve_tls()(people.issue("alice"))
    kept = open_connection(address, DEADLINE)

    def ask():
        kept.request("POST", "/v1/status", b"{}", {"Content-Type": "application/json"})
        answer = kept.getresponse()
        return answer.status, answer.read()

    assert (await deferToThread(ask))[0] == 200
    people.authority.revoke("alice", people.now)
    status, body = await deferToThread(ask)
    assert (status, b"revoked" in body) == (403, True)
    kept.close()
    assert "revoked" in await refused(address)
    people.issue("bob")
    assert await call(parse_address(address.text, people.credentials("bob")))
    assert len(admin.calls) == 2


@pytest.mark.parametrize("damage", ["remove", "garble", "fifo"])
@ensureDeferred
async def test_a_denylist_that_does_not_read_lets_nobody_in(damage, serve_tls, people, admin):
    address = serve_tls()
    own = address(people.issue("alice"))
    assert await call(own)
    if damage == "garble":
        people.files.revoked.write_text("not a serial\n")
    else:
        people.files.revoked.unlink()
    if damage == "fifo":
        os.mkfifo(people.files.revoked)
    assert "denylist" in await refused(own)
    (notice,) = address.server.peers.notices()
    assert (notice.kind, notice.urgent) == ("denylist_unread", True)
    assert "nobody gets in" in notice.text
    people.files.revoked.unlink(missing_ok=True)
    people.files.revoked.write_text("# nobody\n")
    assert await call(own)


@ensureDeferred
async def test_a_renewed_broker_certificate_is_used_without_a_restart(serve_tls, people):
    address = serve_tls()(people.issue("alice"))

    def serial():
        connection = open_connection(address, DEADLINE)
        connection.connect()
        with contextlib.closing(connection):
            shown = connection.sock.getpeercert(binary_form=True)
            return x509.load_der_x509_certificate(shown).serial_number

    before = await deferToThread(serial)
    people.authority.renew("broker", people.now)
    assert await deferToThread(serial) != before
    people.files.certificate.write_text("not a certificate")
    with capturedLogs() as logs:
        assert await call(address)
    assert any("not used" in event.get("problem", "") for event in logs)


@ensureDeferred
async def test_nobody_comes_back_on_a_session_without_his_certificate(serve_tls, people):
    address = serve_tls()(people.issue("alice"))

    def reused():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(people.files.ca)
        own = people.credentials("alice")
        context.load_cert_chain(own.cert, own.key)
        session = None
        for _ in range(2):
            with socket.create_connection((address.host, address.port)) as plain:
                tls = context.wrap_socket(plain, server_hostname="localhost", session=session)
                tls.sendall(b"GET /openapi.json HTTP/1.1\r\nConnection: close\r\n\r\n")
                while tls.recv(65536):
                    pass
                session = tls.session
                again = tls.session_reused
        return again

    assert await deferToThread(reused) is False


@ensureDeferred
async def test_a_client_talks_to_nobody_but_the_broker(serve_tls, people, tmp_path, make_people):
    address = serve_tls()
    own = people.issue("alice")
    other = make_people(tmp_path / "other")
    with pytest.raises(UnreachableError, match="not shown to be the broker"):
        await call(address(people.credentials("alice", ca=other.files.ca)))
    with pytest.raises(UnreachableError, match=r"(?i)hostname mismatch"):
        await call(address(people.credentials("alice", server_name="elsewhere.example")))
    assert await call(address(people.credentials("alice", server_name="xen-policy-broker")))
    own.key.write_text("no key")
    with pytest.raises(AddressError, match=r"alice\.key"):
        await call(address(own))
    own.cert.unlink()
    with pytest.raises(AddressError, match=r"alice\.crt: No such file"):
        await call(address(own))


@ensureDeferred
async def test_who_says_nothing_is_dropped_also_before_the_handshake(serve_tls, admin):
    address = serve_tls(limits=Limits(request_time=1))
    port = address.server.ports[0].getHost().port

    def wait(said):
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.settimeout(DEADLINE)
            plain.sendall(said)
            start = time.monotonic()
            with contextlib.suppress(ConnectionResetError):
                while plain.recv(4096):
                    pass
            return time.monotonic() - start

    for said in (b"", b"\x16\x03\x01"):
        assert await deferToThread(wait, said) < DEADLINE / 2
    assert not admin.calls


@ensureDeferred
async def test_a_proxy_may_wait_for_its_client_but_who_speaks_is_held_to_the_time(
    serve_tls, short_dir
):
    limits = Limits(request_time=1)
    serve_tls(f"unix:{short_dir}/tls.sock", limits=limits)
    with (
        socket.socket(socket.AF_UNIX) as silent,
        socket.socket(socket.AF_UNIX) as slow,
    ):
        for one in (silent, slow):
            one.connect(f"{short_dir}/tls.sock")
            one.settimeout(DEADLINE)
        slow.sendall(b"\x16\x03\x01")

        def ended():
            with contextlib.suppress(ConnectionResetError):
                return slow.recv(4096)
            return b""

        while await deferToThread(ended):
            pass  # an alert may come first
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.recv(1)


@ensureDeferred
async def test_strangers_keep_nobody_out(serve_tls, people):
    address = serve_tls(places=Places(total=8, reserved=2, strangers=3))
    port = address.server.ports[0].getHost().port
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    own = address(people.issue("alice"))
    for _ in range(3):
        assert await call(own)
    for one in silent:
        one.close()


class Person:
    def __init__(self, caller=None):
        self.caller = caller
        self.dropped = False

    def abort(self):
        self.dropped = True


def test_places_of_a_network_end_before_those_of_root():
    places = Places(total=6, reserved=2, strangers=2)
    known = [Person(caller=FakeAdmin()) for _ in range(4)]
    assert all(places.enter(one, local=False) for one in known)
    assert not places.enter(Person(), local=False)
    assert places.enter(Person(), local=True)
    assert places.enter(Person(), local=True)
    assert not places.enter(Person(), local=True)
    assert places.held == 6
    places.leave(known[0])
    strangers = [Person(), Person(), Person()]
    assert places.enter(strangers[0], local=False)
    places.leave(known[1])
    assert places.enter(strangers[1], local=False)
    assert places.enter(strangers[2], local=False)
    assert [one.dropped for one in strangers] == [True, False, False]


def test_a_rate_is_a_bucket_that_fills_again_for_each_alone():
    rates = Rates(burst=2, rate=0.5)
    assert [rates.take("ann", 0.0) for _ in range(3)] == [0.0, 0.0, 2.0]
    assert rates.take("bob", 0.0) == 0.0
    assert rates.take("ann", 1.0) == pytest.approx(1.0)
    assert rates.take("ann", 2.0) == 0.0
    assert rates.take("ann", 2.0) > 0
    # It never holds more than it did at first, and it does not remember everybody for ever.
    assert [rates.take("ann", 900.0) for _ in range(3)] == [0.0, 0.0, 2.0]
    for number in range(10_000):
        rates.take(f"p{number}", 900.0)
    assert len(rates._left) <= 4096


@ensureDeferred
async def test_a_person_has_so_many_connections_and_calls_and_others_are_served(serve_tls, people):
    limits = Limits(person_connections=2, person_burst=3.0, person_rate=0.001)
    address = serve_tls(limits=limits)
    own = address(people.issue("alice"))
    kept = [open_connection(own, DEADLINE) for _ in range(3)]

    def ask(connection):
        connection.request("POST", "/v1/status", b"{}", {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()

    assert [(await deferToThread(ask, one))[0] for one in kept] == [200, 200, 429]
    assert (await deferToThread(ask, kept[0]))[0] == 200
    status, body = await deferToThread(ask, kept[0])
    assert (status, b"wait" in body) == (429, True)
    for one in kept:
        one.close()
    assert await call(address(people.issue("bob")))


@ensureDeferred
async def test_an_address_that_connects_too_often_waits_and_a_unix_socket_does_not(
    serve_tls, people, short_dir
):
    limits = Limits(address_burst=2.0, address_rate=0.001)
    own = serve_tls(limits=limits)(people.issue("alice"))
    for _ in range(2):
        assert await call(own)
    with capturedLogs() as logs, pytest.raises(UnreachableError):
        await call(own)
    assert any("refused" in event["log_format"] for event in logs)
    local = serve_tls(f"unix:{short_dir}/tls.sock", limits=limits)(people.credentials("alice"))
    for _ in range(4):
        assert await call(local)


@ensureDeferred
async def test_a_stream_ends_when_its_caller_is_revoked_or_loses_his_role(serve_tls, people, admin):
    address = serve_tls()
    for lose in ("certificate", "role"):
        admin.subscribers.clear()
        admin.subscribed, admin.unsubscribed = type(admin.subscribed)(), type(admin.subscribed)()
        events = Client(address(people.issue("alice"))).stream(
            "channel.watch", methods.ChannelFilter()
        )
        first = deferToThread(next, events)
        await admin.subscribed
        admin.subscribers[0](EVENT)
        assert await first == EVENT
        if lose == "certificate":
            people.authority.revoke("alice", people.now)
        else:
            admin.deny = RpcError("denied", "no role")
        start = reactor.seconds()
        with pytest.raises(UnreachableError):
            await deferToThread(next, events)
        assert reactor.seconds() - start < 2 * RECHECK
        await admin.unsubscribed


def test_what_expires_soon_is_told(people, tmp_path):
    end = people.now + timedelta(days=85)
    context = TlsContext(people.files)
    assert context.notices(people.now) == ()
    [notice] = context.notices(end)
    assert "broker.crt expires on" in notice.text
    assert (notice.kind, notice.urgent) == ("certificate_expiring", False)
    [notice] = context.notices(people.now + timedelta(days=91))
    assert "broker.crt expired on" in notice.text
    assert (notice.kind, notice.urgent) == ("certificate_expired", True)
    expires = dict(context.expiries())[str(people.files.certificate)]
    assert end.timestamp() < expires < (people.now + timedelta(days=91)).timestamp()
    people.files.key.write_text("x")
    [notice] = context.notices(people.now)
    assert (notice.kind, "does not read" in notice.text) == ("certificate_unread", True)

    class Shown:
        def getPeerCertificate(self):
            own = people.credentials("alice").cert.read_bytes()
            return X509.from_cryptography(x509.load_pem_x509_certificate(own))

    people.issue("alice")
    moment = [people.now.timestamp()]
    peers = CertificatePeers(None, lambda: moment[0])
    assert peers(Shown()).subject == "alice"
    assert peers.notices() == ()
    moment[0] += 29 * 86400
    with capturedLogs() as logs:
        peers(Shown())
        peers(Shown())
    assert len(logs) == 1
    [notice] = peers.notices()
    assert "the certificate of alice expires on" in notice.text
    moment[0] += 2 * 86400
    with pytest.raises(RpcError, match="expired"):
        peers(Shown())
    assert peers.notices() == ()  # nobody comes with it any more
    moment[0] -= 40 * 86400
    with pytest.raises(RpcError, match="not valid before"):
        peers(Shown())


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda files: files.key.chmod(0o640), "chmod 600"),
        (lambda files: files.key.write_text("x"), "does not read"),
        (lambda files: files.ca.unlink(), "ca.crt"),
        (lambda files: files.certificate.write_bytes(files.ca.read_bytes()), "is not the key of"),
        (lambda files: files.certificate.write_text(""), "does not read"),
    ],
)
def test_tls_files_that_will_not_do_are_refused_at_the_start(damage, says, people):
    damage(people.files)
    with pytest.raises(TlsFilesError, match=says):
        TlsContext(people.files)


@pytest.mark.parametrize("text", ["", "tcp", "tcp:x", "nowhere:1", "unix", "systemd:index=0"])
def test_a_place_to_listen_at_that_is_none_is_refused(text, people, admin):
    with pytest.raises(ListenError, match="no place to listen"):
        TlsServer(admin, [text], people.files, reactor)


def test_a_place_that_is_taken_is_refused(people, admin):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = TlsServer(admin, [f"tcp:{port}:interface=127.0.0.1"], people.files, reactor)
        with pytest.raises(ListenError, match="cannot listen"):
            server.start()


@pytest.fixture
def activated(people, short_dir):
    """A server on a socket that was made before it, handed over as systemd's .socket units do."""
    path = short_dir / "activated.sock"
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from pathlib import Path
        from rpc_fake_admin import FakeAdmin
        from twisted.internet import reactor
        from broker.rpc.certificates import TlsFiles
        from broker.rpc.server import TlsServer
        pki = Path(sys.argv[2])
        files = TlsFiles(
            certificate=pki / "broker.crt", key=pki / "broker.key", ca=pki / "ca.crt"
        )
        TlsServer(FakeAdmin(), ["systemd:domain=UNIX:index=0"], files, reactor).start()
        reactor.run()
    """
    shell = (
        'exec 3<&"$1"; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=rpc exec "$2" -c "$3" "$4" "$5"'
    )
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        served = subprocess.Popen(
            [
                *("/bin/bash", "-c", shell, "sh", str(listening.fileno()), sys.executable),
                *(textwrap.dedent(code), str(Path(__file__).parent), str(people.directory)),
            ],
            pass_fds=[listening.fileno()],
        )
    yield path
    served.terminate()
    served.wait(DEADLINE)


@ensureDeferred
async def test_a_socket_that_systemd_made_is_served(activated, people):
    status = await call(parse_address(f"tls-unix:{activated}", people.issue("alice")))
    assert status.health == "green"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tls:",
        "tls:host:0",
        "tls:host:65536",
        "tls:ho st",
        "unix:relative",
        "http://x",
        "tls:a:b",
    ],
)
def test_an_address_that_is_none_is_refused(text, people):
    with pytest.raises(AddressError):
        parse_address(text, people.credentials("alice"))


def test_addresses_are_read(people):
    own = people.credentials("alice")
    assert (parse_address("tls:h", own).host, parse_address("tls:h", own).port) == ("h", 7443)
    assert parse_address("tls:[::1]:9", own).host == "::1"
    assert parse_address("tls-unix:/a", own).path == "/a"
    assert parse_address("unix:/a", None).credentials is None
    with pytest.raises(AddressError, match="--cert"):
        parse_address("tls:h", None)
