"""The scenarios, one a file: `run(bed)`, and the first line of its docstring says what it shows."""

ORDER = (
    "same_label",
    "different_label",
    "driver_domain",
    "many",
    "malicious",
    "save_restore",
    "connected_by_hand",
    "chinese_wall",
    "agent_killed",
    "broker_killed",
    "policy_reload",
    "wrong_policy",
    "filtered",
    "stays_shut",
    "same_uuid",
    "foreign_script",
    "relabelled",
    "sanctioned",
    "disk_swapped",
    "store_updated",
    "store_killed",
    "domain/same_label",
)
"""In the order they run in: what the others build upon first, then the longest, so that several
machines end together, what leaves a wreck after that, and last what has a machine booted anew: with
the broker in a domain of its own."""

BY_NAME = ("administered", "guide", "served_by_qemu")
"""Run when they are asked for: the first two have a machine of another kind booted. So has
`domain/` before any name: the same scenario with the broker in a domain of its own."""
