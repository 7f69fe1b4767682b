"""The protocol descriptions that the broker was started with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.protocol.load import load_spec
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from pathlib import Path

    from broker.protocol.spec import Spec


def load_specs(directory: Path) -> dict[str, Spec]:
    """Every protocol description in a directory, by name.

    Raises:
        ProblemsError: one of them is not good, or there is no such directory.
    """
    problems: list[Problem] = []
    specs: dict[str, Spec] = {}
    if not directory.is_dir():
        problems.append(Problem(str(directory), 1, 1, "no such directory of descriptions"))
    for path in sorted(directory.glob("*.yaml")):
        try:
            spec = load_spec(path.read_bytes(), str(path))
        except ProblemsError as error:
            problems += error.problems
        except OSError as error:
            problems.append(Problem(str(path), 1, 1, str(error)))
        else:
            specs[spec.name] = spec
    if problems:
        raise ProblemsError(problems)
    return specs
