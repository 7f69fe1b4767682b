"""The protocol descriptions that the broker was started with."""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from broker.protocol.monitor import Monitor
    from broker.protocol.spec import Spec

CHECKED: Final = "checked"
"""A file beside the descriptions, of an image that nobody changes: which ones need no look."""


class Description(msgspec.Struct, frozen=True):
    """A good description. `digest` is `sha256:<hex>` of its bytes, `monitor` made at first use."""

    digest: str
    monitor: Callable[[], Monitor]


def load_specs(directory: Path) -> dict[str, Spec]:
    """Every protocol description in a directory, by name.

    Raises:
        ProblemsError: one of them is not good, or there is no such directory.
    """
    problems: list[Problem] = []
    specs: dict[str, Spec] = {}
    for path, data in _read(directory, problems):
        try:
            spec = _load(data, str(path))
        except ProblemsError as error:
            problems += error.problems
        else:
            specs[spec.name] = spec
    if problems:
        raise ProblemsError(problems)
    return specs


def load_descriptions(directory: Path) -> dict[str, Description]:
    """Every protocol description in a directory, by name, for one that polices.

    One whose bytes are listed as checked is not read before it is used.

    Raises:
        ProblemsError: as `load_specs`.
    """
    checked = _checked(directory)
    problems: list[Problem] = []
    found: dict[str, Description] = {}
    for path, data in _read(directory, problems):
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        try:
            spec = None if digest in checked else _load(data, str(path))
        except ProblemsError as error:
            problems += error.problems
            continue
        name = checked[digest] if spec is None else spec.name
        monitor = functools.partial(_monitor, spec, data, str(path))
        found[name] = Description(digest, functools.cache(monitor))
    if problems:
        raise ProblemsError(problems)
    return found


def checked_lines(directory: Path) -> str:
    """What the file `CHECKED` says of a directory's descriptions: `sha256:<hex> name` each.

    Raises:
        ProblemsError: as `load_specs`.
    """
    specs = load_specs(directory)
    return "".join(f"{spec.digest} {name}\n" for name, spec in sorted(specs.items()))


def _checked(directory: Path) -> dict[str, str]:
    """Names of descriptions by their digest; nothing where nothing is said."""
    try:
        lines = (directory / CHECKED).read_text("ascii").splitlines()
    except (OSError, UnicodeError):
        return {}
    return {words[0]: words[1] for words in map(str.split, lines) if len(words) == 2}


def _read(directory: Path, problems: list[Problem]) -> Iterator[tuple[Path, bytes]]:
    if not directory.is_dir():
        problems.append(Problem(str(directory), 1, 1, "no such directory of descriptions"))
    for path in sorted(directory.glob("*.yaml")):
        try:
            yield path, path.read_bytes()
        except OSError as error:
            problems.append(Problem(str(path), 1, 1, str(error)))


def _load(data: bytes, source: str) -> Spec:
    # A third of the time that a description takes: for those who have to wait for it.
    from broker.protocol.load import load_spec  # noqa: PLC0415 - as said

    return load_spec(data, source)


def _monitor(spec: Spec | None, data: bytes, source: str) -> Monitor:
    from broker.protocol.monitor import Monitor  # noqa: PLC0415 - as above

    return Monitor(_load(data, source) if spec is None else spec)
