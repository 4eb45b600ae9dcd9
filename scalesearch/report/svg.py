"""A `Figure` as SVG text at a given width, drawn without a browser."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from scalesearch.report.contours import outlines
from scalesearch.report.figure import Axis, Cells, Figure, Line, Lines, Mark, Note, Place, Side, Spot, Spots, Zone

NARROW, BROAD = frozenset("fijlrt.,:;'()/- "), frozenset("mwMW%<>")
LINE = 18
"""Height of a row of the key [px]."""
RADIUS = 4.5
OVERHANG = 4
"""What a label may stand out of the drawing [px]."""
SIDES: tuple[Side, ...] = ("right", "left", "above", "below")
HOLLOW = ("untrained", "before")
"""Points that a label may rather cover than full ones."""
STYLE = Path(__file__).with_name("figures.css")
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 forbids, even escaped."""
HEAD = '<svg class="figure"'
"""What every figure begins with."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """The rectangle that axes span, and what leads from data to it."""

    figure: Figure
    left: float
    top: float
    width: float
    height: float
    across: int
    """Width of the whole picture."""

    @property
    def figure_right(self) -> float:
        """Where the column beside the drawing ends."""
        return self.left + self.width + 8 + max((_across(text) for _, text in self.figure.beside), default=0)

    def x(self, value: float) -> float:
        return self.left + self.width * _part(value, self.figure.x)

    def y(self, value: float) -> float:
        return self.top + self.height * (1 - _part(value, self.figure.y))

    def at(self, place: Place) -> str:
        return f"{self.x(place[0]):.1f},{self.y(place[1]):.1f}"


@dataclass(frozen=True, slots=True)
class _Box:
    """What a label or a point covers [px]."""

    left: float
    top: float
    right: float
    bottom: float

    def shared(self, other: _Box) -> float:
        """The area that both cover [px²]."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(across, 0.0) * max(down, 0.0)


def _across(text: str) -> float:
    """About how wide a text of 12 px is in the widest of the usual sans-serifs [px]."""
    return sum(4.5 if letter in NARROW else 11.5 if letter in BROAD else 7.7 for letter in text)


def _part(value: float, axis: Axis) -> float:
    if axis.is_log:
        return math.log(value / axis.low) / math.log(axis.high / axis.low)
    return (value - axis.low) / (axis.high - axis.low)


def svg(figure: Figure, width: int, *, alone: bool = False) -> str:
    """The figure as an `<svg>` element.

    Args:
        figure: what to draw.
        width: of the picture [px].
        alone: whether it is a file of its own, with its name and its style inside and a white ground; beside the
            heading and the caption of a page it is silent.
    """
    key = list(_key(figure, width))
    rows = 1 + max((row for row, _ in key), default=-1)
    frame = _frame(figure, width, 10 + LINE * rows)
    below = 44 if figure.x.ticks else 4
    height = round(frame.top + frame.height + below)
    body = [*(text for _, text in key), *_axes(frame)]
    body += [text for mark in figure.marks for text in _drawn(mark, frame)]
    head = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    if not alone:
        return f'{HEAD} {head} aria-hidden="true">{"".join(body)}</svg>'
    said = f"<title>{_escaped(figure.title)}</title><desc>{_escaped(figure.caption)}</desc>"
    ground = f'<rect class="ground" width="{width}" height="{height}"/>'
    head += ' role="img" xmlns="http://www.w3.org/2000/svg"'
    return f"{HEAD} {head}>{said}<style>{_plain_style()}</style>{ground}{''.join(body)}</svg>"


def _plain_style() -> str:
    """The style sheet in what every program that reads SVG knows: light colours in the place of variables."""
    head, _, rules = STYLE.read_text(encoding="utf-8").partition("\n}\n")
    for name, light in re.findall(r"(--[a-z]+): light-dark\((#[0-9a-f]+),", head):
        rules = rules.replace(f"var({name})", light)
    return rules


def _frame(figure: Figure, width: int, top: float) -> _Frame:
    names = [text for _, text in figure.y.ticks]
    left = 12 + max(map(_across, names), default=0) if names else 16
    top += 20 if figure.y.title else 14 if figure.beside else 6
    inner = width - left - 18 - max((_across(text) for _, text in figure.beside), default=0)
    height = figure.height
    if figure.is_square:
        span = (figure.y.high - figure.y.low) / (figure.x.high - figure.x.low)
        wide = min(inner, height / span)
        left, inner, height = left + (inner - wide) / 2, wide, wide * span
    return _Frame(figure, left, top, inner, height, width)


def _key(figure: Figure, width: int) -> Iterator[tuple[int, str]]:
    """The meaning of each named mark, as rows of (row, SVG) above the drawing."""
    x, row = 10.0, 0
    for form, kind, name in _entries(figure):
        step = 30 + _across(name)
        if x + step > width and x > 10:
            x, row = 10.0, row + 1
        y = 12 + LINE * row
        yield (
            row,
            f'{_sample(form, kind, x + 6, y)}<text class="key" x="{x + 17:.1f}" y="{y + 4}">{_escaped(name)}</text>',
        )
        x += step


def _entries(figure: Figure) -> Iterator[tuple[str, str, str]]:
    for mark in figure.marks:
        if isinstance(mark, Cells):
            yield from (("cell", f"{mark.kind} level{level}", name) for level, name in enumerate(mark.levels) if name)
        elif not isinstance(mark, Note) and mark.name:
            yield type(mark).__name__.lower(), mark.kind, mark.name


def _sample(form: str, kind: str, x: float, y: float) -> str:
    if form == "spots":
        return _symbol(kind, x, y)
    if form == "lines":
        return f'<path class="line {kind}" d="M{x - 7:.1f},{y}h14"/>'
    return f'<rect class="{form} {kind} sample" x="{x - 6:.1f}" y="{y - 6}" width="12" height="12"/>'


def _symbol(kind: str, x: float, y: float, tip: str = "") -> str:
    """A dot; marks of trainings that ended early are crosses."""
    title = f"<title>{_escaped(tip)}</title>" if tip else ""
    if kind in ("stopped", "failed", "off"):
        return f'<path class="spot {kind}" d="M{x - 4:.1f},{y - 4:.1f}l8,8m0,-8l-8,8">{title}</path>'
    if kind in ("theirs", "reference"):
        side = 2 * RADIUS - 1
        return (
            f'<rect class="spot {kind}" x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" width="{side}" height="{side}"'
            f' transform="rotate(45 {x:.1f} {y:.1f})">{title}</rect>'
        )
    return f'<circle class="spot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}">{title}</circle>'


def _axes(frame: _Frame) -> Iterator[str]:
    figure, bottom, right = frame.figure, frame.top + frame.height, frame.left + frame.width
    if figure.y.title:
        x, y = frame.left - 2 - max((_across(text) for _, text in figure.y.ticks), default=0), frame.top - 9
        yield f'<text class="title" x="{x:.1f}" y="{y:.1f}">{_escaped(figure.y.title)}</text>'
    for value, text in figure.y.ticks:
        y = frame.y(value)
        if figure.y.has_grid:
            yield f'<path class="grid" d="M{frame.left:.1f},{y:.1f}H{right:.1f}"/>'
        yield f'<text class="tick" x="{frame.left - 7:.1f}" y="{y + 4:.1f}" text-anchor="end">{_escaped(text)}</text>'
    for value, text in figure.beside:
        yield _text("tick", frame.figure_right, frame.y(value), text, "left", -4)
    taken = -math.inf
    for value, text in figure.x.ticks:
        x, half = frame.x(value), _across(text) / 2
        if figure.x.has_grid:
            yield f'<path class="grid" d="M{x:.1f},{frame.top:.1f}V{bottom:.1f}"/>'
        if x - half > taken + 6:
            taken = x + half
            yield f'<text class="tick" x="{x:.1f}" y="{bottom + 17:.1f}" text-anchor="middle">{_escaped(text)}</text>'
    if figure.x.title:
        yield _text("title", right, bottom + 32, figure.x.title, "left", -4)


def _drawn(mark: Mark, frame: _Frame) -> Iterator[str]:
    if isinstance(mark, Zone):
        yield _zone(mark, frame)
    elif isinstance(mark, Cells):
        yield from _cells(mark, frame)
    elif isinstance(mark, Lines):
        yield from (text for line in mark.lines for text in _line(mark.kind, line, frame))
    elif isinstance(mark, Spots):
        yield from _spots(mark, frame)
    else:
        half = 0.6 * _across(mark.text) + 6  # in bold
        x = min(max(frame.x(mark.x), half), frame.across - half)  # a corner's name may not leave the picture
        yield _text(mark.kind, x, frame.y(mark.y), mark.text, mark.side, 0)


def _zone(mark: Zone, frame: _Frame) -> str:
    figure = frame.figure
    x0, x1 = (frame.x(end if value is None else value) for value, end in zip(mark.x, _ends(figure.x), strict=True))
    y0, y1 = (frame.y(end if value is None else value) for value, end in zip(mark.y, _ends(figure.y), strict=True))
    title = f"<title>{_escaped(mark.tip)}</title>" if mark.tip else ""
    box = f'x="{x0:.1f}" y="{y1:.1f}" width="{max(x1 - x0, 0.5):.1f}" height="{max(y0 - y1, 0.5):.1f}"'
    return f'<rect class="zone {mark.kind}" {box}>{title}</rect>'


def _ends(axis: Axis) -> tuple[float, float]:
    return axis.low, axis.high


def _cells(mark: Cells, frame: _Frame) -> Iterator[str]:
    """Each level as what lies within its outlines: pieces side by side would show their seams."""
    for level in range(len(mark.levels)):
        own = [(corners, tip) for corners, at, tip in mark.cells if at == level]
        if own:
            path = "".join(f"M{'L'.join(map(frame.at, line))}Z" for line in outlines(corners for corners, _ in own))
            kind, title = f"cell {mark.kind} level{level}", f"<title>{_escaped(own[0][1])}</title>"
            yield f'<path class="{kind}" fill-rule="evenodd" d="{path}">{title}</path>'


def _line(kind: str, line: Line, frame: _Frame) -> Iterator[str]:
    title = f"<title>{_escaped(line.tip)}</title>" if line.tip else ""
    yield f'<path class="line {kind}" d="M{"L".join(map(frame.at, line.places))}">{title}</path>'
    if line.label:
        yield _line_label(kind, line, frame)


def _line_label(kind: str, line: Line, frame: _Frame) -> str:
    """Behind the line, else before it; where there is no room for either, above its end."""
    left, right, y = frame.left, frame.left + frame.width, frame.y(line.places[0][1])
    start, end = frame.x(line.places[0][0]), frame.x(line.places[-1][0])
    room = RADIUS + 4 + _across(line.label) - OVERHANG
    if end + room <= right:
        return _text(f"label {kind}", end, y, line.label, "right", RADIUS)
    if start - room >= left:
        return _text(f"label {kind}", start, y, line.label, "left", RADIUS)
    return _text(f"label {kind}", right, y - 8, line.label, "left", -4)


def _spots(mark: Spots, frame: _Frame) -> Iterator[str]:
    """Points, then their labels; one that would run into another one, or out of the picture, is left to the tip."""
    yield from (_symbol(mark.kind, frame.x(spot.x), frame.y(spot.y), spot.tip) for spot in mark.spots)
    drawn = [one for one in frame.figure.marks if isinstance(one, Spots)]
    full, hollow = (
        [_point_box(spot, frame) for one in drawn if (one.kind in HOLLOW) == is_hollow for spot in one.spots]
        for is_hollow in (False, True)
    )
    taken: list[_Box] = []
    for spot in (spot for spot in mark.spots if spot.label):
        sides: tuple[Side, ...] = (spot.side,) if spot.side else SIDES
        boxes = {side: _label_box(spot, side, frame) for side in sides}
        free: list[Side] = [
            side
            for side in sides
            if boxes[side].left >= 0 and boxes[side].right <= frame.across and not any(map(boxes[side].shared, taken))
        ]
        if free:
            side = min(free, key=lambda one: [sum(map(boxes[one].shared, points)) for points in (full, hollow)])
            taken.append(boxes[side])
            yield _text(f"label {mark.kind}", frame.x(spot.x), frame.y(spot.y), spot.label, side, RADIUS)


def _point_box(spot: Spot, frame: _Frame) -> _Box:
    """With its edge."""
    x, y, half = frame.x(spot.x), frame.y(spot.y), RADIUS + 1
    return _Box(x - half, y - half, x + half, y + half)


def _label_box(spot: Spot, side: Side, frame: _Frame) -> _Box:
    """With two pixels to its sides."""
    dx, dy, anchor = _beside(side, RADIUS)
    wide, base = _across(spot.label), frame.y(spot.y) + dy
    left = frame.x(spot.x) + dx - wide * {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
    return _Box(left - 2, base - 11, left + wide + 2, base + 2)


def _beside(side: Side, gap: float) -> tuple[float, float, str]:
    """From a place to the foot of the text on one side of it, and which part of the text stands there."""
    dx = {"left": -gap - 4, "right": gap + 4}.get(side, 0.0)
    dy = {"above": -gap - 4, "below": gap + 12}.get(side, 4.0)
    return dx, dy, {"left": "end", "right": "start"}.get(side, "middle")


def _text(kind: str, x: float, y: float, text: str, side: Side, gap: float) -> str:
    dx, dy, anchor = _beside(side, gap)
    return f'<text class="{kind}" x="{x + dx:.1f}" y="{y + dy:.1f}" text-anchor="{anchor}">{_escaped(text)}</text>'


def _escaped(text: str) -> str:
    """A text that XML takes."""
    return escape(NO_XML.sub("\ufffd", text))
