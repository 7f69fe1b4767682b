"""The scenarios, one a file: `run(bed)`, and the first line of its docstring says what it shows."""

ORDER = (
    "same_label",
    "different_label",
    "stays_shut",
    "wrong_policy",
    "relabelled",
    "broker_killed",
    "agent_killed",
    "policy_reload",
    "disk_swapped",
    "same_uuid",
    "foreign_script",
    "save_restore",
    "malicious",
    "sanctioned",
    "connected_by_hand",
    "filtered",
    "chinese_wall",
    "driver_domain",
    "many",
    "store_updated",
    "store_killed",
)
"""In the order they run in: what the others build upon first, what leaves a wreck last."""

BY_NAME = ("administered", "guide", "served_by_qemu")
"""Run when they are asked for: the first two have a machine of another kind booted. So has
`domain/` before any name: the same scenario with the broker in a domain of its own."""
