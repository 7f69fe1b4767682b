#!/usr/bin/env python3
"""Holds the mini-domain's image to what is promised of it.

    tools/minidomain/check.py TREE POLICY PKI IMAGE

As root, with the product's own Python. IMAGE was built from the others: built again it is the same
bit for bit, is small enough, and its brokerd lives a short life on what is in it alone.
"""

import os
import re
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import exercise

HERE = Path(__file__).resolve().parent
LIMIT = 16 << 20
"""Bytes, compressed."""
BROKERD = """
import sys
from modules import PLACE, Modules
sys.meta_path.insert(2, Modules(PLACE))
from init import brokerds_main
status = brokerds_main()(sys.argv[1:])
from pathlib import Path
from broker.service.specs import load_descriptions
for description in load_descriptions(Path("@SPECS@")).values():
    description.monitor()
sys.exit(status)
""".replace("@SPECS@", exercise.SPECS)
"""As start.py and init.py have it, short of the domain; then it gets to look at every class."""


def built(tree: Path, policy: Path, pki: Path, out: Path) -> bytes:
    """One more build."""
    modules = next((tree / "lib/modules").iterdir())
    words = [HERE / "build.py", f"--root={tree}", f"--modules={modules}", f"--policy={policy}"]
    subprocess.run([*map(str, words), f"--pki={pki}", str(out)], check=True, stdout=sys.stderr)
    return out.read_bytes()


def live(image: Path, policy: str, root: Path) -> str:
    """Have the image's brokerd do everything; its log."""
    unpack = f"zstd --decompress --stdout {image} | busybox cpio -idm"
    subprocess.run(["sh", "-c", unpack], cwd=root, check=True, capture_output=True)
    # The domain's kernel makes it there.
    os.mknod(root / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    place, seen = root / "tmp/check", Path("/tmp/check")
    place.mkdir()
    exercise.prepare(place, policy, seen)
    log = place / "log"
    with log.open("wb") as file:
        words = ["/usr/sbin/chroot", str(root), "/usr/bin/python3.11", "-ISc", BROKERD]
        words += ["--store", "embedded", "--init", "--config", f"{seen}/broker.yaml"]
        process = subprocess.Popen(words, env={}, stdin=subprocess.DEVNULL, stderr=file)
    try:
        exercise.exercise(process.pid, place, policy)
        if process.wait(exercise.PATIENCE) != 0:
            raise OSError(f"brokerd ended with {process.returncode}")
    finally:
        process.kill()
    return log.read_text()


def main() -> int:
    """Check: 0 if all holds."""
    tree, policy, pki, image = map(Path, sys.argv[1:])
    data = image.read_bytes()
    problems = []
    with tempfile.TemporaryDirectory(prefix="xpb-") as name:
        if built(tree, policy, pki, Path(name, "again")) != data:
            problems.append("built again it is another")
        if len(data) > LIMIT:
            problems.append(f"{len(data)} bytes are more than {LIMIT}")
        root = Path(name, "root")
        root.mkdir()
        said = live(image.resolve(), policy.read_text(), root)
        problems += re.findall(r".*(?:Traceback|Error).*", said)
    for problem in problems:
        sys.stderr.write(f"minidomain: {problem}\n")
    if not problems:
        mebibytes = len(data) / (1 << 20)
        print(f"minidomain: {image}: {mebibytes:.1f} MiB, the same when built again, works")
    return 1 if problems else 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
