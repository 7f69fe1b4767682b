"""brokerctl spec graph and replay: what they print, and their exit codes."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BORN = [
    {"t": 0, "side": "frontend", "key": "state", "value": "1", "writer": "toolstack"},
    {"t": 0, "side": "backend", "key": "state", "value": "1", "writer": "toolstack"},
]
EARLY = [*BORN, {"t": 1.5, "side": "frontend", "key": "state", "value": "4"}]


@pytest.fixture
def trace(tmp_path):
    def written(*lines):
        path = tmp_path / "trace.jsonl"
        texts = [it if isinstance(it, str) else json.dumps(it) for it in lines]
        path.write_text("".join(f"{text}\n" for text in texts))
        return path

    return written


@pytest.mark.parametrize("name", ["vif", "vbd", "console-primary"])
def test_a_fine_trace_is_ok_and_exit_0(run, trace, name):
    assert run("spec", "replay", "--class", name, trace(*BORN)) == (0, '{"ok":true}\n', "")
    assert run("spec", "replay", "--class", name, trace()) == (0, '{"ok":true}\n', "")
    assert run("--json", "spec", "replay", "--class", name, trace(*BORN))[1] == '{"ok":true}\n'


def test_a_line_for_each_violation_and_exit_1(run, trace):
    code, out, err = run("spec", "replay", "--class", "vbd", trace(*EARLY))
    lines = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (1, "")
    assert all(set(line) == {"violation", "party", "rule", "t"} for line in lines)
    assert {(line["party"], line["t"]) for line in lines} == {("frontend", 1.5)}
    assert "frontend.state.early" in {line["rule"] for line in lines}


def test_a_trace_on_standard_input(run):
    data = "".join(json.dumps(line) + "\n" for line in EARLY).encode()
    assert run("spec", "replay", "--class", "vbd", "-", stdin=data)[0] == 1


BAD = [
    ("nonsense", "1:1: JSON is malformed"),
    ('{"t":0,"side":"frontend","key":"a"}', "1:1: Object missing required field `value`"),
    ('{"t":0,"side":"middle","key":"a","value":"1"}', "1:1: Invalid enum value 'middle'"),
    ('{"t":0,"side":"frontend","key":"","value":"1"}', "1:1: 'key' is empty"),
    ('{"t":1e300,"side":"frontend","key":"a","value":"1"}', "1:1: 't' is no time in seconds"),
    ('{"t":0,"side":"frontend","key":"a","value":"1","x":1}', "1:1: Object contains unknown"),
    (json.dumps(EARLY[2]) + "\n" + json.dumps(BORN[0]), "2:1: time runs backwards: 0 after 1.5"),
]


@pytest.mark.parametrize(("text", "said"), BAD)
def test_what_is_no_trace_is_exit_2_with_its_line(run, trace, text, said):
    path = trace(text)
    code, out, err = run("spec", "replay", "--class", "vif", path)
    assert (code, out) == (2, "")
    assert f"{path}:{said}" in err


def test_a_missing_trace_class_or_directory_is_exit_2(run, trace, tmp_path):
    code, _, err = run("spec", "replay", "--class", "vif", tmp_path / "none")
    assert code == 2
    assert "cannot be read" in err
    code, _, err = run("spec", "replay", "--class", "../vif", trace(*BORN))
    assert code == 2
    assert "no description of '../vif' in this directory; there are: 9pfs, " in err
    assert run("spec", "replay", "--class", "vif", trace(*BORN), "--specs", tmp_path)[0] == 2
    assert run("spec", "replay", trace(*BORN))[0] == 2
    assert run("spec", "graph", "--specs", tmp_path)[0] == 2


def test_the_state_diagrams_are_dot(run):
    code, out, _ = run("spec", "graph", "--class", "vbd")
    assert code == 0
    assert out.startswith("digraph protocols {")
    assert out.count("{") == out.count("}")
    assert '"vbd frontend 3" -> "vbd frontend 4" [label="saw connected"];' in out
    assert 'label="4 connected", style=bold, xlabel=gate' in out
    assert out.count("subgraph") == 2


def test_without_a_class_all_diagrams_are_drawn(run):
    code, out, _ = run("spec", "graph")
    assert code == 0
    assert out.count("subgraph") == 2 * len(list((ROOT / "protocol_specs").glob("*.yaml")))
    assert "no state machine" in out
    code, as_json, _ = run("spec", "graph", "--json")
    assert (code, json.loads(as_json)["dot"]) == (0, out)


@pytest.mark.parametrize("name", ["graph", "replay"])
def test_help_has_an_example_in_80_columns(run, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run("spec", name, "--help")
    assert code == 0
    assert "example:" in out
    assert max(map(len, out.splitlines())) <= 80
