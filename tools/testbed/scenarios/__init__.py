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
    "chinese_wall",
    "driver_domain",
    "many",
    "store_updated",
    "store_killed",
    "domain/same_label",
    "domain/different_label",
    "administered",
    "domain/broker_killed",
    "guide",
)
"""In the order they run in: what the others build upon first, what leaves a wreck last.

`domain/` before a name has it run with the broker in a domain of its own.
"""
