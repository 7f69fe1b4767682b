"""The pictures of the docs: whole, self-contained, and drawn from what was recorded."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tools.recording import cast as recording  # noqa: E402 - tools/ is not on the path of tests
from tools.recording.cast import COLUMNS, read, record, written  # noqa: E402 - the same
from tools.recording.picture import picture  # noqa: E402 - the same

IMAGES = ROOT / "docs/images"
DRAWINGS = sorted(IMAGES.glob("*.svg"))
_SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.name)
def test_a_drawing_is_whole_and_fetches_and_runs_nothing(path):
    text = path.read_text()
    tree = ET.fromstring(text)
    assert tree.tag == f"{_SVG}svg"
    assert tree.find(f"{_SVG}title").text
    names = {element.tag.removeprefix(_SVG) for element in tree.iter()}
    assert not names & {"script", "image", "foreignObject", "use", "a"}
    assert not re.search(r"url\((?!#)|@import|\bon[a-z]+=|href", text)
    assert "prefers-color-scheme: dark" in text
    assert len(text) < 100_000


def test_every_variable_of_a_drawing_has_a_light_and_a_dark_value():
    for path in DRAWINGS:
        text = path.read_text()
        light, _, dark = text.partition("prefers-color-scheme: dark")
        for name in set(re.findall(r"var\((--[a-z-]+)\)", text)):
            assert f"{name}:" in light, (path, name)
            assert f"{name}:" in dark, (path, name)


def test_the_recording_is_drawn_as_it_is():
    cast = (IMAGES / "demo.cast").read_text()
    drawn = (IMAGES / "demo.svg").read_text()
    assert picture(cast) == drawn, "run: python -m tools.recording --draw"
    header = json.loads(cast.splitlines()[0])
    assert (header["version"], header["width"]) == (2, COLUMNS)
    times = [at for at, _ in read(cast)]
    assert times == sorted(times)
    assert "GRANT" in cast
    assert "DENY" in cast
    assert not re.search(r"/home/|/root|/tmp/", cast)


def test_a_program_is_recorded_with_its_colours_and_pauses_are_cut(monkeypatch):
    monkeypatch.setattr(recording, "_LONGEST_PAUSE", 0.0)
    moments = record([sys.executable, "-c", r"print('\x1b[1;31mred\x1b[0m <&> end')"])
    assert "".join(text for _, text in moments).startswith("\x1b[1;31mred\x1b[0m <&> end")
    assert {at for at, _ in moments} == {0.0}
    drawn = picture(written(moments, title="it"))
    ET.fromstring(drawn)
    assert '<tspan class="b red">red</tspan>' in drawn
    assert "&lt;&amp;&gt; end" in drawn


def test_a_program_that_fails_is_no_recording():
    with pytest.raises(Exception, match="exit status 3"):
        record([sys.executable, "-c", "raise SystemExit(3)"])


def test_what_the_readme_shows_is_there():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(r"!\[[^\]]*\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / name).is_file(), (page, name)
