"""What a confined process may do and may not, tried in processes of its own.

Each thing that is denied is also tried with everything else confined but its own guard: then it
works, so that it is that guard which denies it.
"""

# ruff: noqa: E501 - snippets of code, one a line
from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys

import pytest

PRELUDE = """
import ctypes, encodings.idna, errno, fcntl, mmap, os, resource, select, signal, socket, struct, sys, threading
from pathlib import Path
from broker.confine import landlock, process, seccomp
place = Path(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def call(*words):
    result = libc.syscall(*map(ctypes.c_long, words))
    if result < 0:
        raise OSError(ctypes.get_errno(), "call")
    return result
listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
free = socket.create_server(("127.0.0.1", 0))
mine = free.getsockname()[1]
free.close()
status = open("/proc/self/status", "rb")
rules = {
    place / "read": landlock.READ,
    place / "write": landlock.WRITE,
    place / "sockets": landlock.LISTEN,
    Path("/dev/null"): landlock.DEVICE,
    place / "absent": landlock.WRITE,
}
class Absent:  # as where /proc is not mounted
    def __init__(self, name):
        self.name = name
    def iterdir(self):
        raise FileNotFoundError(self.name)
families = {socket.AF_UNIX, socket.AF_INET}
if "landlock" in sys.argv[2:]:
    landlock.restrict = lambda rules, ports: None
if "seccomp" in sys.argv[2:]:
    seccomp.restrict = lambda families: None
if "capabilities" in sys.argv[2:]:
    process._drop_capabilities = lambda: None
assert process.confine(rules, ports=[mine], families=families) == ()
"""
FILES = {
    "read a file elsewhere": 'Path("/etc/passwd").read_text()',
    "list a directory elsewhere": 'os.listdir("/etc")',
    "write what may be read": '(place / "read/new").write_text("x")',
    "write elsewhere": '(place / "elsewhere").write_text("x")',
    "use a path that came later": '(place / "absent").mkdir(); (place / "absent/x").write_text("x")',
    "leave by a link": '(place / "read/away").read_text()',
    "move a file out": '(place / "write/kept").rename(place / "kept")',
    "make a socket elsewhere": 'socket.socket(socket.AF_UNIX).bind(str(place / "s"))',
    "write a file among sockets": '(place / "sockets/file").write_text("x")',
    "open another device": 'open("/dev/zero", "rb")',
    "connect over the network": 'socket.create_connection(("127.0.0.1", port))',
    "listen at another port": 'socket.create_server(("127.0.0.1", 0))',
}
CALLS = {
    "execute a program": 'os.execv("/bin/true", ["true"])',
    "begin a process": "os.fork() or os._exit(0)",
    "begin a process by its newer name": "call(435, 0, 0)",
    "run a program": 'os.posix_spawn("/bin/true", ["true"], {})',
    "make a device": 'os.mknod(place / "write/null", 0o20666, os.makedev(1, 3))',
    "trace": "call(101, 0, 0, 0, 0)",
    "look into another's memory": "call(310, os.getpid(), 0, 0, 0, 0, 0)",
    "make a namespace": "call(272, 0x10000000)",
    "make a thread with a namespace": "call(56, 0x10010100, 0, 0, 0, 0)",
    "signal another": "os.kill(os.getppid(), 0)",
    "use another kind of socket": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "use IPv6, unasked": "socket.socket(socket.AF_INET6)",
    "type into the terminal": 'fcntl.ioctl(0, 0x5412, b"x")',
    "have memory to write and execute": "mmap.mmap(-1, 4096, prot=7)",
    "make memory executable": "call(10, 0, 0, 5)",
    "set a limit": 'limit = ctypes.create_string_buffer(struct.pack("=QQ", 99, 99)); call(302, 0, 7, ctypes.addressof(limit), 0)',
    "use io_uring": "call(425, 1, 0)",
    "add a key": "call(250, 0, 0, 0, 0, 0)",
    "load a module": "call(313, -1, 0, 0)",
    "load a BPF program": "call(321, 0, 0, 0)",
}
PERMITTED = {
    "read": '(place / "read/file").read_text() == "text" or 1 / 0',
    "list": 'os.listdir(place / "read")',
    "write, rename, remove": '(place / "write/a").write_text("x"); (place / "write/a").rename(place / "write/b"); (place / "write/b").unlink()',
    "make directories": '(place / "write/d").mkdir(); (place / "write/kept").rename(place / "write/d/kept"); os.truncate(place / "write/d/kept", 0)',
    "lock and sync": 'f = open(place / "write/l", "w"); fcntl.flock(f, fcntl.LOCK_EX); os.fsync(f.fileno())',
    "make sockets": 's = socket.socket(socket.AF_UNIX); s.bind(str(place / "sockets/s")); s.listen(); os.unlink(place / "sockets/s")',
    "connect to a socket's path": 'socket.socket(socket.AF_UNIX).connect(str(place / "listening"))',
    "listen at its port": 'socket.create_server(("127.0.0.1", mine))',
    "throw away": 'open("/dev/null", "w").write("x")',
    "begin a thread": "t = threading.Thread(target=lambda: done.append(1)); done = []; t.start(); t.join(); done[0]",
    "wait": "e = select.epoll(); e.register(listener, 1); e.poll(0.01)",
    "be random": "os.urandom(8)",
    "raise a signal in itself": "signal.signal(signal.SIGUSR1, lambda *_: None); signal.raise_signal(signal.SIGUSR1)",
    "look at limits": "resource.getrlimit(resource.RLIMIT_NOFILE)",
}  # fmt: skip


@pytest.fixture
def place(tmp_path):
    for name in ("read", "write", "sockets"):
        (tmp_path / name).mkdir()
    (tmp_path / "read/file").write_text("text")
    (tmp_path / "read/away").symlink_to("/etc/passwd")
    (tmp_path / "write/kept").write_text("kept")
    return tmp_path


def tried(place, text, *without):
    """What became of an attempt: `done`, or the error's number."""
    script = f"""{PRELUDE}
try:
    {text}
except OSError as error:
    os.write(1, str(error.errno).encode())
else:
    os.write(1, b"done")
"""
    return run(place, script, *without)


def run(place, script, *without):
    done = subprocess.run(
        [sys.executable, "-c", script, str(place), *without],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout or done.stderr


@pytest.mark.parametrize("what", FILES)
def test_files_and_ports_without_a_rule_are_out_of_reach(place, what):
    assert tried(place, FILES[what]) in {str(errno.EACCES), str(errno.EXDEV)}
    assert tried(place, FILES[what], "landlock") == "done"


@pytest.mark.parametrize("what", CALLS)
def test_calls_that_are_not_needed_fail(place, what):
    found = tried(place, CALLS[what])
    assert found in {str(errno.EPERM), str(errno.ENOSYS)}
    assert tried(place, CALLS[what], "seccomp", "landlock", "capabilities") != found


@pytest.mark.parametrize("what", PERMITTED)
def test_what_is_needed_works(place, what):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "listening"))
        listener.listen()
        assert tried(place, PERMITTED[what]) == "done"


def facts(place, *without):
    text = run(place, f"{PRELUDE}\nos.write(1, status.read())", *without)
    return dict(line.split(":\t") for line in text.splitlines() if ":\t" in line)


def test_no_capability_is_left_and_none_can_be_gained(place):
    found = facts(place)
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"] == "2"
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(found[name], 16) == 0
    if os.geteuid() == 0:
        assert int(facts(place, "capabilities")["CapEff"], 16) != 0


THREAD = "threading.Thread(target=threading.Event().wait, daemon=True).start()"


def outcome(place, before):
    """What `confine` says where something was changed before."""
    script = PRELUDE.replace("assert process", f"{before}\nsaid = process", 1).replace(" == ()", "")
    return run(place, f"{script}\nos.write(1, repr(said).encode())")


def test_what_a_kernel_has_not_is_told_and_the_rest_applied(place):
    assert outcome(place, "landlock.version = lambda: 0") == "('Landlock',)"
    assert outcome(place, "seccomp.is_known = lambda: False") == "('seccomp filters',)"
    without = "seccomp.platform.machine = lambda: 'aarch64'"
    assert outcome(place, without) == "('seccomp filters',)"


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("landlock._ADD = 9999", "ConfineError: landlock: Function not implemented"),
        ("rules[place / 'read/file/below'] = landlock.READ", "ConfineError: .*Not a directory"),
        ("seccomp._FILTER = 99", "ConfineError: seccomp: Invalid argument"),
        ("process._NO_NEW_PRIVILEGES = 9999", "ConfineError: no_new_privs: Invalid argument"),
        (THREAD, "ConfineError: 2 threads run already"),
        (f"{THREAD}; process.Path = Absent", "ConfineError: 2 threads run already"),
    ],
)
def test_what_a_kernel_has_and_refuses_is_an_error(place, before, said):
    assert re.search(said, outcome(place, before))
