"""The console's files, and what a browser may ask for: reading alone, and from the console alone.

Scripts and styles are the package's own, and the headers let a page load nothing else. A browser
sends the client's certificate wherever a page leads it; so a call that another site made it send
is refused, and one that changes something as well.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from broker import console
from broker.rpc.errors import RpcError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from broker.rpc.admin import Caller
    from broker.rpc.table import Method

HOME: Final = b"/console/"
CALLER: Final = HOME + b"caller.json"
"""Who the browser's certificate stands for."""

HEADERS: Final = (
    (
        b"Content-Security-Policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
            b"img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
            b"require-trusted-types-for 'script'; trusted-types 'none'"
        ),
    ),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Cross-Origin-Opener-Policy", b"same-origin"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    (b"Permissions-Policy", b"camera=(), geolocation=(), microphone=()"),
)
KINDS: Final = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
"""The files that are served, by how their names end: no others need be there."""
_INDEX: Final = "index.html"
_ASK_AGAIN: Final = b"no-store"
_FOR_GOOD: Final = b"private, max-age=31536000, immutable"


class Asset(msgspec.Struct, frozen=True):
    """One file: its bytes, its media type, and how long a browser may keep it."""

    body: bytes
    kind: bytes
    keep: bytes


@cache
def assets() -> dict[bytes, Asset]:
    """The console's files by the path they are served at.

    All but the page itself are below a directory named by what they hold, so that a browser asks
    for them once, and never mixes two versions.
    """
    # Beside its module also where that is not in a directory: tools/minidomain/modules.py.
    directory = Path(console.__file__).parent
    files = {name: (body, kind) for name, body, kind in _files(directory, "")}
    page, kind = files.pop(_INDEX)
    digest = hashlib.sha256()
    for name, (body, _) in sorted(files.items()):
        digest.update(b"%b %d\n%b" % (name.encode("ascii"), len(body), body))
    home = HOME + digest.hexdigest()[:16].encode("ascii") + b"/"
    page = page.replace(b'"' + HOME, b'"' + home)
    return {HOME: Asset(page, kind, _ASK_AGAIN)} | {
        home + name.encode("ascii"): Asset(body, kind, _FOR_GOOD)
        for name, (body, kind) in files.items()
    }


def _files(directory: Path, path: str) -> Iterator[tuple[str, bytes, bytes]]:
    for entry in directory.iterdir():
        name = entry.name
        if entry.is_dir():
            yield from _files(entry, f"{path}{name}/")
        elif (kind := KINDS.get(name[name.rfind(".") :])) is not None:
            yield path + name, entry.read_bytes(), kind


def who_calls(caller: Caller) -> bytes:
    """The caller, as JSON."""
    return msgspec.json.encode({"subject": caller.subject, "role": caller.role})


def check_browser(header: Callable[[bytes], bytes | None], method: Method) -> None:
    """Let a call pass that no browser made, or the console in one to read.

    Raises:
        RpcError: `denied`: another site made the browser call, or the call changes something.
    """
    site, origin = header(b"Sec-Fetch-Site"), header(b"Origin")
    if site is None and origin is None:
        return
    # A browser that does not say where a call is from says its origin at least.
    own = (
        origin == b"https://" + (header(b"Host") or b"") if site is None else site == b"same-origin"
    )
    if not own:
        raise RpcError("denied", "another site made this browser call; nothing was done")
    if method.writes:
        raise RpcError("denied", f"browsers only read; use brokerctl for {method.name}")
