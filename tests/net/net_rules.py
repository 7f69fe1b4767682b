"""A policy for tests: pairs of names, and dom0."""

from __future__ import annotations


class FakeRules:
    bootstrap = "dom0"

    def __init__(self, pairs, uplinks=()):
        self.pairs = {frozenset(pair) for pair in pairs}
        self.names = sorted({name for pair in pairs for name in pair} | {"dom0"})
        self.uplinks = uplinks

    def alike(self, name):
        return name

    def frames(self, a, b):
        return frozenset((a, b)) in self.pairs
