"""Bar charts as SVG, by hand: a few rectangles and texts, in colours that hold on light and dark pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import median
from typing import Final

WIDTH: Final = 760
LEFT: Final = 170
RIGHT: Final = 90
BAR: Final = 14
GAP: Final = 12
TOP: Final = 62
BOTTOM: Final = 14
LONGEST: Final = 4.0
"""A bar longer than so many medians is broken off: its number still stands beside it."""

STYLE: Final = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.note { fill: #59636e; font-size: 12px }
.ours { font-weight: 600 }
.bar0 { fill: #8c959f } .bar1 { fill: #b7bec6 } .bar2 { fill: #d5dadf }
.ours0 { fill: #0969da } .ours1 { fill: #54a0f5 } .ours2 { fill: #a5cffb }
.break { stroke: #ffffff; stroke-width: 3 }
.bar { stroke: #cf222e; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .note { fill: #9198a1 }
.bar0 { fill: #8b949e } .bar1 { fill: #626a73 } .bar2 { fill: #444c56 }
.ours0 { fill: #4493f8 } .ours1 { fill: #2b66b5 } .ours2 { fill: #1d447a }
.break { stroke: #0d1117 } .bar { stroke: #f85149 }
}"""


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars for each name, one for each of `series`. `goal` is drawn as a line across, in the bars' unit."""

    title: str
    unit: str
    series: tuple[str, ...]
    bars: dict[str, tuple[float, ...]]
    ours: str
    goal: float | None = None


def draw(chart: Chart) -> str:
    """An SVG document. Its bars are to scale, but for those that are visibly broken off."""
    longest = limit_of([value for values in chart.bars.values() for value in values])
    scale = (WIDTH - LEFT - RIGHT) / max(longest, chart.goal or 0.0, 1e-9)
    step = BAR * len(chart.series) + GAP
    height = TOP + step * len(chart.bars) + BOTTOM
    parts = [*_head(chart, height)]
    for place, (name, values) in enumerate(chart.bars.items()):
        parts += _group(name, values, TOP + place * step, scale, longest, ours=name == chart.ours)
    if chart.goal is not None:
        x = LEFT + chart.goal * scale
        parts.append(f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{height - BOTTOM}"/>')
    return "\n".join([*parts, "</svg>", ""])


def limit_of(values: Sequence[float]) -> float:
    """The length at which bars are broken off: the greatest value that is not far beyond the others."""
    most = median(values) * LONGEST
    return max((value for value in values if value <= most), default=0.0)


def _head(chart: Chart, height: int) -> list[str]:
    title = escape(f"{chart.title}, {chart.unit}")
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">',
        f"<style>\n{STYLE}\n</style>",
        f'<text class="title" x="8" y="20">{escape(chart.title)}</text>',
        *_legend(chart),
    ]


def _legend(chart: Chart) -> list[str]:
    """The unit, and for several series what each is."""
    goal = f"; the dashed line is the bar, {chart.goal:g}" if chart.goal is not None else ""
    parts = [f'<text class="note" x="8" y="42">{escape(chart.unit + goal)}</text>']
    if len(chart.series) > 1:
        for place, name in enumerate(chart.series):
            x = LEFT + 110 + place * 150
            parts.append(f'<rect class="ours{place}" x="{x}" y="32" width="12" height="12"/>')
            parts.append(f'<text class="note" x="{x + 18}" y="42">{escape(name)}</text>')
    return parts


def _group(
    name: str, values: Sequence[float], top: int, scale: float, longest: float, *, ours: bool
) -> list[str]:
    kind = "ours" if ours else "bar"
    middle = top + BAR * len(values) / 2 + 4.5
    weight = ' class="ours"' if ours else ""
    parts = [f'<text{weight} x="{LEFT - 10}" y="{middle:g}" text-anchor="end">{escape(name)}</text>']
    for place, value in enumerate(values):
        y = top + place * BAR
        width = max(min(value, longest), 0.0) * scale
        parts.append(
            f'<rect class="{kind}{place}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 2}"/>'
        )
        if value > longest:
            x = LEFT + width - 24
            parts.append(f'<line class="break" x1="{x:.1f}" x2="{x + 8:.1f}" y1="{y + BAR}" y2="{y - 2}"/>')
        parts.append(
            f'<text{weight} x="{LEFT + width + 6:.1f}" y="{y + BAR - 3}">{format_number(value)}</text>'
        )
    return parts


def format_number(value: float) -> str:
    """Three digits that count are enough to compare by."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"
