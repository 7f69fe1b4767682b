"""What each operation of `io/xs_wire.h` does; errors are those of C xenstored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from broker.xenstore import wire
from broker.xenstore.errors import error_for
from broker.xenstore.store.domains import DOMID_SELF
from broker.xenstore.store.nodes import NodeOperations
from broker.xenstore.store.transactions import Transaction
from broker.xenstore.store.watches import Event, Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.xenstore.store.connections import Connection
    from broker.xenstore.store.store import EmbeddedStore

_OK: Final = b"OK\0"
_MAX_TRANSACTION_ID: Final = (1 << 32) - 1


class _Entry(NamedTuple):
    perform: Callable[[Connection, bytes], bytes]
    privileged: bool = False


def strings(payload: bytes, count: int) -> list[bytes]:
    """Exactly `count` strings, each with its NUL; InvalidError otherwise."""
    texts = payload.split(b"\0")
    if texts.pop() or len(texts) != count:
        raise error_for("EINVAL", f"{count} strings expected")
    return texts


def number(text: bytes) -> int:
    """A decimal number of 64 bits at most; InvalidError otherwise."""
    if not text.isdigit() or len(text) > 20:
        raise error_for("EINVAL", f"not a number: {text[:40]!r}")
    return int(text)


class Operations:
    """All operations, by number."""

    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self._nodes = NodeOperations(store)
        self._table: Final[dict[int, _Entry]] = {
            wire.CONTROL: _Entry(self._control, privileged=True),
            wire.WATCH: _Entry(self._watch),
            wire.UNWATCH: _Entry(self._unwatch),
            wire.RESET_WATCHES: _Entry(self._reset_watches),
            wire.GET_DOMAIN_PATH: _Entry(self._get_domain_path),
            wire.INTRODUCE: _Entry(self._introduce, privileged=True),
            wire.RELEASE: _Entry(self._release, privileged=True),
            wire.IS_DOMAIN_INTRODUCED: _Entry(self._is_domain_introduced, privileged=True),
            wire.RESUME: _Entry(self._resume, privileged=True),
            wire.SET_TARGET: _Entry(self._set_target, privileged=True),
        }

    def perform(self, connection: Connection, op: int, transaction: int, payload: bytes) -> bytes:
        """Carry out one request: the reply's payload.

        Raises:
            StoreError: the request is refused; nothing has changed.
        """
        operation = self._nodes.table.get(op)
        if operation is not None:
            if transaction == 0:
                return operation(connection, self._store.tree, payload)
            return operation(connection, self._transaction(connection, transaction), payload)
        if op == wire.TRANSACTION_START:
            return self._start(connection, transaction)
        if op == wire.TRANSACTION_END:
            return self._end(connection, transaction, payload)
        entry = self._table.get(op)
        if entry is None:
            raise error_for("ENOSYS", f"operation {op}")
        if entry.privileged and not connection.privileged:
            raise error_for("EACCES", f"domain {connection.domid} is not privileged")
        return entry.perform(connection, payload)

    # Transactions.

    def _transaction(self, connection: Connection, transaction: int) -> Transaction:
        found = connection.transactions.get(transaction)
        if found is None:
            raise error_for("ENOENT", f"no transaction {transaction}")
        return found

    def _start(self, connection: Connection, transaction: int) -> bytes:
        if transaction:
            self._transaction(connection, transaction)
            raise error_for("EBUSY", "a transaction within a transaction")
        quotas, max_nodes = self._store.quotas, 0
        if not connection.privileged:
            peers = self._store.peers(connection.domid)
            quotas.check_transactions(sum(len(peer.transactions) for peer in peers))
            max_nodes = quotas.transaction_nodes
        number = connection.last_transaction
        while number == 0 or number in connection.transactions:
            number = (number + 1) & _MAX_TRANSACTION_ID
        connection.last_transaction = (number + 1) & _MAX_TRANSACTION_ID
        connection.transactions[number] = Transaction(self._store.tree, max_nodes)
        return b"%d\0" % number

    def _end(self, connection: Connection, number: int, payload: bytes) -> bytes:
        if payload not in (b"T\0", b"F\0"):
            raise error_for("EINVAL", "a transaction ends with T or F")
        transaction = self._transaction(connection, number)
        del connection.transactions[number]
        try:
            if payload == b"T\0":
                if not connection.privileged:
                    domid = connection.domid
                    owned = self._store.tree.count_owned(domid)
                    self._store.quotas.check_commit(owned, transaction.count_owned(domid))
                for event in transaction.commit().values():
                    self._store.fire(self._nodes.seen_now(self._store.tree, event))
        finally:
            transaction.close()
        return _OK

    # Watches.

    def _watch(self, connection: Connection, payload: bytes) -> bytes:
        text, token = strings(payload, 2)
        path, prefix = connection.resolve_watch(text)
        if not connection.privileged:
            peers = self._store.peers(connection.domid)
            self._store.quotas.check_watches(sum(len(peer.watches) for peer in peers))
        watch = Watch(connection, path, token, prefix)
        self._store.watches.add(watch)
        connection.watches[path, token] = watch
        # The first event comes whether or not there is such a node, and tells nothing of it.
        watch.fire(path)
        return _OK

    def _unwatch(self, connection: Connection, payload: bytes) -> bytes:
        text, token = strings(payload, 2)
        path, _ = connection.resolve_watch(text)
        self._store.watches.remove(connection, path, token)
        del connection.watches[path, token]
        return _OK

    def _reset_watches(self, connection: Connection, _payload: bytes) -> bytes:
        self._store.reset(connection)
        return _OK

    # Domains.

    def _get_domain_path(self, _connection: Connection, payload: bytes) -> bytes:
        return b"/local/domain/%d\0" % number(strings(payload, 1)[0])

    def _introduce(self, _connection: Connection, payload: bytes) -> bytes:
        domid, _frame, port = [number(text) for text in strings(payload, 3)]
        if port == 0:
            raise error_for("EINVAL", "0 is no event channel")
        life = self._store.domains.begin(domid)
        if life.introduced:
            # The domain has rebooted in place; domain 0's sockets belong to its programs.
            for peer in self._store.peers(domid) if domid else ():
                self._store.reset(peer)
        else:
            life.introduced = True
            self._store.on_domain(domid, True)  # noqa: FBT003 - the callback's second word
            self._fire_special("@introduceDomain")
        return _OK

    def _release(self, _connection: Connection, payload: bytes) -> bytes:
        domid = self._domid(payload)
        if domid == 0:
            raise error_for("EINVAL", "domain 0 stays")
        self._store.domains.introduced(domid)
        self._store.disconnect(domid)
        self._nodes.remove_owned(domid)
        self._store.domains.end(domid)
        self._store.on_domain(domid, False)  # noqa: FBT003 - the callback's second word
        self._fire_special("@releaseDomain")
        return _OK

    def _is_domain_introduced(self, _connection: Connection, payload: bytes) -> bytes:
        domid = self._domid(payload)
        known = domid == DOMID_SELF or self._store.domains.is_introduced(domid)
        return b"T\0" if known else b"F\0"

    def _resume(self, _connection: Connection, payload: bytes) -> bytes:
        # Nothing here notices that a domain has shut down, so there is nothing to forget.
        self._store.domains.introduced(self._domid(payload))
        return _OK

    def _set_target(self, _connection: Connection, payload: bytes) -> bytes:
        domid, target = [number(text) for text in strings(payload, 2)]
        life = self._store.domains.introduced(domid)
        self._store.domains.introduced(target)
        life.target = target
        return _OK

    def _control(self, _connection: Connection, payload: bytes) -> bytes:
        """Nothing to control; `check` finds the tree consistent by its construction."""
        if payload.split(b"\0")[0] == b"check":
            return _OK
        raise error_for("EINVAL", "the only command is check")

    def _domid(self, payload: bytes) -> int:
        return number(strings(payload, 1)[0])

    def _fire_special(self, name: str) -> None:
        node = self._store.tree.get(name)
        if node is not None:
            self._store.fire(Event(name, exact=True, readable=(node.permissions,)))
