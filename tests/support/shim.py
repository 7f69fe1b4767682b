"""Builds the preload shim under which the real daemons run (tools/xenstored-shim)."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tools" / "xenstored-shim" / "shim.c"
BUILT = ROOT / "build" / "xenstored-shim.so"
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")


def build_shim():
    """The shared object's path; compiled if the source is newer, by one process at a time."""
    BUILT.parent.mkdir(exist_ok=True)
    with (BUILT.parent / "xenstored-shim.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not BUILT.exists() or BUILT.stat().st_mtime < SOURCE.stat().st_mtime:
            fresh = BUILT.with_suffix(f".{os.getpid()}")
            subprocess.run(["gcc", *FLAGS, "-o", fresh, SOURCE, "-ldl"], check=True)
            fresh.rename(BUILT)
    return BUILT
