"""Values for simulated ends: good ones of a type, others, and bad ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.protocol.check_keys import bounds_of
from broker.protocol.values import MAX_VALUE, RANGES

if TYPE_CHECKING:
    from broker.protocol.form import KeyForm

SAMPLES: Final = {
    "bool": "1",
    "text": "some-text",
    "bytes": "some bytes",
    "path": "/some/path",
    "mac": "00:16:3e:00:00:02",
    "uuid": "00000000-0000-4000-8000-000000000001",
    "devno": "7:1",
    "bdf": "0000:00:01.0",
    "bus": "0000:00",
    "hex": "10",
    "hctl": "0:0:1:0",
    "size": "640x480",
    "xenbus-state": "4",
    "list": "1",
}
"""A value of each type that has no bounds or words to take one from."""
_OTHERS: Final = {
    "bool": "0",
    "text": "other-text",
    "bytes": "other bytes",
    "path": "/other/path",
    "mac": "00:16:3e:00:00:03",
    "uuid": "00000000-0000-4000-8000-000000000002",
    "devno": "7:2",
    "bdf": "0000:00:02.0",
    "bus": "0000:01",
    "hex": "11",
    "hctl": "0:0:2:0",
    "size": "800x601",
    "xenbus-state": "5",
    "list": "9",
}
_BAD: Final = {"text": "\x07", "bytes": "x" * (MAX_VALUE + 1), "path": "a b", "list": "a b"}


def sample(key: KeyForm) -> str:
    """A value of a key's type: what the description gives as one, or the lowest."""
    if key.example is not None:
        return str(key.example)
    if key.values:
        return str(key.values[0])
    if key.type in RANGES:
        return str((bounds_of(key) or RANGES[key.type])[0])
    return SAMPLES[key.type]


def other_value(key: KeyForm, value: str, fresh: str) -> str | None:
    """Another good value than `value`; `fresh` where it is one. None: there is no other."""
    if fresh != value:
        return fresh
    if key.type in RANGES:
        low, high = bounds_of(key) or RANGES[key.type]
        doubled = int(value) * 2 if key.power_of_two else int(value) + 1
        return str(doubled) if low <= doubled <= high else str(low)
    others = [str(it) for it in key.values if it != value]
    if key.values:
        return others[0] if others else None
    return SAMPLES[key.type] if value != SAMPLES[key.type] else _OTHERS[key.type]


def bad_values(key: KeyForm) -> list[str]:
    """Values that are none of this key's."""
    if key.type not in RANGES:
        return [_BAD.get(key.type, "banana"), "x" * (MAX_VALUE + 1)]
    low, high = bounds_of(key) or RANGES[key.type]
    below = [str(low - 1)] if low else ["-1"]
    return ["banana", "", str(high + 1), *below, *(["3"] if key.power_of_two else [])]
