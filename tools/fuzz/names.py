"""The targets by name, with nothing imported: what is fuzzed is imported when it is watched."""

TARGETS = {
    "loader": "tools.fuzz.loader",
    "rings": "tools.fuzz.rings",
    "monitor": "tools.fuzz.monitor",
    "files": "tools.fuzz.files",
    "frames": "tools.fuzz.frames",
    "lines": "tools.fuzz.lines",
    "calls": "tools.fuzz.calls",
    "logs": "tools.fuzz.logs",
}
"""Each module has `run(data)`, which fails where something broke, `seeds()`, what to begin from,
and `words()`, what is worth writing into an input."""
