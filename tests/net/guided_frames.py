"""Frames that bring out every difference that a profile makes between frames, as far as found.

Random frames seldom meet a rule that asks five things at once. Here those that meet other matches
than all before are kept, and new ones are made of their parts.
"""

from __future__ import annotations

import random

from filter_frames import ADDRESSES, ADDRESSES6, PORTS, SOURCES, TARGETS, Maker, ip4, ip6
from net_rig import raw

from broker.filters.bind import bind
from broker.filters.evaluate import Asking, group_matches
from broker.filters.fields import FIELDS
from broker.filters.frame import Frame, Missing

_TARGETS = [raw(it) for it in (*TARGETS, "33:33:00:00:00:02")]
_WORDS = (
    *map(raw, SOURCES), *map(ip4, ADDRESSES), *map(ip6, ADDRESSES6), bytes(4), bytes(6),
    *(it.to_bytes(2, "big") for it in (*PORTS, 0x0101, 0x0201, 0x0E01)),
    *(bytes([it]) for it in (1, 2, 3, 6, 17, 44, 58, 64, 133, 134, 135, 136, 137, 255)),
)  # fmt: skip
_TAGS = (b"\x81\x00", b"\x88\xa8")


def guided(library, names, variables, *, rounds, seed=0):
    """Frames of which no two meet the same matches of these profiles, in the order found."""
    made = random.Random(f"{seed} {names}")
    environment, _ = bind(library, names, {k: tuple(v) for k, v in variables.items()})
    closure = library.closure(names)
    groups = [(rule, it) for profile in closure for rule in profile.rules() for it in rule.groups()]
    asking = Asking(library, environment, "from-guest", Frame(b""))

    def met(data):
        asking.frame = frame = Frame(data)
        read = (frame.field(name) for name in FIELDS)
        return (
            *(it if isinstance(it, Missing) else None for it in read),
            *(group_matches(asking, rule, group) for rule, group in groups),
        )

    maker = Maker(made)
    found = {}
    for frame in maker.frames(rounds // 4):
        found.setdefault(met(frame), frame)
    for _ in range(rounds):
        frame = _changed(made, list(found.values()))
        found.setdefault(met(frame), frame)
    return list(dict.fromkeys(found.values()))


def _changed(made, known):
    frame = bytearray(made.choice(known))
    for _ in range(made.choice((1, 1, 2))):
        at = made.randrange(0, max(1, min(len(frame), 90)))
        if made.random() < 0.5:
            other = made.choice(known)[at : at + made.choice((2, 4, 8, 16, 40))]
            frame[at : at + len(other)] = other
        else:
            word = made.choice(_WORDS)
            frame[at : at + len(word)] = word
    # A bridge passes stations' frames alone, to where the hearer is.
    if bytes(frame[6:12]) not in map(raw, SOURCES):
        frame[6:12] = raw(made.choice(SOURCES))
    if bytes(frame[:6]) not in _TARGETS:
        frame[:6] = made.choice(_TARGETS)
    frame += bytes(max(0, 14 - len(frame)))
    # A tag whose inside is not there at all is thrown away before any hook.
    return bytes(frame) + bytes(24) if frame[12:14] in _TAGS and len(frame) < 24 else bytes(frame)
