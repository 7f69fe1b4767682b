"""kill -9 at random instants, while domains come and go and are relabelled and disks are swapped.

`Chaos` drives one `Product`: its processes are killed wherever they are, also while they start, and
started again; after each kill all that must hold is read from xenstore, gates and audit log.
"""

from __future__ import annotations

import random
from collections import Counter

from twisted.internet import reactor, task

from broker.sim.toolstack import vbd, vif
from support.product import mac

VERDICTS = {"red": ("grant", "grant"), "jailed": ("deny", "deny"), "blue": ("grant", "deny")}
"""What a domain of each label gets of a vif and a red disk."""
_DOMAINS = 3
_LONGEST = 0.6
"""Seconds until a kill: what most changes take to come true."""
_VICTIMS = (("brokerd",), ("agent",), ("brokerd", "agent"))


class Chaos:
    """So many kills of a running product; alike for each `seed`, but for the processes' own pace.

    `kills` and `restarts` count by process, `rests` how often all was seen to come true;
    `told(line)` hears of the progress.
    """

    def __init__(self, product, seed, told=lambda _line: None):
        self.kills = Counter()
        self.restarts = Counter()
        self.rests = 0
        self._product = product
        self._dice = random.Random(seed)
        self._told = told
        self._labels = {}
        self._made = 0

    async def run(self, kills):
        """Kill so often, then see that all comes true.

        Raises:
            AssertionError: something that must hold did not, or did not come about.
        """
        for _ in range(_DOMAINS):
            await self._create()
        while sum(self.kills.values()) < kills:
            await self._product.enforcing()
            await self._disturb()
            await self._kill()
            self._product.check()
            if self._dice.random() < 0.1:
                await self._rest()
            self._told(self.summary())
        await self._rest()
        await self._product.clear()
        self._product.check()

    def summary(self):
        """What happened so far, in one line."""
        audit, moves = self._product.audit, self._product.monitor.moves
        verdicts = Counter(it.record.verdict for it in audit.by_text.values())
        opened = sum(move.open for move in moves)
        return (
            f"{sum(self.kills.values())} kills ({_counted(self.kills)}), "
            f"{sum(self.restarts.values())} restarts, {self._made} domains, "
            f"{verdicts['grant']} grants and {verdicts['deny']} denials audited, "
            f"gates seen to open {opened} and to close {len(moves) - opened} times, "
            f"at rest {self.rests} times"
        )

    async def _create(self):
        self._made += 1
        label = self._dice.choice(list(VERDICTS))
        devices = vif(0, mac(self._made, 0)), vbd(51712, f"/dev/vg/red-{self._made}")
        domain = await self._product.create(*devices, label=label)
        self._labels[domain] = label

    async def _disturb(self):
        """Some of what operators and toolstacks do, all of it under way at once."""
        product, dice = self._product, self._dice
        for domain in dice.sample(list(self._labels), dice.randrange(1, _DOMAINS + 1)):
            what = dice.random()
            if what < 0.6:
                self._labels[domain] = dice.choice(list(VERDICTS))
                product.label(domain, self._labels[domain])
            elif what < 0.85:
                disk = domain.devices[1]
                await product.detach(domain, disk)
                await product.attach(domain, disk)
            else:
                del self._labels[domain]
                await product.destroy(domain)
                await self._create()

    async def _kill(self):
        """Kill, start again; now and then kill what has just begun to start."""
        product, dice = self._product, self._dice
        names = dice.choice(_VICTIMS)
        for _ in range(dice.choice((1, 1, 2))):
            await task.deferLater(reactor, dice.random() * dice.choice((0.01, 0.05, _LONGEST)))
            for name in names:
                product.kill(name)
                self.kills[name] += 1
            for name in names:
                product.spawn(name)
                self.restarts[name] += 1

    async def _rest(self):
        """Everything comes to what the labels say."""
        await self._product.enforcing()
        for domain, label in self._labels.items():
            for device, verdict in zip(domain.devices, VERDICTS[label], strict=True):
                await self._product.comes_to(domain, device, verdict)
        self.rests += 1


def _counted(kills):
    return ", ".join(f"{count} {name}" for name, count in sorted(kills.items()))
