"""Any bytes as what a store sends, and as paths: taken alike however split, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.xenstore import paths, wire
from tools.fuzz.expected import UnexpectedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PLACES = (paths.DECISIONS, paths.REPORTS, paths.FILTERS)


def run(data: bytes) -> None:
    """Decode `data` whole and in parts; read its strings as paths.

    Raises:
        UnexpectedError: the way it was split made a difference, or a path reads otherwise than
            it is written.
    """
    if not data:
        return
    whole, parts = _decoded([data[1:]]), _decoded(_split(data[1:], data[0] % 23 + 1))
    if whole != parts:
        raise UnexpectedError(f"{whole} whole and {parts} in parts")
    for _, _, _, payload in whole[0]:
        for string in wire.split_strings(payload):
            _path(string.decode(wire.ENCODING))


def _split(data: bytes, size: int) -> Sequence[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _decoded(parts: Sequence[bytes]) -> tuple[list[wire.Message], bool]:
    """The messages, and whether the stream was refused in the end."""
    decoder, found = wire.Decoder(), list[wire.Message]()
    for part in parts:
        try:
            for message in decoder.receive_data(part):
                found.append(message)
        except wire.FrameError:
            return found, True
    return found, False


def _path(text: str) -> None:
    for top in _PLACES:
        parsed = paths.parse_channel(top, text)
        if parsed is not None and not text.startswith(f"{top}/{parsed[0].backend}/"):
            raise UnexpectedError(f"{text!a} is read as {parsed[0]}")
    found = paths.parse_backend_dir(text)
    if found is not None and paths.backend_dir(*found) != text:
        raise UnexpectedError(f"{text!a} is read as {found}")
    try:
        written = wire.check_path(text) if text else b""
    except ValueError:
        return
    if written.decode(wire.ENCODING) != text:
        raise UnexpectedError(f"{text!a} is sent as {written!a}")


def seeds() -> Iterator[bytes]:
    """Requests, answers and events as they are sent."""
    channel = paths.Channel(0, "vif", 7, "0")
    names = [
        paths.decision_path(channel),
        f"{paths.report_dir(channel)}/nonce",
        paths.filter_path(channel),
        paths.backend_dir(0, "vif", 7, "0"),
        paths.frontend_dir(7, "vif", "0"),
        paths.domain_dir(7),
        "@releaseDomain",
    ]
    operations = (wire.READ, wire.WATCH_EVENT, wire.DIRECTORY, wire.ERROR)
    for number, name in enumerate(names):
        frames = [wire.encode(it, 1, 0, name.encode() + b"\0token\0") for it in operations]
        yield bytes((number,)) + b"".join(frames)
        yield bytes((number,)) + frames[number % 4] + b"\xff" * 16


def words() -> Iterator[bytes]:
    """Parts of paths, and headers."""
    for operation in range(23):
        yield wire.encode(operation, 0, 0, b"12345678")
    yield from (b"/local/domain/", b"/broker/v1/", b"/backend/", b"/vif/", b"/0", b"4294967295")
