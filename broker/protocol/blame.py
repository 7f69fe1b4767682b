"""Who is in error, and what shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.protocol.conditions import SIDES
from broker.text.escape import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.protocol.conditions import Keys
    from broker.protocol.fields import Field
    from broker.protocol.parties import Party
    from broker.protocol.rule import Name, Rule

_SHOWN: Final = 60
_MOST_SHOWN: Final = 4


def blamed(rule: Rule, old: tuple[Keys, int, Keys, int], new: tuple[Keys, int, Keys, int]) -> Party:
    """Whose change broke a rule: the keeper's, unless it holds without the other end's change."""
    if rule.party not in SIDES:
        return rule.party
    front, f, back, b = new
    if rule.party == SIDES[0]:
        alone = rule.masks[0] >> f & 1 and rule.broken(front, old[2], f, old[3])
        return "frontend" if alone else "backend"
    alone = rule.masks[1] >> b & 1 and rule.broken(old[0], back, old[1], b)
    return "backend" if alone else "frontend"


def written_by(
    party: Party, keys: Iterable[Name], changed: set[Name], writers: Mapping[Name, str]
) -> Party:
    """The party, corrected by who is known to have made the changes."""
    known = {writers[key] for key in keys if key in changed and key in writers}
    if not known or party in known or party == "both":
        return party
    ends = [side for side in SIDES if side in known]
    if len(ends) == 1:
        return "frontend" if ends[0] == SIDES[0] else "backend"
    return "undetermined"


def evidence(
    side: int, keys: Iterable[str], directory: Keys, fields: Mapping[str, Field], says: str
) -> str:
    """What shows a violation, in printable ASCII; secrets are left out."""
    shown = [_shown(key, directory, fields) for key in sorted(keys)]
    cut = f" and {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else ""
    listed = ", ".join(shown[:_MOST_SHOWN])
    return f"{SIDES[side]} {listed}{cut}: {says}"


def _shown(key: str, directory: Keys, fields: Mapping[str, Field]) -> str:
    value = directory.get(key)
    if value is None:
        return f"{escape(key, _SHOWN)} (absent)"
    field = fields.get(key)
    if field is not None and field.secret:
        return f"{escape(key, _SHOWN)} (secret)"
    return f"{escape(key, _SHOWN)}={escape(value, _SHOWN)}"
