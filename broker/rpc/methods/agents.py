"""Backends' agents, and the metrics."""

import msgspec


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """A backend domain's agent, as far as it is known by what it reports.

    `age` is how many seconds ago it was heard last, by the broker's clock; None, with all that it
    says of itself, where it never was. `version`, `policy` (the digest that its bridges follow;
    `missing` where it has no file of the policy in force, null where it has no bridges), whether
    it `hears` the heartbeat, and how many of its gates are `open`, `closed`, `suspended` and
    `failed` are what it says. `channels` is how many there are towards its domain, `unconfirmed`
    how many decisions about them it has yet to confirm, `confirmed` the highest record's number
    that it has.
    """

    backend: int
    name: str | None
    age: float | None = None
    version: str | None = None
    policy: str | None = None
    hears: bool | None = None
    open: int = 0
    closed: int = 0
    suspended: int = 0
    failed: int = 0
    channels: int = 0
    unconfirmed: int = 0
    confirmed: int | None = None


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """The broker's metrics in Prometheus' text format (0.0.4), as `GET /metrics` answers them."""

    text: str
