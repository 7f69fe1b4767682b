"""Any bytes as what a channel's two directories show: the monitor never fails, nor grows.

An input is a class; then changes: a side, a key, a value, and how much time passes before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from support.specs import CLASSES, monitor, spec

from broker.protocol.conditions import SIDES
from broker.protocol.parties import Party
from tools.fuzz.expected import UnexpectedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.protocol.spec import Spec

_PARTIES = frozenset(get_args(Party))
_NUMBERS = [str(number).encode() for number in (*range(9), 17, 4096, 2**32 - 1, 2**32, 2**64)]
_OTHERS = [b"", b"-1", b"connected", b"x" * 600, b"\xff\x00", b"1,2", b"00:16:3e:00:00:01"]
_LONGEST = 200
"""Steps of one life."""


def _keys(side: str, described: Spec) -> list[str]:
    """The names a side's directory may hold: all its keys, two of each that is numbered."""
    form = getattr(described.form, side)
    names = ["state", *form.keys, "not-described"]
    for group in form.groups.values():
        names += [key.replace("{}", str(number)) for key in group.keys for number in (0, 1)]
    return list(dict.fromkeys(map(str, names)))


_KEYS = {name: [_keys(side, spec(name)) for side in SIDES] for name in CLASSES}


def _values(name: str) -> list[bytes]:
    examples = spec(name).form.examples.values()
    likely = sorted({str(text).encode() for one in examples for text in one.values()})
    return [*_NUMBERS, *_OTHERS, *likely]


_VALUES = {name: _values(name) for name in CLASSES}


def run(data: bytes) -> None:
    """Show the monitor what `data` says.

    Raises:
        UnexpectedError: nobody that exists was blamed, or evidence could not be printed.
    """
    if not data:
        return
    name = CLASSES[data[0] % len(CLASSES)]
    judge, keys, values = monitor(name), _KEYS[name], _VALUES[name]
    life, now = judge.begin(), 0.0
    shown: list[dict[str, bytes]] = [{}, {}]
    for at in range(1, min(len(data) - 3, _LONGEST * 4), 4):
        how, which, what, wait = data[at : at + 4]
        side = how & 1
        key = keys[side][which % len(keys[side])]
        now += wait * wait / 64
        # A snapshot is kept by the monitor, so every one is new.
        fresh = {held: value for held, value in shown[side].items() if held != key}
        if how & 6:
            fresh[key] = values[what % len(values)] if how & 8 else bytes((what,))
        shown[side] = {} if how & 0xF0 == 0xF0 else fresh
        life, found = judge.step(life, now, shown[0], shown[1])
        for one in found:
            if one.party not in _PARTIES or not one.evidence.isascii():
                raise UnexpectedError(str(one))


def seeds() -> Iterator[bytes]:
    """Both ends walking through the states, for every class."""
    for number in range(len(CLASSES)):
        walk = ((0, 1), (1, 1), (1, 2), (0, 3), (1, 4), (0, 4), (0, 5), (1, 5), (0, 6), (1, 6))
        steps = (bytes((10 | side, 0, state, 4)) for side, state in walk)
        yield bytes((number,)) + b"".join(steps)


def words() -> Iterator[bytes]:
    """A state of each end, written."""
    for side in (0, 1):
        for state in range(9):
            yield bytes((10 | side, 0, state, 1))
