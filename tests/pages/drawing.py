"""The states of an account as a picture: what follows what is read from the table, where it stands is said here."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Final

from pages.states import Steps, read_phases, read_states

_STYLE: Final = """\
<style>
.paper { fill: #ffffff }
.box { fill: #ddf4ff; stroke: #0969da; stroke-width: 1.5 }
.line { fill: none; stroke: #59636e; stroke-width: 1.5 }
.head { fill: #59636e }
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.name { font-size: 15px; font-weight: 600; text-anchor: middle }
.note { fill: #59636e }
@media (prefers-color-scheme: dark) {
.paper { fill: #0d1117 } .box { fill: #12233a; stroke: #4493f8 }
.line { stroke: #9198a1 } .head { fill: #9198a1 } text { fill: #e6edf3 } .note { fill: #9198a1 }
}
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto-start-reverse">
<path class="head" d="M0 0 8 4 0 8z"/></marker></defs>
"""
_WIDTH, _HEIGHT = 940, 580
_HIGH: Final = 46.0
_LINE: Final = 17


@dataclass(frozen=True, slots=True)
class Box:
    """A state: where its middle is, what people call it, and how wide it is."""

    x: float
    y: float
    name: str
    wide: float = 170.0


@dataclass(frozen=True, slots=True)
class Arrow:
    """The path of an arrow, and where the first line of its words begins."""

    path: str
    x: float
    y: float


_BOXES: Final = {
    "NoToken": Box(95, 190, "waiting"),
    "LoginPending": Box(375, 190, "login pending"),
    "Active": Box(680, 40, "active", 200),
    "LoginRequired": Box(680, 340, "login required", 200),
    "Idle": Box(95, 480, "nothing to do"),
    "InFlight": Box(400, 480, "refreshing"),
    "Backoff": Box(705, 480, "pausing"),
}
_ARROWS: Final = {
    ("NoToken", "Active"): Arrow("M95 167V40H578", 105, 58),
    ("NoToken", "LoginPending"): Arrow("M180 190H288", 187, 181),
    ("NoToken", "LoginRequired"): Arrow("M95 213V350H578", 105, 282),
    ("LoginPending", "Active"): Arrow("M460 180H602V65", 467, 171),
    ("LoginPending", "LoginRequired"): Arrow("M460 200H602V315", 467, 217),
    ("LoginRequired", "LoginPending"): Arrow("M580 330H375V215", 383, 321),
    ("LoginRequired", "Active"): Arrow("M632 317V65", 639, 195),
    ("Active", "LoginRequired"): Arrow("M768 63V315", 775, 178),
    ("Idle", "InFlight"): Arrow("M180 472H313", 187, 424),
    ("InFlight", "Idle"): Arrow("M315 490H182", 187, 507),
    ("InFlight", "Backoff"): Arrow("M485 472H618", 492, 463),
    ("Backoff", "InFlight"): Arrow("M620 490H487", 492, 507),
    ("Backoff", "Idle"): Arrow("M705 503V550H95V505", 492, 567),
}


def build_picture() -> str:
    """The whole of docs/account.svg."""
    return draw(read_states() | read_phases())


def draw(steps: Steps) -> str:
    """ValueError for a step without an arrow, and for an arrow without a step."""
    if wrong := steps.keys() ^ _ARROWS.keys():
        raise ValueError(
            f"the arrows in {__name__} and the table in core/lifecycle.py differ: {sorted(wrong)}"
        )
    return "\n".join(_draw(steps))


def _draw(steps: Steps) -> Iterator[str]:
    label = "The states of an account, what leads from one to another, and the phases of a refresh"
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
    yield _STYLE + f'<rect class="paper" width="{_WIDTH}" height="{_HEIGHT}" rx="8"/>'
    yield '<text class="note" x="10" y="400">its refresh, while it is active, and while it is waiting where no person is needed:</text>'
    for pair, words in steps.items():
        yield from _draw_arrow(_ARROWS[pair], words)
    for box in _BOXES.values():
        yield from _draw_box(box)
    yield "</svg>\n"


def _draw_arrow(arrow: Arrow, words: list[str]) -> Iterator[str]:
    yield f'<path class="line" marker-end="url(#head)" d="{arrow.path}"/>'
    for index, word in enumerate(words):
        yield f'<text x="{arrow.x:g}" y="{arrow.y + index * _LINE:g}">{escape(word)}</text>'


def _draw_box(box: Box) -> Iterator[str]:
    place = f'x="{box.x - box.wide / 2:g}" y="{box.y - _HIGH / 2:g}" width="{box.wide:g}" height="{_HIGH:g}"'
    yield f'<rect class="box" {place} rx="6"/>'
    yield f'<text class="name" x="{box.x:g}" y="{box.y + 5:g}">{escape(box.name)}</text>'
