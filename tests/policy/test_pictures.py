"""Pictures of policies: they show what is decided, and stay readable with thirty labels."""

import itertools
import json
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from support.definitions import definitions, possible_requests

from broker.cli.main import main
from broker.core.picture import FRAMES, picture
from broker.core.policy import Policy
from broker.policy.graph_dot import dot
from broker.policy.graph_layout import layout
from broker.policy.graph_svg import svg
from broker.policy.load import load_policy

SVG = "{http://www.w3.org/2000/svg}"


def shown_edges(made):
    """Every pair of labels that an edge says: class, frontend, backend, resources, reading."""
    for edge in made.edges:
        one, other = (made.nodes[it].labels for it in (edge.frontend, edge.backend))
        for frontend, backend in itertools.product(one, other):
            yield edge.device_class, frontend, backend, edge.resources, edge.reading
            if edge.both:
                yield edge.device_class, backend, frontend, edge.resources, edge.reading


@settings(max_examples=40, deadline=None)
@given(definitions())
def test_a_picture_shows_what_is_decided(definition):
    policy = Policy(definition)
    made = picture(policy)
    granted = {}
    for kind, frontend, backend, resource, mode in possible_requests(definition):
        if policy.decide(kind, frontend, backend, resource, mode):
            modes, over = granted.setdefault((kind, frontend, backend), (set(), set()))
            modes.add(mode)
            over.update([] if resource is None else [resource])
    told = {
        (kind, one, other): (reading, set(over))
        for kind, one, other, over, reading in shown_edges(made)
        if kind != FRAMES
    }
    assert told == {key: (modes == {"r"}, over) for key, (modes, over) in granted.items()}
    labels = [label for node in made.nodes for label in node.labels]
    assert sorted(labels) == sorted(policy.labels)
    apart = {
        frozenset((one, other))
        for wall in made.walls
        for one in made.nodes[wall.one].labels
        for other in made.nodes[wall.other].labels
    }
    pairs = itertools.combinations(policy.labels, 2)
    assert apart == {frozenset(it) for it in pairs if policy._wall.conflicts([it[0]], it[1])}
    frames = {
        frozenset((one, other))
        for one, other in itertools.combinations_with_replacement(policy.labels, 2)
        if policy.frames(one, other).granted
    }
    if FRAMES in made.classes:
        shown = {frozenset((a, b)) for kind, a, b, *_ in shown_edges(made) if kind == FRAMES}
    else:
        shown = {frozenset((a, b)) for kind, a, b, *_ in shown_edges(made) if kind == "vif"}
    assert shown == frames
    ET.fromstring(svg(made))
    assert dot(made).count("->") == len(made.edges) + len(made.walls)


TENANTS = ("acme", "bolt", "corto", "delta", "ember", "fjord", "gusto", "helix", "ivory")


def hosting():
    types = ", ".join(f"{name}, {name}_disk" for name in TENANTS)
    lines = [
        'policy: hosting\nversion: "1.0"',
        f"ste_types: [sys, bank, {types}]",
        "chinese_wall_types: [w1, w2]\nconflict_sets: {banks: [w1, w2]}\nbootstrap: dom0",
        f"labels:\n  dom0: {{ste: [sys, bank, {types}]}}",
        *(
            f"  {name}_{tier}: {{ste: [{name}, {name}_disk]}}"
            for name in TENANTS
            for tier in ("web", "app", "db")
        ),
        "  bank_1: {ste: [bank], chinese_wall: [w1]}\n  bank_2: {ste: [bank], chinese_wall: [w2]}",
        "classes: {vif: {default: deny}}",
        "channels:\n  - {allow: {class: vif, frontend: any, backend: dom0}}",
        *(f"  - {{allow: {{class: vif, between: [{it}_web, {it}_app]}}}}" for it in TENANTS),
        *(f"  - {{allow: {{class: vif, between: [{it}_app, {it}_db]}}}}" for it in TENANTS),
    ]
    return load_policy("\n".join(lines).encode(), "P")


def test_thirty_labels_do_not_cover_one_another():
    made = picture(hosting())
    assert len(made.nodes) == 30
    placed = layout(made)
    for one, other in itertools.combinations(placed.boxes, 2):
        apart_x = abs(one.x - other.x) >= (one.width + other.width) / 2
        apart_y = abs(one.y - other.y) >= (one.height + other.height) / 2
        assert apart_x or apart_y, (one, other)
    for box in placed.boxes:
        assert abs(box.x) + box.width / 2 <= placed.width / 2
        assert abs(box.y) + box.height / 2 <= placed.height / 2
    # Whom all talk to stands in the middle.
    assert (placed.boxes[0].x, placed.boxes[0].y) == (0, 0)


def test_a_picture_names_everything_and_needs_nothing_else():
    root = ET.fromstring(svg(picture(hosting())))
    words = {text.text for text in root.iter(f"{SVG}text")}
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert {
        "hosting 1.0",
        "dom0",
        "acme_web",
        "bank_2",
        "wall: never run at the same time",
    } <= words
    assert "vif: acme_web to dom0" in titles
    assert "frames: acme_web and acme_app" in titles
    assert "wall banks: bank_1 and bank_2 never run together" in titles
    assert not any("href" in name for element in root.iter() for name in element.attrib)


def test_labels_that_nothing_tells_apart_are_one_box():
    names = ", ".join(f"l{number}: {{ste: [t]}}" for number in range(40))
    text = (
        f'policy: p\nversion: "1.0"\nste_types: [t]\nbootstrap: l0\nlabels: {{{names}}}\n'
        "classes: {vif: {default: ste}}\n"
    )
    made = picture(load_policy(text.encode(), "P"))
    assert [len(node.labels) for node in made.nodes] == [1, 39]
    drawn = svg(made)
    assert "and 34 more" in drawn
    assert "vif: l0 and " in drawn
    assert " among themselves" in drawn
    # Frames pass where vifs may attach: they are not drawn twice.
    assert made.classes == ("vif",)


def test_dot_quotes_and_styles():
    text = """\
policy: p
version: "1.0"
ste_types: [t]
chinese_wall_types: [w, x]
conflict_sets: {s: [w, x]}
bootstrap: a
labels: {a: {ste: [t]}, b(1): {ste: [t], chinese_wall: [w]}, c: {ste: [t], chinese_wall: [x]}}
resources: {r1: {ste: [t]}, r2: {ste: [t]}, r3: {ste: [t]}, r4: {ste: [t]}}
classes: {vbd: {default: deny}}
channels: [{allow: {class: vbd, frontend: b(1), backend: a, mode: r}}]
"""
    lines = dot(picture(load_policy(text.encode(), "P"))).splitlines()
    assert '  n0 [label="a\\nt", fillcolor=lightgrey];' in lines
    assert (
        '  n1 -> n0 [color="#1f6fb4", label="vbd (reading)\\nr1, r2, r3 and 1 more", style=dashed];'
    ) in lines
    assert any("wall: s" in line and "n1 -> n2 [dir=none" in line for line in lines)
    assert lines[-1] == "}"


@pytest.fixture
def run(capfdbinary, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        'policy: p\nversion: "1.0"\nste_types: [t]\nbootstrap: a\nlabels: {a: {ste: [t]}}\n'
        "classes: {vif: {default: ste}, vbd: {default: deny}}\n"
    )

    def brokerctl(*arguments):
        code = main(["policy", "graph", str(path), *arguments])
        captured = capfdbinary.readouterr()
        return code, captured.out.decode(), captured.err.decode()

    return brokerctl


def test_graph_on_the_command_line(run):
    code, out, _ = run()
    assert code == 0
    assert out.startswith('digraph "p 1.0" {')
    code, out, _ = run("--format", "svg", "--class", "vif")
    assert code == 0
    assert "vbd" not in out
    ET.fromstring(out)
    assert json.loads(run("--json")[1])["format"] == "dot"
    assert run("--class", "frames")[0] == 0
    code, out, err = run("--class", "nix")
    assert (code, out) == (2, "")
    assert "has no class 'nix'" in err
