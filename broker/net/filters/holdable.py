"""Whether profiles can be held in the kernel, told where they are written and not by an agent.

Agents hold all profiles of their vifs in one transaction: one of them that cannot be held would
keep the others from being updated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.filters.bind import variables_of
from broker.filters.check import problem_at
from broker.net.filters.compile import FilterError
from broker.net.filters.programs import Programs
from broker.net.model import PortFilter

if TYPE_CHECKING:
    from broker.filters.model import Library, VariableType
    from broker.text.problems import Problem

_ANY: Final[dict[VariableType, str]] = {
    "mac": "02:00:00:00:00:01",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "port": "1",
    "vlan": "1",
    "ethertype": "0x88b5",
    "protocol": "253",
    "rate": "1/second",
}
"""Some value of each type: rules are the same for all, but for ranges."""


def unholdable(library: Library) -> list[Problem]:
    """What is asked for in these profiles that no agent can hold, each at its place."""
    programs = Programs(library)
    found: dict[str, Problem] = {}
    for name, profile in sorted(library.profiles.items()):
        given: dict[str, tuple[str, ...]] = {
            variable.name: (_ANY[variable.type],)
            for variable in variables_of(library, [name]).values()
            if variable.default is None
        }
        try:
            programs.vif(PortFilter((name,), given))
        except FilterError as error:
            where = error.where or profile.default_where
            found[str(error)] = problem_at(where, error.message)
    return list(found.values())
