"""The generated header: it compiles everywhere, holds nothing of the file but names, and agrees
with Xen's public headers."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.ring_c import SANITIZED, STRICT, write_headers
from support.ring_messages import SPECS, rings_of
from test_ring_check import GOOD

from broker.protocol.c_header import c_header
from broker.protocol.ring_check import read_rings
from broker.protocol.ring_form import RingForm
from broker.text.marked_yaml import load_struct
from broker.text.problems import ProblemsError

SUPPORT = Path(__file__).parents[1] / "support"
DOCS = Path(__file__).parents[2] / "docs"
COMPILERS = [one for one in ("gcc", "clang") if shutil.which(one)]
KEYWORDS = [
    "auto",
    "break",
    "case",
    "char",
    "const",
    "continue",
    "default",
    "do",
    "double",
    "else",
    "enum",
    "extern",
    "float",
    "for",
    "goto",
    "if",
    "inline",
    "int",
    "long",
    "register",
    "restrict",
    "return",
    "short",
    "signed",
    "sizeof",
    "static",
    "struct",
    "switch",
    "typedef",
    "union",
    "unsigned",
    "void",
    "volatile",
    "while",
    "asm",
    "typeof",
    "linux",
    "unix",
    "i386",
    "errno",
    "stdin",
    "main",
    "ring",
    "bytes",
    "given",
    "count",
    "item",
    "i",
    "j",
    "value",
    "copy",
    "shared",
    "abi",
    "index",
    "used",
    "ids",
    "queue",
    "head",
    "waits",
    "wants",
    "xpb",
    "nullptr",
    "class",
    "new",
]


def compiled(directory, source, *flags, compiler="gcc"):
    """What the compiler says of `source`, with the headers beside it."""
    path = directory / "source.c"
    path.write_text(source)
    command = [compiler, *STRICT, *flags, f"-I{directory}", "-fsyntax-only", path]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def header_of(text, name="thing"):
    """The header of a section's text; None if the section is refused."""
    try:
        form = load_struct(text.encode(), "F", RingForm)
    except ProblemsError:
        return None
    rings, problems = read_rings(form, "F")
    return None if problems else c_header(name, "sha256:0", rings)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3", "-Os"])
def test_it_compiles_without_a_warning(tmp_path, compiler, level):
    write_headers(tmp_path)
    source = '#include "vbd.h"\n#include "vif.h"\n#include "vbd.h"\nint main(void) { return 0; }\n'
    command = [compiler, *STRICT, level, f"-I{tmp_path}", "-o", tmp_path / "out", "-xc", "-"]
    done = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_gcc_is_among_the_compilers():
    assert "gcc" in COMPILERS


@pytest.mark.parametrize("flags", [("-O2",), SANITIZED], ids=["plain", "sanitized"])
def test_misuse_is_never_fine(tmp_path, flags):
    write_headers(tmp_path)
    built = tmp_path / "misuse"
    source = SUPPORT / "ring_misuse.c"
    subprocess.run(["gcc", *STRICT, *flags, f"-I{tmp_path}", "-o", built, source], check=True)
    done = subprocess.run([built], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), f"line {done.returncode} (modulo 256)"


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_kernel_may_bring_its_own_types(tmp_path, compiler):
    write_headers(tmp_path)
    types = """\
#define XPB_OWN_TYPES
typedef __SIZE_TYPE__ size_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __UINT64_TYPE__ uint64_t;
#define UINT64_C(c) c##UL
#define UINT64_MAX __UINT64_MAX__
"""
    source = types + '#include "vbd.h"\n#include "vif.h"\n'
    flags = ("-ffreestanding", "-nostdinc")
    assert compiled(tmp_path, source, *flags, compiler=compiler) == ""


@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_documented_example_compiles(tmp_path, compiler):
    write_headers(tmp_path)
    (tmp_path / "vbd.h").rename(tmp_path / "vbd_rings.h")
    text = (DOCS / "ring-messages.md").read_text()
    [example] = re.findall(r"```c\n(.*?)```", text, re.DOTALL)
    # The example's functions are for others to call.
    assert compiled(tmp_path, example, compiler=compiler) == ""


@pytest.mark.parametrize("name", ["vbd", "vif"])
def test_it_needs_no_library_and_allocates_nothing(name):
    text = c_header(name, "sha256:0", rings_of(name))
    assert text.isascii()
    assert set(re.findall(r"#include (\S+)", text)) == {"<stddef.h>", "<stdint.h>"}
    assert not re.search(r"\b(malloc|alloca|goto|while|memcpy|float|double)\b", text)
    # Every loop counts up to a bound.
    for loop in re.findall(r"for \((.*?)\)\s*[{\n]", text):
        assert re.search(r"[<=] *(\w|->| \* )+", loop.split(";")[1]), loop
    assert text.count("/*") == text.count("*/")


def test_it_says_where_it_comes_from_and_what_is_given():
    text = c_header("vbd", "sha256:feed", rings_of("vbd"))
    assert "from vbd.yaml, sha256:feed." in text
    assert "uint64_t g_sectors; /* backend/sectors: 0 to 36028797018963967 */" in text
    for rule in rings_of("vbd").rules:
        assert f'"{rule.name}",' in text


def named(word):
    """GOOD with every name replaced by one made of `word`."""
    text = GOOD.replace("x86_64-abi", word).replace("few: many", f"{word}: many")
    for old, new in (
        ("io", word),
        ("start", word),
        ("any", word),
        ("ask", word),
        ("part", f"{word}-list"),
    ):
        text = re.sub(rf"\b{old}:", f"{new}:", text)
    for number, old in enumerate(
        ("kind", "many", "page", "pages", "seen", "most", "value", "status")
    ):
        new = word if old == "many" else f"{word}_{number}" if old != "page" else f"{word}_p"
        text = re.sub(rf"\b{old}\b(?!:? ?\d\n)", new, text)
    return text.replace(f"{word}_5: 4", "most: 4")


def test_names_that_are_words_of_c_still_compile(tmp_path):
    tried = 0
    source = ""
    for word in KEYWORDS:
        text = header_of(named(word), word)
        if text is not None:
            (tmp_path / f"{word}.h").write_text(text)
            source += f'#include "{word}.h"\n'
            tried += 1
    assert tried >= len(KEYWORDS) * 3 // 4
    assert compiled(tmp_path, source + "int main(void) { return 0; }\n") == ""


HOSTILE = st.one_of(
    st.sampled_from(
        ["*/", '"', "\\", "\n", "??/", "/*", "#", ";}", "%", "a b", "$(x)", "`x`", "é", ""]
    ),
    st.text(max_size=8),
)


@given(
    st.sampled_from(
        [
            "many",
            "ask",
            "io",
            "part",
            "few",
            "start",
            "most",
            "kind",
            "seen",
            "backend/most",
            "x86_64-abi",
        ]
    ),
    HOSTILE,
    st.booleans(),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_text_of_the_file_reaches_the_header(name, hostile, quoted):
    evil = f"XPB{hostile}evil"
    new = json.dumps(evil) if quoted else evil
    text = header_of(GOOD.replace(name, new))
    if text is not None:
        # Only what is a name could be one: letters, digits, _ and - (and / in a key).
        assert re.fullmatch(r"[A-Za-z0-9_/-]+", evil), evil
        assert text.isascii()
        assert text.count("/*") == text.count("*/")


def test_only_ascii_and_no_tabs_are_written():
    for name in ("vbd", "vif"):
        path = SPECS / f"{name}.yaml"
        text = c_header(name, "sha256:0", rings_of(name))
        assert not re.search(r"[^\x20-\x7e\n]", text), path
