"""`filter.*` of the broker made of constants."""

from __future__ import annotations

import msgspec

from broker.rpc.methods import filters

DIGEST = "sha256:" + "ab" * 32
TEXT = "profile: web-only\n"
CHANGE = filters.FilterChange(name="web-only", digest=DIGEST, replaced=None, changed=True, vifs=3)
ATTACHMENT = filters.FilterAttachment(
    bound_by="name",
    key="web1\x1b",
    device=None,
    name="clean-traffic",
    given={"IP": ("10.0.0.5", "10.0.0.6")},
    set_by="local:uid=0",
    set_at=1.0,
)

VIF = filters.VifFilters(
    vif="vif/3/0 -> 0",
    profiles=("clean-traffic",),
    from_where=("corp.yaml:9:3",),
    variables={"MAC": ("00:16:3e:00:00:03",)},
    learned=("IP",),
    problem="",
)
DEPENDING = filters.FilterOutcome(
    verdict="depends",
    rule="",
    where="",
    reason="",
    unreadable=False,
    frame="a frame",
    by_state=(
        filters.FilterStateOutcome(
            state="new", verdict="drop", rule="p/default", where="p.yaml:3:1", reason=""
        ),
        filters.FilterStateOutcome(
            state="established", verdict="accept", rule="p/1", where="p.yaml:5:5", reason="asked"
        ),
    ),
)
COUNTS = filters.FilterCounts(
    backend=0,
    backend_name="Domain-0",
    at=7.0,
    rules=(filters.FilterRuleCount(rule="clean-traffic/1", packets=12, bytes=840),),
    learned=(
        filters.LearnedAddress(
            frontend=3, frontend_name="web1\x1b", device="0", address="10.0.0.5", until=60.0
        ),
    ),
    omitted_rules=2,
    omitted_learned=1,
)


class FakeFilters:
    """Answers the constants above."""

    async def filter_list(self, caller, arguments):
        self._called("filter.list", caller, arguments)
        return (
            filters.FilterProfile(
                name="clean-traffic",
                description="a guest sends as itself alone",
                digest=DIGEST,
                shipped=True,
                variables=("IP: ipv4",),
                users=("label web",),
            ),
        )

    async def filter_dump(self, caller, arguments):
        self._called("filter.dump", caller, arguments)
        return filters.FilterText(name="web-only", digest=DIGEST, shipped=False, text=TEXT)

    async def filter_create(self, caller, arguments):
        self._called("filter.create", caller, arguments)
        return CHANGE

    async def filter_update(self, caller, arguments):
        self._called("filter.update", caller, arguments)
        return CHANGE

    async def filter_destroy(self, caller, arguments):
        self._called("filter.destroy", caller, arguments)
        return filters.FilterChange(
            name="web-only", digest=None, replaced=DIGEST, changed=True, vifs=0
        )

    async def filter_attach(self, caller, arguments):
        self._called("filter.attach", caller, arguments)
        return filters.FilterAttached(now=ATTACHMENT, changed=True, vifs=1)

    async def filter_detach(self, caller, arguments):
        self._called("filter.detach", caller, arguments)
        return filters.FilterAttached(now=None, changed=True, vifs=1)

    async def filter_attached(self, caller, arguments):
        self._called("filter.attached", caller, arguments)
        return (ATTACHMENT,)

    async def filter_vifs(self, caller, arguments):
        self._called("filter.vifs", caller, arguments)
        return (
            filters.FilteredVif(
                **{**msgspec.structs.asdict(VIF), "problem": "10.0.0.5 is bound already"},
                frontend=3,
                frontend_name="web1\x1b",
                device="0",
                backend=0,
            ),
        )

    async def filter_counts(self, caller, arguments):
        self._called("filter.counts", caller, arguments)
        return (COUNTS,)

    async def filter_show(self, caller, arguments):
        self._called("filter.show", caller, arguments)
        problem = "" if arguments.device == "0" else "address 10.0.0.5 is bound already"
        return msgspec.structs.replace(VIF, problem=problem)

    async def filter_test(self, caller, arguments):
        self._called("filter.test", caller, arguments)
        if arguments.frame.startswith("dd"):
            return DEPENDING
        dropped = not arguments.frame.startswith("ff")
        return filters.FilterOutcome(
            verdict="drop" if dropped else "accept",
            rule="clean-traffic/1",
            where="clean-traffic.yaml:9:5",
            reason="",
            unreadable=dropped,
            frame="a frame\x1b",
        )
