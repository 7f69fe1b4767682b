"""The filter's program, run here by an interpreter of the few instructions it has."""

from __future__ import annotations

import errno
import socket

from broker.confine.seccomp import ALLOWED, program

ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000
X86_64, I386 = 0xC000003E, 0x40000003
CODE = program([socket.AF_UNIX])


def judged(number, *arguments, machine=X86_64):
    """What the kernel would do with a call."""
    words = {0: number, 4: machine}
    for place, value in enumerate(arguments):
        words[16 + 8 * place] = value & 0xFFFFFFFF
        words[20 + 8 * place] = value >> 32
    at = held = 0
    while True:
        operation, true, false, value = CODE[at]
        at += 1
        match operation:
            case 0x20:
                held = words.get(value, 0)
            case 0x54:
                held &= value
            case 0x15:
                at += true if held == value else false
            case 0x35:
                at += true if held >= value else false
            case 0x06:
                return value


PARTLY = {"mmap": 9, "mprotect": 10, "ioctl": 16, "socket": 41, "clone": 56, "prlimit64": 302}


def test_exactly_what_is_listed_passes_whatever_its_arguments():
    for number in set(range(600)) - set(PARTLY.values()):
        expected = ALLOW if number in ALLOWED.values() else EPERM if number < 424 else ENOSYS
        for argument in (0, 1, 0xFFFFFFFF, 1 << 40):
            assert judged(number, *[argument] * 6) == expected, number


def test_no_number_is_listed_twice():
    assert len(set(ALLOWED.values())) == len(ALLOWED)
    assert not set(ALLOWED.values()) & set(PARTLY.values())


def test_calls_of_another_machine_or_numbering_end_the_process():
    assert judged(0, machine=I386) == KILL
    assert judged(0x40000000) == KILL
    assert judged(0x40000000 | 59) == KILL
    assert judged(0xFFFFFFFF) == KILL


def test_memory_is_never_to_be_written_and_executed():
    for protection in range(8):
        mapped = EPERM if protection & 6 == 6 else ALLOW
        assert judged(PARTLY["mmap"], 0, 4096, protection) == mapped
        changed = EPERM if protection & 4 else ALLOW
        assert judged(PARTLY["mprotect"], 0, 4096, protection) == changed


def test_a_thread_is_made_and_neither_process_nor_namespace():
    threads = 0x3D0F00  # as the C library makes them
    assert judged(PARTLY["clone"], threads) == ALLOW
    assert judged(PARTLY["clone"], 0x1200011) == EPERM  # as it forks
    for namespace in (0x80, 1 << 17, *(1 << bit for bit in range(25, 31))):
        assert judged(PARTLY["clone"], threads | namespace) == EPERM


def test_sockets_are_of_the_families_asked_for():
    assert [it for it in range(50) if judged(PARTLY["socket"], it) == ALLOW] == [socket.AF_UNIX]


def test_of_devices_only_harmless_things_are_asked():
    asked = [it for it in range(0x10000) if judged(PARTLY["ioctl"], 0, it) == ALLOW]
    assert [f"{it:x}" for it in asked] == ["5401", "5413", "541b", "5421", "5450", "5451"]


def test_limits_are_only_looked_at():
    assert judged(PARTLY["prlimit64"], 0, 7, 0, 4096) == ALLOW
    assert judged(PARTLY["prlimit64"], 0, 7, 4096, 0) == EPERM
