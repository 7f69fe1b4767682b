"""docs/performance.md from what was measured last: `python -m tools.bench.page`.

A table and a picture a bench. The pictures show each item's cost beside its target, which is 1;
what has no target is in the table alone. The text around them is written by people, in
docs/performance.in.md; the page made of both is not edited by hand.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

import pygal
from pygal.style import Style

from tools.bench.__main__ import BENCHES, LAST, number

ROOT: Final = Path(__file__).parents[2]
TEXT: Final = ROOT / "docs" / "performance.in.md"
PAGE: Final = ROOT / "docs" / "performance.md"
IMAGES: Final = ROOT / "docs" / "images"
_PLACE: Final = re.compile(r"^<!-- bench: ([a-z-]+) -->$", re.MULTILINE)
_STYLE: Final = Style(
    background="white",
    plot_background="white",
    font_family="sans-serif",
    colors=("#2f6f9f", "#b04a3a"),
    label_font_size=11,
    value_font_size=11,
    legend_font_size=11,
)


def main() -> int:
    """Write the page; 1 if a bench it speaks of was not measured."""
    measured = {it.stem: json.loads(it.read_text()) for it in LAST.glob("*.json")}
    text = TEXT.read_text()
    wanted = _PLACE.findall(text)
    missing = [name for name in wanted if name not in measured]
    if missing or set(wanted) != set(BENCHES):
        print(f"not measured: {missing}; not in {TEXT}: {set(BENCHES) - set(wanted)}")
        return 1
    PAGE.write_text(_PLACE.sub(lambda found: _section(found[1], measured[found[1]]), text))
    print(f"{PAGE} and {len(wanted)} pictures")
    return 0


def _section(name: str, results: list[dict[str, Any]]) -> str:
    """One bench's table and picture, and the command that makes them."""
    rows = [
        "| what | ours | floor or peer | ratio | target | met |",
        "|---|---:|---:|---:|---:|---|",
        *map(_row, results),
    ]
    besides = [f"- {it['name']}: {it['beside']}" for it in results if it["beside"]]
    lines = [f"`make bench ONLY={name}`", "", *rows]
    if besides:
        lines += ["", "Beside it:", "", *besides]
    if _draw(name, results):
        lines += ["", f"![{name}: cost, the target is 1](images/bench-{name}.svg)"]
    return "\n".join(lines)


def _row(result: dict[str, Any]) -> str:
    met = {True: "yes", False: "**no**", None: ""}[result["met"]]
    ours, floor, ratio, target = (
        number(result[key]) for key in ("ours", "floor", "ratio", "target")
    )
    return f"| {result['name']} | {ours} {result['unit']} | {floor} | {ratio} | {target} | {met} |"


def _draw(name: str, results: list[dict[str, Any]]) -> bool:
    """Write the picture; whether there was anything to draw."""
    aimed = [it for it in results if it["target"] and it["ratio"]]
    if not aimed:
        return False
    chart = pygal.HorizontalBar(
        style=_STYLE, js=(), show_legend=False, print_values=True, height=90 + 26 * len(aimed),
        width=760, x_title="cost over target", range=(0, max(1.2, *map(_share, aimed))),
        value_formatter=lambda value: f"{value:.2f}", disable_xml_declaration=True,
    )  # fmt: skip
    chart.x_labels = [it["name"] for it in reversed(aimed)]
    colours = ("#2f6f9f", "#b04a3a")
    chart.add(
        "cost",
        [{"value": _share(it), "color": colours[not it["met"]]} for it in reversed(aimed)],
    )
    picture = chart.render(is_unicode=True)
    # pygal draws a number of its own into every picture's names.
    picture = re.sub(r"chart-[0-9a-f-]{36}", f"bench-{name}", picture)
    (IMAGES / f"bench-{name}.svg").write_text(picture + "\n")
    return True


def _share(result: dict[str, Any]) -> float:
    return float(result["ratio"] / result["target"])


if __name__ == "__main__":
    sys.exit(main())
