"""What takes time to build, kept under build/testbed by a digest of what it is made from."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
WORK = ROOT / "build" / "testbed"
CACHE = WORK / "cache"


def say(text: str) -> None:
    """One line of progress."""
    print(f"testbed: {text}", flush=True)


def artifact(name: str, inputs: Iterable[str | Path], build: Callable[[Path], None]) -> Path:
    """The directory that `build` fills, built only if `inputs` (texts, files, trees) changed.

    An older one of the same name is removed.

    Raises:
        RuntimeError: a command of the build failed.
    """
    place = CACHE / f"{name}-{_digest(inputs)}"
    CACHE.mkdir(parents=True, exist_ok=True)
    # One builder at a time, of this or another run.
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place.exists():
            say(f"{name}: cached")
        else:
            _build(name, place, build)
    return place


def _build(name: str, place: Path, build: Callable[[Path], None]) -> None:
    say(f"{name}: building")
    start = time.monotonic()
    partial = CACHE / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    build(partial)
    for old in CACHE.glob(f"{name}-????????????"):
        shutil.rmtree(old)
    partial.rename(place)
    say(f"{name}: built in {time.monotonic() - start:.1f} s")


def command(
    words: Sequence[str | Path], *, cwd: Path | None = None, stdin: bytes | None = None
) -> bytes:
    """What a command said.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, input=stdin, capture_output=True, check=False
    )
    if done.returncode != 0:
        tail = (done.stderr or done.stdout).decode("utf-8", "replace")[-2000:]
        raise RuntimeError(f"{' '.join(map(str, words))}: exit {done.returncode}\n{tail}")
    return done.stdout


def files_below(top: Path) -> list[Path]:
    """Every file in a tree, sorted; without what Python and editors leave."""
    return sorted(
        path
        for path in top.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.endswith("~")
    )


def _digest(inputs: Iterable[str | Path]) -> str:
    total = hashlib.sha256()
    for it in inputs:
        if isinstance(it, str):
            total.update(f"text {it}\0".encode())
            continue
        for path in files_below(it) if it.is_dir() else [it]:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"file {path.name} {path.stat().st_mode & 0o777:o} {content}\0".encode())
    return total.hexdigest()[:12]
