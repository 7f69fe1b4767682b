"""What the broker implements of `filter.*`: a part of `Admin`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from broker.rpc.admin import Caller
    from broker.rpc.methods import Nothing
    from broker.rpc.methods import filters as methods


class FilterAdmin(Protocol):
    """Filter profiles, as the RPC's server sees them."""

    async def filter_list(
        self, caller: Caller, arguments: Nothing
    ) -> tuple[methods.FilterProfile, ...]:
        """The profiles by name."""
        ...

    async def filter_dump(
        self, caller: Caller, arguments: methods.FilterSelector
    ) -> methods.FilterText:
        """A profile's exact text.

        Raises:
            RpcError: `not_found`.
        """
        ...

    async def filter_create(
        self, caller: Caller, arguments: methods.FilterCreate
    ) -> methods.FilterChange:
        """Store a new profile.

        Raises:
            RpcError: `bad_input` with every problem; `conflict` (there is one of that name);
                `unavailable`.
        """
        ...

    async def filter_update(
        self, caller: Caller, arguments: methods.FilterUpdate
    ) -> methods.FilterChange:
        """Put another text in a profile's place.

        Raises:
            RpcError: `bad_input` with every problem, of the profile or of what uses it;
                `not_found`; `conflict` (`replaces` is not what is in force); `unavailable`.
        """
        ...

    async def filter_destroy(
        self, caller: Caller, arguments: methods.FilterDestroy
    ) -> methods.FilterChange:
        """Forget a stored profile.

        Raises:
            RpcError: `not_found`, `conflict` (it is in use, shipped, or another), `unavailable`.
        """
        ...

    async def filter_attach(
        self, caller: Caller, arguments: methods.FilterAttach
    ) -> methods.FilterAttached:
        """Put a profile on vifs.

        Raises:
            RpcError: `not_found`, `bad_input` (it does not fit there), `denied` (domain 0),
                `unavailable`.
        """
        ...

    async def filter_detach(
        self, caller: Caller, arguments: methods.FilterDetach
    ) -> methods.FilterAttached:
        """Take a profile off again.

        Raises:
            RpcError: `not_found`, `denied` (domain 0), `unavailable`.
        """
        ...

    async def filter_attached(
        self, caller: Caller, arguments: Nothing
    ) -> tuple[methods.FilterAttachment, ...]:
        """What administrators attached and the caller may see."""
        ...

    async def filter_vifs(
        self, caller: Caller, arguments: Nothing
    ) -> tuple[methods.FilteredVif, ...]:
        """The vifs that have profiles and the caller may see."""
        ...

    async def filter_counts(
        self, caller: Caller, arguments: Nothing
    ) -> tuple[methods.FilterCounts, ...]:
        """What each backend domain's agent reports of them."""
        ...

    async def filter_show(self, caller: Caller, arguments: methods.FilterVif) -> methods.VifFilters:
        """What a vif has.

        Raises:
            RpcError: `not_found`, `bad_input`.
        """
        ...

    async def filter_test(
        self, caller: Caller, arguments: methods.FilterTest
    ) -> methods.FilterOutcome:
        """What becomes of a frame.

        Raises:
            RpcError: `not_found`, `bad_input`, `unavailable` (the vif's filters do not fit).
        """
        ...
