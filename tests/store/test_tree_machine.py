"""The tree, and transactions over it, against a plain dict of paths."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.xenstore.errors import AgainError, NotFoundError
from broker.xenstore.store.store import EmbeddedStore

NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=3)
PATHS = NAMES.map(lambda names: "/" + "/".join(names))
VALUES = st.binary(max_size=4)


class Model:
    """Nodes by path; a snapshot is a copy."""

    def __init__(self, nodes=None):
        self.nodes = dict(nodes or {"/": b""})

    def write(self, path, value):
        parts = path.split("/")
        for end in range(2, len(parts)):
            self.nodes.setdefault("/".join(parts[:end]), b"")
        self.nodes[path] = value

    def rm(self, path):
        for one in [it for it in self.nodes if it == path or it.startswith(path + "/")]:
            del self.nodes[one]

    def children(self, path):
        base = "" if path == "/" else path
        return {
            it[len(base) + 1 :] for it in self.nodes if it != "/" and it.rpartition("/")[0] == base
        }


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.store = EmbeddedStore()
        self.client = self.store.connect()
        self.client.rm("/tool")
        self.model = Model()
        self.tx = 0
        self.inside = None
        self.wrote = False
        self.disturbed = False

    @rule(path=PATHS, value=VALUES)
    def write(self, path, value):
        self.client.write(path, value)
        self.model.write(path, value)
        self.disturbed = True

    @rule(path=PATHS)
    def remove(self, path):
        parent = path.rpartition("/")[0] or "/"
        if parent in self.model.nodes:
            self.client.rm(path)
        else:
            with pytest.raises(NotFoundError):
                self.client.rm(path)
        self.model.rm(path)
        self.disturbed = True

    @precondition(lambda self: not self.tx)
    @rule()
    def start(self):
        self.tx = self.client.start()
        self.inside = Model(self.model.nodes)
        self.disturbed = False

    @precondition(lambda self: self.tx)
    @rule(path=PATHS, value=VALUES)
    def write_inside(self, path, value):
        self.client.write(path, value, self.tx)
        self.inside.write(path, value)

    @precondition(lambda self: self.tx)
    @rule(path=PATHS)
    def remove_inside(self, path):
        if (path.rpartition("/")[0] or "/") in self.inside.nodes:
            self.client.rm(path, self.tx)
        self.inside.rm(path)

    @precondition(lambda self: self.tx)
    @rule(path=PATHS)
    def read_inside(self, path):
        if path in self.inside.nodes:
            assert self.client.read(path, self.tx) == self.inside.nodes[path]
            assert set(self.client.directory(path, self.tx)) == self.inside.children(path)
        else:
            with pytest.raises(NotFoundError):
                self.client.read(path, self.tx)

    @precondition(lambda self: self.tx)
    @rule(commit=st.booleans())
    def end(self, commit):
        tx, self.tx = self.tx, 0
        try:
            self.client.end(tx, commit=commit)
        except AgainError:
            assert self.disturbed
        else:
            if commit and not self.disturbed:
                self.model = self.inside
            elif commit:
                # It did not depend on what changed: laid over the changes, it comes out the same.
                self.model = Model(self.contents())

    @invariant()
    def same(self):
        assert self.contents() == self.model.nodes

    @invariant()
    def no_past_without_a_snapshot(self):
        if not self.tx:
            assert not self.store.tree._past
            assert not self.store.tree._snapshots

    def contents(self):
        found, waiting = {}, ["/"]
        while waiting:
            path = waiting.pop()
            found[path] = self.client.read(path)
            base = "" if path == "/" else path
            waiting += [f"{base}/{name}" for name in self.client.directory(path)]
        return found


TestTree = Machine.TestCase
TestTree.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
