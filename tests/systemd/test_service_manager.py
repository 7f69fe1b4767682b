"""What is told to the service manager and its journal, and the sockets that it hands over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure

from broker.systemd.journal import JournalObserver, goes_to_journal, message_id
from broker.systemd.notify import Notifier
from broker.systemd.sockets import inherited_unix_sockets


@pytest.fixture
def place():
    with tempfile.TemporaryDirectory(prefix="xs-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def listener(place):
    """A datagram socket that hears, as the manager's or the journal's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(place / "n"))
        heard.settimeout(5)
        yield heard


def test_states_are_told_where_the_environment_says(place, listener):
    notifier = Notifier({"NOTIFY_SOCKET": str(place / "n")})
    assert notifier.listens
    notifier.ready()
    notifier.alive()
    notifier.status("enforcing\nWATCHDOG=1")
    notifier.status("enforcing\nWATCHDOG=1")  # no news
    notifier.stopping()
    told = [listener.recv(100) for _ in range(4)]
    assert told == [b"READY=1", b"WATCHDOG=1", b"STATUS=enforcing", b"STOPPING=1"]


def test_an_abstract_socket_is_told_too():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0xpb-test-{os.getpid()}")
        heard.settimeout(5)
        Notifier({"NOTIFY_SOCKET": f"@xpb-test-{os.getpid()}"}).ready()
        assert heard.recv(100) == b"READY=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_where_nobody_listens_nothing_fails(environ):
    notifier = Notifier(environ)
    notifier.ready()
    assert notifier.listens == bool(environ)


_SHOWS = (
    "import os; from broker.systemd.sockets import inherited_unix_sockets as them\n"
    "found = them(); print(found, [os.get_inheritable(it) for it in found.values()])"
)


def handed(descriptors, names):
    """What a program finds that is started with these descriptors from 3 on."""
    count = len(descriptors)

    def place_them():
        spare = [os.dup(it) for it in descriptors]
        high = [os.dup2(it, 100 + at) for at, it in enumerate(spare)]
        for at, it in enumerate(high):
            os.dup2(it, 3 + at)

    return subprocess.run(
        [sys.executable, "-c", _SHOWS],
        env={**os.environ, "LISTEN_FDNAMES": names},
        pass_fds=range(3, 3 + count),
        preexec_fn=place_them,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def test_a_listening_unix_socket_is_found_by_its_path_and_goes_to_nobody_else(place):
    path = place / "s"
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as inet:
        unix.bind(str(path))
        unix.listen()
        said = handed([inet.fileno(), unix.fileno()], "tls:rpc")
    assert said == f"{{'{path}': 4}} [False]\n"


def test_what_is_no_listening_unix_socket_is_left_alone(place):
    with (
        socket.socket(socket.AF_UNIX) as silent,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
        (place / "f").open("wb") as file,
    ):
        silent.bind(str(place / "s"))
        datagrams.bind(str(place / "d"))
        descriptors = [silent.fileno(), datagrams.fileno(), file.fileno()]
        assert handed(descriptors, "a:b:c") == "{} []\n"


def test_without_names_nothing_was_handed_over():
    assert inherited_unix_sockets({}) == {}


def test_a_descriptor_that_is_none_is_passed_over():
    assert "/" not in "".join(inherited_unix_sockets({"LISTEN_FDNAMES": ":" * 300}))


def test_output_goes_to_the_journal_only_if_it_is_that_stream(place):
    with (place / "f").open("wb") as file:
        found = os.fstat(file.fileno())
        stream = f"{found.st_dev}:{found.st_ino}"
        assert goes_to_journal({"JOURNAL_STREAM": stream}, file.fileno())
        assert not goes_to_journal({"JOURNAL_STREAM": f"{found.st_dev}:1"}, file.fileno())
        assert not goes_to_journal({}, file.fileno())
    assert not goes_to_journal({"JOURNAL_STREAM": stream}, 9999)


def entry(data):
    """The fields of one datagram. https://systemd.io/JOURNAL_NATIVE_PROTOCOL/"""
    fields = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size + 1 :]
        fields[name.decode()] = value.decode()
        data = rest
    return fields


@pytest.fixture
def log(place, listener):
    """A logger whose events go to `listener`, and those that could not."""
    missed = []
    publisher = LogPublisher(JournalObserver("brokerd", missed.append, str(place / "n")))
    logger = Logger(namespace="broker.test", observer=publisher)
    logger.missed = missed
    return logger


def test_an_event_is_an_entry_with_its_values_as_fields(log, listener):
    log.warn("{verdict} {device}", verdict="deny", device="vif/3/0", domid=3, seq=None)
    fields = entry(listener.recv(65536))
    assert fields == {
        "MESSAGE": "deny vif/3/0",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "brokerd",
        "XPB_LOGGER": "broker.test",
        "XPB_VERDICT": "deny",
        "XPB_DEVICE": "vif/3/0",
        "XPB_DOMID": "3",
        "XPB_SEQ": "",
    }


def test_a_kind_has_an_id_that_stays(log, listener):
    log.info("it happened", kind="decision")
    fields = entry(listener.recv(65536))
    assert fields["XPB_KIND"] == "decision"
    assert fields["MESSAGE_ID"] == message_id("decision") == "fb45cdbe7ebb5bee840e5aad692e7a2a"


def test_a_value_cannot_make_a_field_of_its_own(log, listener):
    log.error("{what}", what="x\nPRIORITY=0\nXPB_VERDICT=grant")
    fields = entry(listener.recv(65536))
    assert fields["PRIORITY"] == "3"
    assert "XPB_VERDICT" not in fields
    assert fields["XPB_WHAT"] == "x\nPRIORITY=0\nXPB_VERDICT=grant"


def test_a_failure_has_its_traceback(log, listener):
    log.failure("it failed", Failure(ValueError("broken inside")))
    fields = entry(listener.recv(65536))
    assert "broken inside" in fields["MESSAGE"]
    assert fields["PRIORITY"] == "2"


def test_what_is_long_is_cut(log, listener):
    log.info("{what}", what="x" * 100_000)
    assert len(entry(listener.recv(200_000))["XPB_WHAT"]) == 8192


def test_what_the_journal_does_not_take_is_written_otherwise(log, listener, place):
    listener.close()
    log.info("all the same")
    (event,) = log.missed
    assert (event["log_format"], event["log_level"]) == ("all the same", LogLevel.info)
