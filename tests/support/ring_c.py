"""The generated headers, compiled into the harness that runs messages through them."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from broker.protocol.c_header import c_header
from broker.protocol.c_message import granted_messages
from broker.protocol.load import load_spec
from support.ring_messages import RINGS, SPECS, rings_of

SOURCE = Path(__file__).with_name("ring_harness.c")
STRICT = (
    "-std=c99",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-pedantic",
    "-Wshadow",
    "-Wconversion",
    "-Wstrict-aliasing=2",
)
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
_ANSWER = struct.Struct("<HIQI")


def write_headers(directory):
    """vbd.h and vif.h, from the shipped descriptions."""
    for name in ("vbd", "vif"):
        path = SPECS / f"{name}.yaml"
        spec = load_spec(path.read_bytes(), str(path))
        (directory / f"{name}.h").write_text(c_header(spec.name, spec.digest, spec.rings))


def write_rings(directory, numbered):
    """rings.h: which rings the harness has; (class, its tables, ring) in the order of numbers."""
    classes = dict.fromkeys(name for name, _, _ in numbered)
    lines = [f'#include "{name}.h"' for name in classes]
    rows = []
    for number, (name, rings, title) in enumerate(numbered):
        ring = next(one for one in rings.rings if one.name == title)
        listed = granted_messages(ring.requests)
        check = f"xpb_{name}_{title}_request_list" if listed else "NO_LIST"
        rows.append(f"R({number}, {name}, {title}, {check})")
    lines.append("#define RINGS " + " ".join(rows))
    (directory / "rings.h").write_text("\n".join(lines) + "\n")


def compile_harness(directory, *flags, compiler="gcc"):
    """The harness's path, compiled in `directory`, where its headers are."""
    built = directory / "harness"
    command = [compiler, *STRICT, *flags, f"-I{directory}", "-o", built, SOURCE]
    subprocess.run(command, check=True)
    return built


def build_harness(directory, *flags):
    """The harness's path, with the rings of RINGS."""
    write_headers(directory)
    write_rings(directory, [(name, rings_of(name), title) for name, title in RINGS])
    return compile_harness(directory, *flags)


def record(ring, operation, message):
    """One record for the harness; `ring` is its index in RINGS."""
    return struct.pack("<BBI", ring, ord(operation), len(message)) + message


def connect(ring, rings, given, slots, abi):
    """The record that connects."""
    values = struct.pack(f"<{len(rings.given)}Q", *(given[one.name] for one in rings.given))
    return record(ring, "C", struct.pack("<BI", rings.abis.index(abi), slots) + values)


def answer(violation, in_flight):
    """What the harness answers where the Python validator says this."""
    if violation is None:
        return _ANSWER.pack(0, 0, 0, in_flight)
    return _ANSWER.pack(violation.number, violation.index, violation.value, in_flight)


ANSWER_BYTES = _ANSWER.size
