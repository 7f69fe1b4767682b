"""The protocol descriptions of a directory, as the `spec` commands read them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.cli import offline
from broker.text.escape import escape
from broker.text.problems import Problem, ProblemsError

if TYPE_CHECKING:
    from broker.cli.groups import Parser
    from broker.protocol.spec import Spec

SHIPPED: Final = Path(__file__).parents[2] / "protocol_specs"
"""Those that came with brokerctl."""


def add_directory(leaf: Parser) -> None:
    """Let a command take `--specs`."""
    leaf.add_argument(
        "--specs",
        metavar="DIR",
        type=Path,
        default=SHIPPED,
        help="where they are (default: those that came with brokerctl)",
    )


def add_class(leaf: Parser, *, required: bool) -> None:
    """Let a command take `--class` and `--specs`."""
    what = "the class, like vif" if required else "one class alone, like vif"
    leaf.add_argument("--class", metavar="CLASS", dest="device_class", required=required, help=what)
    add_directory(leaf)


def load_all(directory: Path) -> tuple[list[Spec], list[Problem]]:
    """The good descriptions of a directory, and what is wrong with the others."""
    from broker.protocol.load import load_spec  # noqa: PLC0415 - as in offline.policy

    specs: list[Spec] = []
    problems: list[Problem] = []
    paths = sorted(directory.glob("*.yaml"))
    if not paths:
        problems.append(Problem(str(directory), 1, 1, "no description (*.yaml) in this directory"))
    for path in paths:
        try:
            spec = load_spec(offline.read(path), str(path))
        except ProblemsError as error:
            problems += error.problems
            continue
        if spec.name != path.stem:
            said = f"describes '{spec.name}', so it must be called {spec.name}.yaml"
            problems.append(Problem(str(path), 1, 1, said))
        specs.append(spec)
    return specs, problems


def described(directory: Path, name: str) -> Spec:
    """The description of the class `name`.

    Raises:
        ProblemsError: there is none, or it is bad.
    """
    from broker.protocol.load import load_spec  # noqa: PLC0415 - as in offline.policy

    # Looked for among the files that are there: the name is never made into a path.
    paths = {path.stem: path for path in directory.glob("*.yaml")}
    if name not in paths:
        known = ", ".join(sorted(paths)) or "none"
        said = f"no description of '{escape(name, 60)}' in this directory; there are: {known}"
        raise ProblemsError([Problem(str(directory), 1, 1, said)])
    return load_spec(offline.read(paths[name]), str(paths[name]))
