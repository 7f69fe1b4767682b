"""The Twisted client: every operation of the store, one or many at a time, on one connection.

Values are bytes, paths and names ASCII text, permissions as `("n0", "r1")`. Each function errbacks
with a `StoreError` (broker/xenstore/errors.py): the store's refusal, `InvalidError` for an
argument it would never take, `ConnectionLostError` when the connection ended first. The `…_many`
functions put a refusal in the list instead, in the place of the item it belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from twisted.internet import defer

from broker.xenstore import requests, wire
from broker.xenstore.errors import (
    AgainError,
    ConnectionLostError,
    DeniedError,
    NotFoundError,
    StoreError,
)
from broker.xenstore.pipeline import Pipeline
from broker.xenstore.transaction import ATTEMPTS, Transaction, run_transaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from twisted.internet.interfaces import IReactorTime

    from broker.xenstore.pipeline import Answer
    from broker.xenstore.requests import Request

_T = TypeVar("_T")
_DIRECTORY_ATTEMPTS: Final = 32
"""How often a long listing is begun anew because the node changed between its parts."""


class StoreConnection(Pipeline):
    """One connection to a store, over a unix socket or the xenbus device.

    `on_event(path, token)` is called for every watch event; `clock` times transaction retries.
    """

    def __init__(self, on_event: Callable[[str, str], None], clock: IReactorTime) -> None:
        super().__init__(on_event)
        self._clock = clock

    def read(self, path: str, tx: int = 0) -> defer.Deferred[bytes]:
        """A node's value."""
        return self._one(requests.read, path, tx=tx)

    def write(self, path: str, value: bytes, tx: int = 0) -> defer.Deferred[None]:
        """Set a node's value; the node and its parents are made as needed."""
        return self._one(requests.write, path, value, tx=tx).addCallback(_nothing)

    def mkdir(self, path: str, tx: int = 0) -> defer.Deferred[None]:
        """Make a node; one that exists keeps its value."""
        return self._one(requests.mkdir, path, tx=tx).addCallback(_nothing)

    def rm(self, path: str, tx: int = 0) -> defer.Deferred[None]:
        """Remove a node and all below it.

        A missing node is no error while its parent exists; `NotFoundError` otherwise.
        """
        return self._one(requests.rm, path, tx=tx).addCallback(_nothing)

    def directory(self, path: str, tx: int = 0) -> defer.Deferred[list[str]]:
        """The names of a node's children, however many."""
        return defer.Deferred.fromCoroutine(self._directory(path, tx))

    def get_perms(self, path: str, tx: int = 0) -> defer.Deferred[tuple[str, ...]]:
        """A node's permissions, the owner's first."""
        return self._one(requests.get_perms, path, tx=tx).addCallback(_permissions)

    def set_perms(self, path: str, permissions: Sequence[str], tx: int = 0) -> defer.Deferred[None]:
        """Replace a node's permissions."""
        return self._one(requests.set_perms, path, permissions, tx=tx).addCallback(_nothing)

    def watch(self, path: str, token: str) -> defer.Deferred[None]:
        """Watch a node and all below it, or a special name; fires once at registration."""
        return self._one(requests.watch, path, token).addCallback(_nothing)

    def unwatch(self, path: str, token: str) -> defer.Deferred[None]:
        """Drop a watch; events under way may still arrive."""
        return self._one(requests.unwatch, path, token).addCallback(_nothing)

    def reset_watches(self) -> defer.Deferred[None]:
        """Drop every watch and transaction of this connection's domain.

        On `/dev/xen/xenbus` that includes the kernel's own watches: for a ring one owns alone.
        """
        return self._one(requests.reset_watches).addCallback(_nothing)

    def get_domain_path(self, domid: int) -> defer.Deferred[str]:
        """A domain's home, `/local/domain/<domid>`."""
        answer = self._one(requests.of_domain, wire.GET_DOMAIN_PATH, domid)
        return answer.addCallback(_text)

    def is_domain_introduced(self, domid: int) -> defer.Deferred[bool]:
        """Whether the store knows the domain and it is not dead."""
        answer = self._one(requests.of_domain, wire.IS_DOMAIN_INTRODUCED, domid)
        return answer.addCallback(_truth)

    def introduce(self, domid: int, frame: int, port: int) -> defer.Deferred[None]:
        """Tell the store of a domain (domid 0 only)."""
        return self._one(requests.introduce, domid, frame, port).addCallback(_nothing)

    def release(self, domid: int) -> defer.Deferred[None]:
        """Have the store forget a domain (domid 0 only)."""
        answer = self._one(requests.of_domain, wire.RELEASE, domid)
        return answer.addCallback(_nothing)

    def resume(self, domid: int) -> defer.Deferred[None]:
        """Tell the store that a domain which had shut down runs again (domid 0 only)."""
        return self._one(requests.of_domain, wire.RESUME, domid).addCallback(_nothing)

    def set_target(self, domid: int, target: int) -> defer.Deferred[None]:
        """Give a stub domain the rights of `target` (domid 0 only)."""
        return self._one(requests.set_target, domid, target).addCallback(_nothing)

    def read_many(
        self, paths: Sequence[str], tx: int = 0
    ) -> defer.Deferred[list[bytes | StoreError]]:
        """The value of each node, or why not."""
        return self._many(((path,) for path in paths), requests.read, tx)

    def write_many(
        self, items: Sequence[tuple[str, bytes]], tx: int = 0
    ) -> defer.Deferred[list[StoreError | None]]:
        """Set each node's value: independent writes, in order; not a transaction."""
        return self._many(items, requests.write, tx).addCallback(_each(_nothing))

    def rm_many(self, paths: Sequence[str], tx: int = 0) -> defer.Deferred[list[StoreError | None]]:
        """Remove each node and all below it: independent removals, in order."""
        answers = self._many(((path,) for path in paths), requests.rm, tx)
        return answers.addCallback(_each(_nothing))

    def get_perms_many(
        self, paths: Sequence[str], tx: int = 0
    ) -> defer.Deferred[list[tuple[str, ...] | StoreError]]:
        """The permissions of each node, or why not."""
        answers = self._many(((path,) for path in paths), requests.get_perms, tx)
        return answers.addCallback(_each(_permissions))

    def directory_many(
        self, paths: Sequence[str], tx: int = 0
    ) -> defer.Deferred[list[list[str] | StoreError]]:
        """The names of each node's children, or why not."""
        return defer.Deferred.fromCoroutine(self._directory_many(paths, tx))

    def read_tree(
        self, path: str, *, unreadable: list[str] | None = None
    ) -> defer.Deferred[dict[str, bytes]]:
        """The value of every node of a subtree, by path, the top included.

        Nodes that vanish meanwhile or that may not be read are left out, with all below them;
        the paths of the latter are appended to `unreadable` if given. It is not one snapshot.
        """
        return defer.Deferred.fromCoroutine(self._read_tree(path, unreadable))

    def transaction(
        self, body: Callable[[Transaction], Awaitable[_T]], attempts: int = ATTEMPTS
    ) -> defer.Deferred[_T]:
        """Run `body` in a transaction, anew on each conflict: transaction.py has the rules."""
        return defer.Deferred.fromCoroutine(
            run_transaction(self, body, attempts=attempts, clock=self._clock)
        )

    def transact(
        self, changes: Sequence[Request], attempts: int = ATTEMPTS
    ) -> defer.Deferred[None]:
        """Make all of `changes` (from `requests`) or none, sent pipelined in one transaction.

        Errbacks with the first refusal of any of them, in which case nothing was changed.
        """

        async def body(transaction: Transaction) -> None:
            for answer in await self.request_many(changes, transaction.id):
                if isinstance(answer, StoreError):
                    raise answer

        return self.transaction(body, attempts)

    def _one(
        self, build: Callable[..., Request], *arguments: object, tx: int = 0
    ) -> defer.Deferred[bytes]:
        try:
            request = build(*arguments)
        except StoreError as error:
            return defer.fail(error)
        return self.request(request, tx)

    def _many(
        self, items: Iterable[tuple[object, ...]], build: Callable[..., Request], tx: int
    ) -> defer.Deferred[list[Answer]]:
        built: list[Request] = []
        refused: list[tuple[int, StoreError]] = []
        for arguments in items:
            try:
                built.append(build(*arguments))
            except StoreError as error:
                refused.append((len(built) + len(refused), error))
        answers = self.request_many(built, tx)
        return answers.addCallback(_with_refused, refused) if refused else answers

    async def _directory(self, path: str, tx: int) -> list[str]:
        (listing,) = await self._directory_many([path], tx)
        if isinstance(listing, StoreError):
            raise listing
        return listing

    async def _directory_in_parts(self, path: str, tx: int) -> list[str]:
        """A listing too long for one reply; begun anew when the node's generation changes."""
        for _ in range(_DIRECTORY_ATTEMPTS):
            listing, generation, done = b"", None, False
            while not done:
                part = await self._one(requests.directory_part, path, len(listing), tx=tx)
                seen, _, names = part.partition(b"\0")
                if generation not in (None, seen):
                    break
                generation = seen
                # The last part ends in an empty name; a part that says nothing would never end.
                done = names.endswith(b"\0\0") or names == b"\0"
                listing += names
                if not names or len(listing) > wire.MAX_REPLY:
                    raise StoreError("EIO", f"the listing of {path} does not end")
            if done:
                return [name for name in _names(listing) if name]
        raise AgainError("EAGAIN", f"{path} changed during each of its listings")

    async def _directory_many(
        self, paths: Sequence[str], tx: int = 0
    ) -> list[list[str] | StoreError]:
        answers = await self._many(((path,) for path in paths), requests.directory, tx)
        return [
            await self._listing(path, answer, tx)
            for path, answer in zip(paths, answers, strict=True)
        ]

    async def _listing(self, path: str, answer: Answer, tx: int = 0) -> list[str] | StoreError:
        """What an answer to DIRECTORY says, fetched in parts if that is what it says."""
        if isinstance(answer, bytes):
            return _names(answer)
        if answer.errno_name != "E2BIG":
            return answer
        try:
            return await self._directory_in_parts(path, tx)
        except ConnectionLostError:
            raise
        except StoreError as error:
            return error

    async def _read_tree(self, top: str, unreadable: list[str] | None) -> dict[str, bytes]:
        tree: dict[str, bytes] = {}
        level = [top]
        while level:
            asked = [(ask, path) for path in level for ask in (requests.read, requests.directory)]
            answers = await self._many(asked, _ask, 0)
            below: list[str] = []
            for path, value, answer in zip(level, answers[::2], answers[1::2], strict=True):
                names = await self._listing(path, answer)
                if isinstance(value, bytes) and isinstance(names, list):
                    tree[path] = value
                    prefix = "/" if path == "/" else f"{path}/"
                    below += [prefix + name for name in names]
                    continue
                error = value if isinstance(value, StoreError) else names
                if isinstance(error, DeniedError):
                    if unreadable is not None:
                        unreadable.append(path)
                elif isinstance(error, StoreError) and not isinstance(error, NotFoundError):
                    raise error
            level = below
        return tree


def _ask(build: Callable[[str], Request], path: str) -> Request:
    return build(path)


def _with_refused(answers: list[Answer], refused: list[tuple[int, StoreError]]) -> list[Answer]:
    for index, error in refused:
        answers.insert(index, error)
    return answers


def _each(
    convert: Callable[[bytes], _T],
) -> Callable[[list[Answer]], list[_T | StoreError]]:
    def convert_each(answers: list[Answer]) -> list[_T | StoreError]:
        return [it if isinstance(it, StoreError) else convert(it) for it in answers]

    return convert_each


def _nothing(_: bytes) -> None:
    return None


def _text(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode(wire.ENCODING)


def _truth(payload: bytes) -> bool:
    return payload.startswith(b"T")


def _names(payload: bytes) -> list[str]:
    names = payload.decode(wire.ENCODING).split("\0")
    if not names[-1]:
        names.pop()
    return names


def _permissions(payload: bytes) -> tuple[str, ...]:
    return tuple(_names(payload))
