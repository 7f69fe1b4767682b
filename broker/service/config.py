"""brokerd's configuration, etc/broker.yaml: checked like a policy, problems with their places."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec

from broker.rpc.limits import Limits
from broker.rpc.tls_files import TlsFiles
from broker.service.journal import Rotation
from broker.service.proposals import LIFE
from broker.service.revoking import PATIENCE
from broker.text.marked_yaml import load_struct
from broker.text.problems import Problem, ProblemsError

EMBEDDED: Final = "embedded"
_LIMITS: Final = Limits()
_SPECS: Final = Path(__file__).parents[2] / "protocol_specs"
_FILTERS: Final = Path(__file__).parents[2] / "etc/filters"


class TlsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The broker's certificate and key, who vouches for callers, and who is let in no more."""

    certificate: str
    key: str
    ca: str
    revoked: str | None = None


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much one person, and one address of the network, may ask; as `broker.rpc.limits`."""

    person_connections: Annotated[int, msgspec.Meta(ge=1, le=128)] = _LIMITS.person_connections
    person_burst: Annotated[float, msgspec.Meta(ge=1, le=100_000)] = _LIMITS.person_burst
    person_rate: Annotated[float, msgspec.Meta(ge=0.01, le=10_000)] = _LIMITS.person_rate
    address_burst: Annotated[float, msgspec.Meta(ge=1, le=100_000)] = _LIMITS.address_burst
    address_rate: Annotated[float, msgspec.Meta(ge=0.01, le=10_000)] = _LIMITS.address_rate


class RpcConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where brokerctl reaches the broker."""

    socket: str = "/run/xen-policy-broker/broker.sock"
    listen: tuple[str, ...] = ()
    tls: TlsConfig | None = None
    late: bool = False
    limits: LimitsConfig = LimitsConfig()


class BudgetConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one domain may have written into the audit log about itself."""

    burst: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 50
    refill_seconds: Annotated[float, msgspec.Meta(gt=0)] = 10.0


class AuditLogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How large the audit log gets: the size of a segment, and how many older ones are kept."""

    segment_mebibytes: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 32
    keep: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 16


class Config(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One broker; etc/broker.yaml explains each key. Relative paths start at the file's place."""

    confine: bool = True
    store: str = "xenbus"
    state: str = "/var/lib/xen-policy-broker"
    policy: str | None = None
    policy_signers: tuple[str, ...] = ()
    label_signers: tuple[str, ...] = ()
    specs: str | None = None
    filters: str | None = None
    rpc: RpcConfig = RpcConfig()
    adopt_labels: bool = False
    approval_hours: Annotated[float, msgspec.Meta(gt=0, le=8760)] = LIFE / 3600
    revocation_seconds: Annotated[float, msgspec.Meta(ge=1, le=3600)] = PATIENCE
    audit_budget: BudgetConfig = BudgetConfig()
    audit_log: AuditLogConfig = AuditLogConfig()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration with the command line taken in, all paths absolute."""

    confine: bool = True
    store: str
    state: Path
    policy: Path | None
    policy_signers: tuple[Path, ...] = ()
    label_signers: tuple[Path, ...] = ()
    specs: Path
    filters: Path = _FILTERS
    socket: Path
    listen: tuple[str, ...] = ()
    tls: TlsFiles | None = None
    late: bool = False
    limits: Limits = _LIMITS
    adopt_labels: bool
    approval_life: float = LIFE
    patience: float = PATIENCE
    burst: int
    refill: float
    rotation: Rotation = Rotation()


def load_settings(file: Path, *, store: str | None, state: Path | None) -> Settings:
    """Read the configuration; `store` and `state` are the command line's, which win.

    Raises:
        OSError: the file cannot be read.
        ProblemsError: it is not as it should be.
    """
    config = load_struct(file.read_bytes(), str(file), Config)
    base = file.absolute().parent
    address = store or config.store
    if address not in ("xenbus", EMBEDDED) and not address.startswith(("unix:/", "xenbus:/")):
        message = f"store: {address!r} is not unix:/PATH, xenbus, xenbus:/PATH or embedded"
        raise ProblemsError([Problem(str(file), 1, 1, message)])
    tls = config.rpc.tls
    if config.rpc.listen and tls is None:
        message = "rpc: listen needs tls, with certificate, key and ca (brokerctl pki init)"
        raise ProblemsError([Problem(str(file), 1, 1, message)])
    return Settings(
        confine=config.confine,
        store=address,
        state=(state or base / config.state).absolute(),
        policy=None if config.policy is None else base / config.policy,
        policy_signers=tuple(base / name for name in config.policy_signers),
        label_signers=tuple(base / name for name in config.label_signers),
        specs=_SPECS if config.specs is None else base / config.specs,
        filters=_FILTERS if config.filters is None else base / config.filters,
        socket=base / config.rpc.socket,
        listen=config.rpc.listen,
        tls=None
        if tls is None
        else TlsFiles(
            certificate=base / tls.certificate,
            key=base / tls.key,
            ca=base / tls.ca,
            revoked=None if tls.revoked is None else base / tls.revoked,
        ),
        late=config.rpc.late,
        limits=Limits(**msgspec.structs.asdict(config.rpc.limits)),
        adopt_labels=config.adopt_labels,
        approval_life=config.approval_hours * 3600,
        patience=config.revocation_seconds,
        burst=config.audit_budget.burst,
        refill=config.audit_budget.refill_seconds,
        rotation=Rotation(
            size=config.audit_log.segment_mebibytes << 20, keep=config.audit_log.keep
        ),
    )
