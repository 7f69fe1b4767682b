"""A recording as one SVG that plays by itself: each line appears in its time, and the text scrolls.

It is made for programs that write line after line, as the demo does; no cursor is moved.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from rich.text import Text

from tools.recording.cast import COLUMNS, ROWS, read

if TYPE_CHECKING:
    from rich.style import Style

_CELL: Final = 7.83
"""The width of a character of 13 pixels, in pixels; lines are stretched to it exactly."""
_LINE: Final = 18
_MARGIN: Final = 16
_TOP: Final = 44
_REST: Final = 6.0
"""Seconds that the end stands before it begins anew."""
_COLOURS: Final = {1: "red", 2: "green", 3: "yellow", 4: "blue", 5: "magenta", 6: "cyan"}
"""A terminal's, by their numbers; 8 more is the bright one."""
_STYLE: Final = """\
    svg { --paper: #f7f9fb; --bar: #e3e9ef; --ink: #1d2733; --dim: #5f6b77; --green: #17703a;
      --red: #b3261e; --yellow: #7d5700; --blue: #1f5fa8; --cyan: #0f6b75; --magenta: #84309a; }
    @media (prefers-color-scheme: dark) {
      svg { --paper: #10171f; --bar: #1c2631; --ink: #dfe7ee; --dim: #93a2b1; --green: #62cf8d;
        --red: #ff8a80; --yellow: #e8c164; --blue: #7db4f0; --cyan: #6fd0da; --magenta: #dda0f0; }
    }
    text { font: 13px "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: var(--ink);
      white-space: pre; }
    .title { font-family: Inter, "Segoe UI", Roboto, Helvetica, Arial, sans-serif;
      fill: var(--dim); text-anchor: middle; }
    .b { font-weight: 700; } .d { fill: var(--dim); } .i { font-style: italic; }
"""


def picture(cast: str) -> str:
    """The SVG."""
    lines = _lines(cast)
    whole = (lines[-1][0] if lines else 0.0) + _REST
    width = round(2 * _MARGIN + COLUMNS * _CELL)
    height = _TOP + ROWS * _LINE + _MARGIN
    colours = "".join(f"    .{it} {{ fill: var(--{it}); }}\n" for it in _COLOURS.values())
    steps, shown = _steps(lines, whole)
    rows = [
        f'<text class="l{_moment(at, whole)}" x="{_MARGIN}" y="{number * _LINE + 13}">'
        f"{_spans(line)}</text>"
        for number, (at, line) in enumerate(lines)
        if line.plain.strip()
    ]
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    still = f"animation-play-state: paused; animation-delay: -{whole - _REST / 2:.2f}s;"
    dots = "".join(
        f'<circle cx="{18 * at}" cy="15" r="5" fill="var(--{colour})"/>'
        for at, colour in enumerate(("red", "yellow", "green"), 1)
    )
    bar = f"M0 30 V10 A10 10 0 0 1 10 0 H{width - 10} A10 10 0 0 1 {width} 10 V30 Z"
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">
  <title id="title">make demo: what is asked, what is decided, and why</title>
  <style>
{_STYLE}{colours}    .roll {{ animation: roll {whole:.2f}s step-end infinite; }}
    @keyframes roll {{ {steps} }}
{shown}    @media (prefers-reduced-motion: reduce) {{ .roll, .roll text {{ {still} }} }}
  </style>
  <rect width="{width}" height="{height}" rx="10" fill="var(--paper)"/>
  <path d="{bar}" fill="var(--bar)"/>
  {dots}
  <text class="title" x="{width / 2:g}" y="20">make demo</text>
  <svg x="0" y="{_TOP - 8}" width="{width}" height="{ROWS * _LINE + 8}"><g class="roll">
{chr(10).join(rows)}
  </g></svg>
</svg>
"""


def _lines(cast: str) -> list[tuple[float, Text]]:
    """Each line, and when it was whole."""
    found: list[tuple[float, Text]] = []
    rest = ""
    for at, text in read(cast):
        *whole, rest = (rest + text).replace("\r\n", "\n").split("\n")
        found += [(at, Text.from_ansi(line)) for line in whole]
    if rest:
        found.append((found[-1][0] if found else 0.0, Text.from_ansi(rest)))
    return found


def _moment(at: float, whole: float) -> int:
    """A moment, in thousandths of the whole: those who share one share a rule."""
    return round(1000 * at / whole)


def _steps(lines: list[tuple[float, Text]], whole: float) -> tuple[str, str]:
    """When the text scrolls, and when the lines of each moment appear."""
    moments: dict[int, int] = {}
    for number, (at, _) in enumerate(lines, 1):
        moments[_moment(at, whole)] = number
    steps = ["0% { transform: none; }"]
    shown = ""
    for moment, count in moments.items():
        above = max(0, count - ROWS) * _LINE
        percent = f"{moment / 10:g}%"
        if above:
            steps.append(f"{percent} {{ transform: translateY(-{above}px); }}")
        shown += (
            f"    .l{moment} {{ animation: s{moment} {whole:.2f}s step-end infinite; }} "
            f"@keyframes s{moment} {{ 0% {{ opacity: 0; }} {percent} {{ opacity: 1; }} }}\n"
        )
    return " ".join(steps), shown


def _spans(line: Text) -> str:
    """A line's text, its styles as classes; each run has its place, whatever the font."""
    parts = []
    at = 0
    for run in line.divide(sorted({end for span in line.spans for end in (span.start, span.end)})):
        classes = " ".join(sorted({name for span in run.spans for name in _classes(span.style)}))
        text = escape(run.plain.rstrip("\n"), quote=False)
        if text:
            place = "" if not at else f' x="{_MARGIN + at * _CELL:.1f}"'
            parts.append(
                f'<tspan{place} class="{classes}">{text}</tspan>' if classes or place else text
            )
        at += len(run.plain)
    return "".join(parts)


def _classes(style: str | Style) -> list[str]:
    if isinstance(style, str):
        return []
    found = [name for name, on in (("b", style.bold), ("d", style.dim), ("i", style.italic)) if on]
    number = None if style.color is None else style.color.number
    if number is not None and number % 8 in _COLOURS:
        found.append(_COLOURS[number % 8])
    return found
