"""The Chinese Wall: who may run beside whom, from the labels running now; there is no history.

A domain may run iff no conflict set holds one of its types and a different type of a running
domain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.core.masks import Numbering

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.core.definition import Label


class ChineseWall:
    """The conflict sets of a policy, and what each label may not meet."""

    def __init__(
        self,
        types: Iterable[str],
        conflict_sets: Mapping[str, tuple[str, ...]],
        labels: Iterable[Label],
    ) -> None:
        self._types = Numbering(types)
        self._sets = {name: self._types.mask(members) for name, members in conflict_sets.items()}
        self._own: dict[str, int] = {}
        self._enemies: dict[str, int] = {}
        for label in labels:
            own = self._types.mask(label.chinese_wall)
            enemies = 0
            for members in self._sets.values():
                if own & members:
                    enemies |= members & ~own
            self._own[label.name] = own
            self._enemies[label.name] = enemies

    def conflicts(self, running: Iterable[str], label: str) -> list[str]:
        """Why `label` may not run beside `running`; nothing when it may.

        Raises:
            KeyError: a label the policy does not have.
        """
        enemies, own = self._enemies[label], self._own[label]
        texts = []
        for other in dict.fromkeys(running):
            met = self._own[other] & enemies
            if not met:
                continue
            for name, members in self._sets.items():
                if own & members and met & members:
                    mine = ", ".join(self._types.named(own & members))
                    theirs = ", ".join(self._types.named(met & members))
                    texts.append(
                        f"conflict set {name}: {label} has {mine}, {other} is running and has "
                        f"{theirs}"
                    )
        return texts
