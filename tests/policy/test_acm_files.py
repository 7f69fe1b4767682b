"""ACM's other files: maps, compiled policies, label strings; and export back to XML."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import acm

from broker.policy.acm.binary import MAGIC, read_binary
from broker.policy.acm.export import export_acm
from broker.policy.acm.label_text import parse_label
from broker.policy.acm.load import import_acm
from broker.policy.acm.map_file import read_map
from broker.policy.acm.read import Source
from broker.policy.load import load_policy
from broker.text.problems import ProblemsError


def refused(read, data):
    with pytest.raises(ProblemsError) as caught:
        read(data, "F")
    return [str(problem) for problem in caught.value.problems]


def test_a_map_tells_references_and_labels():
    read = read_map(acm.MAP.encode(), "F")
    assert (read.policy, read.primary, read.secondary) == ("site.tenants", "CHWALL", "STE")
    assert read.ssidref("acid") == 0x20002
    assert read.ssidref("disk(zinc)", resource=True) == 0x50000
    assert read.label_of(0x20002) == "acid"
    # Halves that name different labels, a resource, nothing.
    assert [read.label_of(it) for it in (0x20003, 0x50000, 0, 0x90009)] == [None] * 4
    with pytest.raises(KeyError):
        read.ssidref("disk(zinc)")


def test_a_map_of_the_c_compiler_with_its_blanks_is_read():
    text = acm.MAP.replace("POLICFILE ", "POLICY FILE").replace("BINARYFILE ", "BINARY FILE")
    text = text.replace(
        "LABEL->SSID RES STE    disk(acid)           4",
        "LABEL->SSID RES STE    disk of  acid        4",
    )
    read = read_map(text.encode(), "F")
    assert read.resources["STE"]["disk of  acid"] == 4


def test_a_map_whose_halves_differ_is_followed():
    text = "".join(
        line for line in acm.MAP.splitlines(keepends=True) if "CHWALL acid" not in line
    ).replace("CHWALL zinc                 3", "CHWALL zinc                 2")
    read = read_map(text.encode(), "F")
    assert (read.ssidref("acid"), read.ssidref("zinc")) == (0x20000, 0x30002)
    assert (read.label_of(0x20000), read.label_of(0x30002)) == ("acid", "zinc")
    assert read.label_of(0x30000) is None


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("MAGIC                  0001debc", "", "F:1:1: not a map: MAGIC is not 0001debc"),
        ("POLICYREFERENCENAME    site.tenants\n", "", "F:1:1: not a map: POLICYREFERENCENAME"),
        ("SECONDARY              STE", "SECONDARY  DAC", "F:1:1: PRIMARY and SECONDARY are"),
        ("STE    zinc                 3", "STE    zinc  0", "F:23:1: number 0 is not in 1 to ffff"),
        ("STE    zinc                 3", "STE    zinc  10000", "F:23:1: number 10000 is not"),
        ("STE    zinc                 3", "STE    acid  3", "F:23:1: label 'acid' has a number"),
        ("STE    zinc                 3", "STE    zinc", "F:23:1: not a line of a map"),
        ("STE    __NULL_LABEL__       00000000", "STE  x 5", "F:20:1: an ANY label has number 0"),
        (
            "PRIMARY                CHWALL",
            "PRIMARY STE\nPRIMARY CHWALL",
            "F:13:1: PRIMARY is given",
        ),
        ("PRIMARY", "\x1bPRIMARY", "F:12:1: not a line of a map: \\x1bPRIMARY"),
    ],
)
def test_what_is_no_map_is_refused_at_its_line(old, new, wanted):
    said = refused(read_map, acm.MAP.replace(old, new, 1).encode())
    assert any(it.startswith(wanted) for it in said), said


def test_huge_maps_are_refused():
    assert "at most 16777216" in refused(read_map, b"\n" * (16 * 2**20 + 1))[0]


def binary(**changed):
    fields = {
        "magic": MAGIC,
        "form": 4,
        "length": 60 + 16 + 8,
        "reference": 60,
        "primary": 1,
        "primary_at": 76,
        "secondary": 2,
        "secondary_at": 80,
        "major": 1,
        "minor": 7,
        "sha1": bytes(range(20)),
        "name": b"site.p\0",
        "name_length": 7,
    } | changed
    *header, name, name_length = fields.values()
    reference = struct.pack("!I", name_length) + name
    return struct.pack("!10I20s", *header) + reference.ljust(16, b"\0") + b"\0" * 8


def test_a_compiled_policy_tells_its_header():
    read = read_binary(binary(), "F")
    assert (read.policy, read.version, read.length) == ("site.p", (1, 7), 84)
    assert (read.primary, read.secondary) == ("CHWALL", "STE")
    assert read.xml_sha1 == bytes(range(20)).hex()
    assert read.remarks[-1].endswith("derived from its XML, never from this header")


def test_the_codes_that_the_python_compiler_got_wrong_are_remarked_on():
    absent = read_binary(binary(secondary_at=84), "F")
    assert "the secondary component is said to be STE, and is not there" in absent.remarks
    undefined = read_binary(binary(primary=2, secondary=15), "F")
    assert any("UNDEFINED" in it for it in undefined.remarks)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"", "F:1:1: too short: the header has 60 bytes"),
        (binary()[:59], "F:1:60: too short"),
        (binary(magic=1), "F:1:1: not a compiled ACM policy: it begins with 00000001"),
        (binary(form=3), "F:1:5: format 3; only format 4 is read"),
        (binary(length=85), "F:1:9: it says it has 85 bytes, but has 84"),
        (binary(reference=59), "F:1:13: offset 59 lies outside the policy"),
        (binary(primary_at=85), "F:1:21: offset 85 lies outside the policy"),
        (binary(secondary_at=2**32 - 1), "F:1:29: offset 4294967295 lies outside"),
        (binary(primary=7), "F:1:17: component code 7 is unknown"),
        (binary(secondary=3), "F:1:25: component code 3 is unknown"),
        (binary(name_length=2**31), "F:1:61: the policy's name is cut off"),
        (binary(name_length=6), "F:1:61: the policy's name is cut off"),
        (binary(reference=82), "F:1:83: the policy's name is cut off"),
    ],
    ids=lambda it: str(it)[:30],
)
def test_what_is_no_compiled_policy_is_refused_at_its_byte(data, wanted):
    assert refused(read_binary, data)[0].startswith(wanted)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100) | st.binary(max_size=40).map(lambda it: binary()[:44] + it))
def test_any_bytes_are_read_or_refused(data):
    for read in (read_binary, read_map):
        try:
            read(data, "F")
        except ProblemsError as error:
            assert error.problems


@pytest.mark.parametrize(
    "text", ["", "ACM", "ACM:p", "ACM:p:l:x", ":::", "acm:p:l", "ACM::l", "ACM:p:"]
)
def test_a_label_string_has_exactly_three_parts(text):
    with pytest.raises(ValueError, match="label '"):
        parse_label(text)


def test_a_label_may_be_void():
    assert not parse_label("ACM:p:l").invalid
    assert parse_label("INV_ACM:p:l").invalid


NAMES = ("a", "b(x)", "c.d", "e-f")
TYPES = ("t0", "t1", "t2")
WALLS = ("w0", "w1", "w2")


def subset(names):
    return st.lists(st.sampled_from(names), unique=True).map(tuple)


@st.composite
def policies(draw):
    sets = draw(st.sampled_from(({"s": ("w0", "w1")}, {"s": ("w0", "w1"), "u": ("w1", "w2")})))
    one_wall = st.sampled_from(((), ("w0",), ("w1",), ("w2",)))
    return {
        "ste": TYPES,
        "walls": WALLS,
        "conflicts": sets,
        "bootstrap": draw(st.sampled_from(NAMES)),
        "labels": [(name, draw(subset(TYPES)), draw(one_wall)) for name in NAMES],
        "resources": [(name, (draw(st.sampled_from(TYPES)),)) for name in ("r0", "a")],
    }


def acm_decides(policy, frontend, backend, resource):
    """ACM's own words: sharing is a common type; so is access to a resource."""
    types = {name: set(held) for name, held, _ in policy["labels"]}
    if resource is None:
        return bool(types[frontend] & types[backend])
    needed = set(dict(policy["resources"])[resource])
    return bool(needed & types[frontend]) and bool(needed & types[backend])


def acm_admits(policy, running, label):
    """The aggregate of ACM's Chinese Wall, counted anew; and domain 0's authorization."""
    walls = {name: set(held) for name, _, held in policy["labels"]}
    types = {name: set(held) for name, held, _ in policy["labels"]}
    aggregate = set()
    for other in (policy["bootstrap"], *running):
        for members in policy["conflicts"].values():
            if walls[other] & set(members):
                aggregate |= set(members) - walls[other]
    return not walls[label] & aggregate and types[label] <= types[policy["bootstrap"]]


def decisions(policy):
    asked = [
        (kind, one, other, resource, mode)
        for kind in ("vif", "vbd")
        for one in NAMES
        for other in NAMES
        for resource in (None, "r0", "a")
        for mode in "rw"
    ]
    return {it: policy.decide(*it) for it in asked}


@settings(max_examples=60, deadline=None)
@given(policies(), st.sampled_from(("document", "alphabetical")))
def test_import_and_export_keep_every_decision(made, numbering):
    xml = acm.policy_xml(**made)
    policy = import_acm(Source(xml.encode(), "F"), numbering=numbering).policy
    for (kind, one, other, resource, _), granted in decisions(policy).items():
        wanted = acm_decides(made, one, other, resource)
        assert granted is (wanted and not (kind == "vbd" and resource is None))
    for label in NAMES:
        for running in ((), ("a",), ("b(x)", "c.d"), NAMES):
            assert policy.admit(running, label).granted is acm_admits(made, running, label)
    exported = export_acm(policy.definition, "F")
    assert exported.decided_otherwise == ()
    again = import_acm(Source(exported.text.encode(), "F")).policy
    assert decisions(again) == decisions(policy)
    assert [again.ssidref(it) for it in again.labels] == [policy.ssidref(it) for it in again.labels]
    assert again.definition.conflict_sets == policy.definition.conflict_sets


def test_what_acm_cannot_say_is_listed_with_its_place():
    text = """\
policy: p
version: "1.0"
ste_types: [t]
bootstrap: a
host_authorization: false
labels: {a: {ste: [t], colours: [red]}, b: {ste: [t], was: c}}
groups: {g: [a]}
resources: {r: {ste: [t], colour: red, match: {class: vbd, params: /dev/a}}}
classes: {vif: {default: ste}, vbd: {default: deny}}
channels:
  - {deny: {class: vif, frontend: a}}
  - {allow: {class: vif, between: [a, b]}}
protected: [a]
on_violation: {default: close, vif: reset}
mode: {observe: {opens: [{class: vif}], until: 2027-01-31}}
roles: {op: []}
"""
    exported = export_acm(load_policy(text.encode(), "P").definition, "P")
    assert [str(it) for it in exported.decided_otherwise] == [
        "P:11:5: ACM has no rules; lost: deny vif frontend a mode r",
        "P:12:5: ACM has no rules; lost: allow vif between a and b",
        "P:9:32: ACM has no classes: vbd would be granted wherever types are shared",
        "P:8:13: ACM has no colours; lost of resource r",
        "P:1:1: ACM always holds labels to domain 0's types to run",
        "P:15:7: ACM has no observe mode",
    ]
    assert [it.message.split(":")[0] for it in exported.left_out] == [
        "match of resource r",
        "'groups' has no place in ACM",
        "'on_violation' has no place in ACM",
        "'protected' has no place in ACM",
        "'roles' has no place in ACM",
    ]
    assert import_acm(Source(exported.text.encode(), "F")).policy.renamed_from("b") == "c"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_policy_is_imported_or_refused_with_places(data):
    whole = acm.NEW.encode()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 60)))
    pieces = st.binary(max_size=8) | st.sampled_from(
        (b"<Type>x</Type>", b"<Name>", b"<!-- c -->", b"&amp;", b"&#0;", b"<![CDATA[x]]>", b"]]>")
    )
    changed = whole[:start] + data.draw(pieces) + whole[end:]
    resources = data.draw(st.none() | st.text(max_size=40).map(str.encode))
    try:
        import_acm(
            Source(changed, "F"), resources=None if resources is None else Source(resources, "R")
        )
    except ProblemsError as error:
        assert all(it.file in ("F", "R") and it.line and it.column for it in error.problems)
