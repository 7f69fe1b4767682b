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
    "served_by_qemu",
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

BY_NAME = ("administered", "guide")
"""Run when they are asked for: each has a machine of another kind booted for it. So has
`domain/` before any name: the same scenario with the broker in a domain of its own."""
