"""ACM's files: both dialects, what is refused and where, what is taken over only when asked."""

# ruff: noqa: E501 - tables, a case a line

import pytest
from support import acm

from broker.cli import policy_acm
from broker.policy.acm import adopt
from broker.policy.acm.load import import_acm
from broker.policy.acm.read import Source
from broker.text.problems import ProblemsError


def source(text, name="F"):
    return Source(text.encode() if isinstance(text, str) else text, name)


def imported(text=acm.NEW, **more):
    sources = ("labels", "resources", "map_file")
    given = {key: source(it, key) if key in sources else it for key, it in more.items()}
    return import_acm(source(text), **given)


def refused(text=acm.NEW, **more):
    with pytest.raises(ProblemsError) as caught:
        imported(text, **more)
    return [str(problem) for problem in caught.value.problems]


def test_a_policy_of_2006_reads_as_a_person_would_have_written_it():
    made = imported()
    assert (
        made.text.partition("\npolicy:")[2]
        == """ site.tenants
version: "1.3"
from: {policy: site.tenants, version: "1.2"}

ste_types: [sys, zinc, acid]
chinese_wall_types: [w_sys, w_zinc, w_acid]
conflict_sets:
  rivals: [w_zinc, w_acid]

bootstrap: Manager
labels:
  Manager: {ste: [sys, zinc, acid], chinese_wall: [w_sys]}
  zinc: {ste: [zinc], chinese_wall: [w_zinc], was: zinc_old}
  acid: {ste: [acid], chinese_wall: [w_acid]}

resources:
  disk(zinc): {ste: [zinc]}
  disk(acid): {ste: [acid]}

classes:
  vif: {protocol: vif, default: ste}
  vbd: {protocol: vbd, default: ste}
"""
    )
    assert made.text.startswith(
        "# a comment\n# Imported from the ACM policy F, 2008-01-02.\n# Labels are numbered in the "
    )
    assert made.notes == ()


def test_what_its_author_wrote_about_types_labels_and_resources_is_kept():
    text = acm.NEW
    for before, after in (
        (
            "<Type>zinc</Type><Type>acid</Type><Type/>",
            "<Type>zinc</Type> <!-- a metal -->\n<Type>acid</Type>\n",
        ),
        ("<Conflict name", "<!-- never both --><Conflict name"),
        (
            "<Name>acid</Name>",
            "<!-- =============== -->\n<!-- the \n\x85 other: # one -->\n<Name>acid</Name>",
        ),
        ("<Name>disk(zinc)</Name>", "<Name>disk(zinc)</Name> <!-- theirs -->"),
    ):
        assert text.count(before) == 1
        text = text.replace(before, after)
    made = imported(text)
    for line in (
        "ste_types:\n  - sys\n  - zinc  # a metal\n  - acid\n",
        "conflict_sets:\n  # never both\n  rivals: [",
        "  # the other: # one\n  acid: {",
        "  # theirs\n  disk(zinc): {",
    ):
        assert line in made.text
    assert made.policy.definition.ste_types == ("sys", "zinc", "acid")


def test_labels_are_numbered_as_either_compiler_did():
    def numbers(**more):
        policy = imported(**more).policy
        return [
            hex(policy.ssidref(it))
            for it in ("Manager", "zinc", "acid", "disk(zinc)", "disk(acid)")
        ]

    assert numbers() == ["0x10001", "0x20002", "0x30003", "0x40000", "0x50000"]
    assert numbers(numbering="document") == numbers()
    assert numbers(numbering="alphabetical") == [
        "0x10001",
        "0x30003",
        "0x20002",
        "0x50000",
        "0x40000",
    ]
    assert numbers(map_file=acm.MAP) == numbers(numbering="alphabetical")


def test_a_map_that_numbers_otherwise_is_refused():
    said = refused(map_file=acm.MAP, numbering="document")
    assert (
        "map_file:1:1: the map's CHWALL number of 'acid' is 2; numbered in document order it is 3"
        in said
    )
    other = acm.MAP.replace("site.tenants\n", "other\n", 1)
    assert "map_file:1:1: the map is of policy 'other', not 'site.tenants'" in refused(
        map_file=other
    )
    missing = acm.MAP.replace("STE    zinc", "STE    lead")
    assert any(
        "'lead' is 3; numbered in document order it is no such label" in it
        for it in refused(map_file=missing)
    )


def test_a_policy_of_2005_is_in_two_files_and_takes_some_accepting():
    given = {"labels": acm.OLD_LABELS}
    assert refused(acm.OLD) == [
        "F:1:1: no SecurityLabelTemplate: policies of 2005 have it in a file of its own (--labels NAME-security_label_template.xml)"
    ]
    assert refused(acm.OLD, **given) == [
        "labels:21:7: resource 'hard disk (hda)': it cannot be a name here (--accept names calls it 'hard_disk_(hda)')"
    ]
    made = imported(acm.OLD, accept=frozenset({"names"}), **given)
    policy = made.policy
    assert (policy.name, policy.version, policy.bootstrap) == ("pair", (1, 0), "m")
    assert policy.definition.conflict_sets == {"conflict_1": ("a", "b")}
    assert policy.decide("vbd", "m", "m", "hard_disk_(hda)")
    assert [str(it) for it in made.notes] == [
        "F:2:17: no Version: ACM's first policies had none; it is 1.0 here",
        "labels:21:7: resource 'hard disk (hda)' is called 'hard_disk_(hda)'",
    ]


def test_labels_of_another_policy_are_refused_unless_accepted():
    foreign = acm.OLD_LABELS.replace(
        "pair-security_policy.xml", "dir/else-security_policy.xml"
    ).replace("hard disk (hda)", "hda")
    assert refused(acm.OLD, labels=foreign) == [
        "labels:5:17: these labels are for 'dir/else-security_policy.xml', not for policy 'pair' (--accept foreign-labels takes them)"
    ]
    assert imported(acm.OLD, labels=foreign, accept=frozenset({"foreign-labels"})).policy.has_label(
        "x"
    )
    assert (
        refused(acm.NEW, labels=foreign)[0]
        == "F:23:3: labels are here and in labels; give one of them"
    )


# What is replaced in NEW by what, what is refused then, and the word that accepts it, if any.
REFUSALS = [
    ("<Type>w_zinc</Type><Type>w_acid</Type></Conflict>", "<Type>w_zinc</Type><Type>w_acid</Type><Type>gone</Type></Conflict>", ["F:20:69: conflict set 'rivals' has the undefined type 'gone': ACM dropped it silently, and the wall with it (--accept conflict-types does so too)"], "conflict-types"),
    ("<Version>1.3<", "<Version>1-3<", ["F:9:5: version '1-3' is not major.minor, two integers (--accept version reads two numbers)"], "version"),
    ("<Version>1.3<", "<Version>1x3<", ["F:9:5: version '1x3' is not major.minor, two integers (--accept version reads two numbers)"], "version"),
    ("<Version>1.3<", "<Version>one<", ["F:9:5: version 'one' is not major.minor, two integers"], None),
    ("<Version>1.3<", "<Version>1.2<", ["F:10:54: FromPolicy's version is not older than this policy's"], None),
    ("<PolicyName>site.tenants</PolicyName>\n    <Date", "<PolicyName>a:b</PolicyName>\n    <Date", ["F:7:5: policy 'a:b': a colon parts the words of a label (--accept names calls it 'a_b')"], "names"),
    ("<Name>acid</Name>", "<Name>a cid</Name>", ["F:36:9: label 'a cid': it cannot be a name here (--accept names calls it 'a_cid')"], "names"),
    ("<Name>acid</Name>", "<Name>any</Name>", ["F:36:9: label 'any': it cannot be a name here (--accept names calls it 'any_')"], "names"),
    ("<Name>acid</Name>", "<Name>../../etc</Name>", ["F:36:9: label '../../etc': it cannot be a name here (--accept names calls it 'x.._.._etc')"], "names"),
    ("<Name>acid</Name>", "<Name>__UNLABELED__</Name>", ["F:36:9: label __UNLABELED__: ACM gave it to whatever had no label; here such domains get nothing (--accept unlabeled takes it over as 'UNLABELED')"], "unlabeled"),
    ("<ChineseWallTypes><Type>w_acid</Type></ChineseWallTypes>", "<ChineseWallTypes><Type>w_sys</Type></ChineseWallTypes><ChineseWallTypes><Type>w_acid</Type></ChineseWallTypes>", ["F:38:64: more than one list of types (--accept type-lists joins them)"], "type-lists"),
    ("<Name>acid</Name>", "<Name>zinc</Name>", ["F:36:9: label 'zinc' was defined at F:26:9"], None),
    ("<Name>acid</Name>", "<Name>zinc_old</Name>", ["F:26:9: label 'zinc_old' is still in the policy; it cannot be renamed away"], None),
    ("<Name>disk(acid)</Name>", "<Name>disk(zinc)</Name>", ["F:47:9: resource 'disk(zinc)' was defined at F:43:9"], None),
    ("<Type>zinc</Type><Type>acid</Type><Type/>", "<Type>zinc</Type><Type>acid</Type><Type>acid</Type>", ["F:14:57: STE type 'acid' was defined at F:14:40"], None),
    ('bootstrap="Manager"', 'bootstrap="manager"', ["F:24:5: bootstrap label 'manager' is not one of the labels"], None),
    (' bootstrap="Manager"', "", ["F:24:5: no bootstrap label: which label is domain 0's?"], None),
    ("<Type>acid</Type></SimpleTypeEnforcementTypes>\n      </ResourceLabel>", "<Type>acid</Type><Type>zinc</Type></SimpleTypeEnforcementTypes>\n      </ResourceLabel>", ["F:47:9: resource 'disk(acid)' needs exactly one STE type"], None),
    ("<Type>acid</Type></SimpleTypeEnforcementTypes>\n      </ResourceLabel>", "<Type/></SimpleTypeEnforcementTypes>\n      </ResourceLabel>", ["F:47:9: resource 'disk(acid)' needs exactly one STE type"], None),
    ("<Type>w_acid</Type></ChineseWallTypes>\n      </V", "<Type>w_acid</Type><Type>w_zinc</Type></ChineseWallTypes>\n      </V", ["F:36:9: label 'acid' holds w_acid and w_zinc of conflict set 'rivals': ACM let it start alone, and what might start beside it hung on the order"], None),
    ("<Type>w_acid</Type></ChineseWallTypes>\n      </V", "<Type>nix</Type></ChineseWallTypes>\n      </V", ["F:38:27: undefined Chinese Wall type 'nix'"], None),
    ('priority="PrimaryPolicyComponent"', 'priority="First"', ["F:17:3: priority is PrimaryPolicyComponent or absent, not 'First'"], None),
    ("<SimpleTypeEnforcement>", '<SimpleTypeEnforcement priority="PrimaryPolicyComponent">', ["F:17:3: two components say they are the primary one"], None),
    ('xmlns="http://www.ibm.com"\n', "\n", ['F:3:1: element SecurityPolicyDefinition has no namespace; ACM\'s policies have xmlns="http://www.ibm.com"'], None),
    ("<Date>", "<When/><Date>", ["F:8:5: PolicyHeader has no When; known here: PolicyName, Name, PolicyUrl, Reference, Date, NameSpaceUrl, Version, FromPolicy"], None),
    ("<Date>2008-01-02</Date>\n    <Version>1.3</Version>", "<Version>1.3</Version><Date>2008-01-02</Date>", ["F:8:27: Date stands too late: the order is PolicyName, Name, PolicyUrl, Reference, Date, NameSpaceUrl, Version, FromPolicy"], None),
    ("<Date>", "<Date/><Date>", ["F:8:12: a second Date in PolicyHeader"], None),
    ("<Date>", "text<Date>", ["F:6:3: text in PolicyHeader: 'text'"], None),
    ("<Type>sys</Type><Type>zinc</Type><Type>acid</Type><Type/>", "<Type x='1'>sys</Type><Type>zinc</Type><Type>acid</Type>", ["F:14:7: Type has no attribute 'x'"], None),
    ("<PolicyName>site.tenants</PolicyName>\n    <Date", "<Date", ["F:6:3: PolicyHeader lacks its PolicyName"], None),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "wanted", "word"), REFUSALS)
def test_what_acm_took_wrongly_is_refused_at_its_place(old, new, wanted, word):
    assert acm.NEW.count(old) == 1, "a case must change one place"
    text = acm.NEW.replace(old, new)
    assert refused(text) == wanted
    if word is None:
        assert refused(text, accept=frozenset(adopt.ACCEPTABLE)) == [
            it.split(" (--accept")[0] for it in wanted
        ]
    else:
        made = imported(text, accept=frozenset({word}))
        assert made.notes or word == "type-lists"


def test_everything_is_said_at_once():
    text = (
        acm.NEW.replace("<Name>acid<", "<Name>a:cid<")
        .replace(">1.3<", ">x<")
        .replace('="Manager"', '="m"')
    )
    assert [it.split(": ")[0] for it in refused(text)] == ["F:9:5", "F:24:5", "F:36:9"]


def test_without_type_enforcement_nobody_shares_unless_accepted():
    start, end = acm.NEW.index("  <SimpleTypeEnforcement>"), acm.NEW.index("  <ChineseWall ")
    text = acm.NEW[:start] + acm.NEW[end:]
    for name in ("sys", "zinc", "acid"):
        text = text.replace(f"<Type>{name}</Type>", "")
    assert refused(text)[0].endswith("here nobody can (--accept no-ste gives all one type)")
    policy = imported(text, accept=frozenset({"no-ste"})).policy
    assert policy.decide("vif", "zinc", "acid")
    assert not policy.admit(("zinc",), "acid").granted


def test_a_conflict_set_of_one_type_parts_nobody_and_is_left_out_aloud():
    text = acm.NEW.replace(
        "<Type>w_zinc</Type><Type>w_acid</Type></Conflict>", "<Type>w_zinc</Type></Conflict>"
    )
    made = imported(text)
    assert made.policy.definition.conflict_sets == {}
    assert [str(it) for it in made.notes] == [
        "F:20:7: conflict set 'rivals' is left out: with 1 types it parts nobody"
    ]


def test_a_label_in_one_component_alone_is_remarked_on():
    text = acm.NEW.replace("<ChineseWallTypes><Type>w_acid</Type></ChineseWallTypes>\n", "")
    assert "ACM numbered it in one half of its ssidrefs only" in str(imported(text).notes[0])


def test_type_enforcement_as_the_primary_component_is_remarked_on():
    text = acm.NEW.replace(' priority="PrimaryPolicyComponent"', "")
    text = text.replace(
        "<SimpleTypeEnforcement>", '<SimpleTypeEnforcement priority="PrimaryPolicyComponent">'
    )
    (note,) = imported(text).notes
    assert str(note).startswith("F:12:3: the primary component: the C compiler put its numbers")


def test_unlabeled_is_numbered_last_so_that_it_moves_no_other():
    text = acm.NEW.replace(">zinc</Name>", ">__UNLABELED__</Name>")
    policy = imported(text, accept=frozenset({"unlabeled"})).policy
    assert policy.labels == ("Manager", "acid", "UNLABELED")


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (BOMB + acm.OLD, "a document type declaration is refused: entities can hide or grow text"),
        (f'<?xml version="1.0"?>\n{BOMB}', "F:2:"),
        (acm.OLD.replace("<Type>t<", "<Type>&t;<"), "F:4:39: not XML: undefined entity"),
        ("<?xml-stylesheet href='x'?>" + acm.OLD, "F:1:1: processing instructions are refused: xml-stylesheet"),
        (b'<?xml version="1.0" encoding="utf-7"?><a/>', "F:1:1: encoding utf-7 is not read"),
        (b'<?xml version="1.0" encoding="nix"?><a/>', "F:1:1: encoding nix is not read"),
        (acm.NEW.encode("utf-16"), "encoding"),
        (b"", "F:1:1: not XML: no element found"),
        (b"\xff", "F:1:1: not XML: "),
        ("<a xmlns='http://www.ibm.com'>" * 20, "F:1:481: nested more than 16 deep"),
        ("<a xmlns='http://www.ibm.com'/>", "F:1:1: expected SecurityPolicyDefinition, found a"),
        ('<x:a xmlns:x="http://other"/>', "F:1:1: element a has namespace 'http://other'"),
        (acm.NEW[:-10], "not XML: "),
        (b"<" * (16 * 2**20 + 1), "F:1:1: the file has 16777217 bytes; at most 16777216 are read"),
    ],
    ids=lambda it: repr(it)[:40],
)  # fmt: skip
def test_xml_that_could_harm_or_hide_is_refused(data, said):
    assert said in refused(data)[0]


def test_too_many_elements_are_refused(monkeypatch):
    monkeypatch.setattr("broker.text.xml_tree.MAX_ELEMENTS", 5)
    assert "more than 5 elements" in refused()[0]


RESOURCES = """\
# xend's own
resources = {'phy:/dev/vg/zinc': ('ACM', 'site.tenants', 'disk(zinc)'),
 'phy:vg/zinc2': ('site.tenants', 'disk(zinc)'),
 'file:/images/a.img': ('ACM', 'site.tenants', 'disk(acid)'),
 'tap:aio:/images/b.img': ('ACM', 'site.tenants', 'disk(acid)'),
 'vlan:100': ('ACM', 'site.tenants', 'disk(acid)'),
 'phy:sda1': ('INV_ACM', 'site.tenants', 'disk(acid)'),
 'phy:sda2': ('ACM', '*', '__INACCESSIBLE__')}
"""


def test_resource_labels_become_matches_and_what_cannot_is_said():
    made = imported(resources=RESOURCES)
    policy = made.policy
    found = {
        path: policy.resource_for("vbd", {"params": path})
        for path in (
            "/dev/vg/zinc",
            "/dev/vg/zinc2",
            "/images/a.img",
            "/images/b.img",
            "/dev/sda1",
            "/dev/sda2",
        )
    }
    assert found == {
        "/dev/vg/zinc": "disk(zinc)",
        "/dev/vg/zinc2": "disk(zinc)-2",
        "/images/a.img": "disk(acid)",
        "/images/b.img": "disk(acid)-2",
        "/dev/sda1": None,
        "/dev/sda2": None,
    }
    # Further disks of one label are numbered behind all others.
    assert policy.ssidref("disk(acid)") == 5 << 16
    assert [str(it) for it in made.notes] == [
        "resources:6:2: resource 'vlan:100' is no disk: left out; label it by hand",
        "resources:7:2: resource 'phy:sda1' has an invalidated label: left out, so denied",
        "resources:8:2: resource 'phy:sda2' is nobody's: left out, so denied",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import os\nresources = {}", "resources:1:1: only 'resources = {...}' is read; nothing here is run"),
        ("resources = dict()", "resources:1:1: only 'resources = {...}' is read"),
        ("resources = {}\n__import__('os').system('x')", "resources:2:1: only 'resources = {...}' is read"),
        ("resources = {'phy:/a': f()}", "resources:1:24: a label is ('ACM', 'policy', 'label')"),
        ("resources = {'phy:/a': ('ACM', 'site.tenants', 'disk(' + 'acid)')}", "resources:1:24: a label is"),
        ("resources = {**x}", "resources:1:16: a resource is named by a text"),
        ("resources = {1: ('a', 'b')}", "resources:1:14: a resource is named by a text"),
        ("resources = {'phy:/a': ('DAC', 'site.tenants', 'x')}", "resources:1:24: label 'DAC:site.tenants:x' is not of type ACM"),
        ("resources = {'phy:/a': ('ACM', 'other', 'x')}", "resources:1:24: resource 'phy:/a' is labelled under policy 'other', not 'site.tenants'"),
        ("resources = {'phy:/a': ('ACM', 'site.tenants', 'x')}", "resources:1:14: resource label 'x' is not in the policy"),
        ("resources = {'phy:/a*': ('ACM', 'site.tenants', 'disk(acid)')}", "resources:1:14: resource 'phy:/a*': a path with '*', '..' or control characters cannot be matched"),
        ("resources = {'phy:/x/../a': ('ACM', 'site.tenants', 'disk(acid)')}", "cannot be matched"),
        ("resources = {'phy:/a': ('site.tenants', 'disk(acid)'), 'file:/a': ('site.tenants', 'disk(zinc)')}", "resources:1:56: resource 'file:/a': /a has a label already"),
        ("resources = {", "resources:1:13: not Python: '{' was never closed"),
        ("(" * 5000, "resources:1:"),
        ("resources = {'a\0': 1}", "resources:1:1: not Python"),
        ("#" * (4 * 2**20 + 1), "at most 4194304 are read"),
    ],
    ids=lambda it: repr(it)[:40],
)  # fmt: skip
def test_resource_labels_are_parsed_never_run(text, said):
    assert said in refused(resources=text)[0]


def test_the_command_line_knows_every_word_of_accept():
    assert policy_acm._acceptable() == tuple(adopt.ACCEPTABLE)
