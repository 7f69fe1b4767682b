"""Filter profiles as texts and as a library, and what does not fit it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from broker.filters.bind import BindError, parse_bound, variables_of
from broker.filters.library import load_library
from broker.net.filters.holdable import unholdable
from broker.text.escape import escape
from broker.text.problems import ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from broker.core.definition import Attached
    from broker.filters.model import Library


class Profiles(msgspec.Struct, frozen=True):
    """The profiles in force: their exact bytes by name, and the library they make."""

    texts: Mapping[str, bytes]
    library: Library


def profiles_of(texts: Mapping[str, bytes]) -> Profiles:
    """The profiles of these texts, by name.

    Raises:
        ProblemsError: with everything that is wrong with them, or between them.
    """
    library = load_library({f"{name}.yaml": text for name, text in sorted(texts.items())})
    return Profiles(dict(texts), library)


def read_shipped(directory: Path) -> dict[str, bytes]:
    """The profiles that are shipped, by name, each checked.

    Raises:
        OSError: one cannot be read.
        ProblemsError: one is not good.
    """
    found = {path.stem: path.read_bytes() for path in sorted(directory.glob("*.yaml"))}
    problems = unholdable(profiles_of(found).library)
    if problems:
        raise ProblemsError(problems)
    return found


def includes(library: Library, used: str, name: str) -> bool:
    """Whether a profile that is used is the one of that name, or comes to it by includes."""
    if used not in library.profiles:
        return False
    return any(profile.name == name for profile in library.closure([used]))


def misfit(library: Library, entry: Attached) -> Iterator[str]:
    """Why an attachment does not fit these profiles, in words."""
    try:
        declared = variables_of(library, [entry.profile])
    except BindError as error:
        yield f"{entry.where}: {error}"
        return
    for name, values in entry.given.items():
        variable = declared.get(name)
        if variable is None:
            yield f"{entry.where}: profile {entry.profile} has no variable {escape(name, 40)}"
            continue
        try:
            parse_bound(variable, values)
        except BindError as error:
            yield f"{entry.where}: {error}"
