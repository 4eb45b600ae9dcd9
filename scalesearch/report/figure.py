"""Figures as plain values: marks in data coordinates on two axes, for whatever draws them.

`svg` draws them for paper and for the page; the page's script hands the same values to plotly for zooming. A `kind` is
a meaning (`best`, `theirs`, `stopped`), never a colour: colours stand in one style sheet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, TypeVar

T = TypeVar("T")
Place: TypeAlias = tuple[float, float]
Side = Literal["left", "right", "above", "below", "centre"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One direction of a figure; without ticks it is not drawn."""

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()
    is_log: bool = False
    has_grid: bool = True
    """Whether ticks have lines across the figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A point with what is said of it."""

    x: float
    y: float
    tip: str
    """All that is known of it, in a line."""
    label: str = ""
    """Written beside it."""
    side: Side | None = "right"
    """Where the label stands; None = where it covers the least of the points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spots:
    """Points of one meaning."""

    kind: str
    name: str
    """In the key; empty = not in it."""
    spots: tuple[Spot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A broken line through places."""

    places: tuple[Place, ...]
    tip: str = ""
    label: str = ""
    """Written at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Lines of one meaning."""

    kind: str
    name: str = ""
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A filled rectangle; an end of None is the figure's."""

    kind: str
    name: str = ""
    x: tuple[float | None, float | None] = (None, None)
    y: tuple[float | None, float | None] = (None, None)
    tip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Polygons that are filled by strength, one of a few levels."""

    kind: str
    levels: tuple[str, ...]
    """What each level means, the weakest first."""
    cells: tuple[tuple[tuple[Place, ...], int, str], ...]
    """Corners, level, tip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Text at a place."""

    x: float
    y: float
    text: str
    kind: str = "note"
    side: Side = "centre"


Mark: TypeAlias = Spots | Lines | Zone | Cells | Note


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture and what it says in words."""

    id: str
    """Short and safe in file names."""
    title: str
    caption: str
    """What it shows, in words: its caption, and what is read out in its place."""
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    height: int
    """Of the drawing, at any width [px]; of a square one the most."""
    is_square: bool = False
    """Whether a unit is as long on both axes."""
    beside: tuple[tuple[float, str], ...] = ()
    """Heights and texts of a column to the right of the drawing."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, each mark with the name of its form."""
        marks = [{"form": type(mark).__name__.lower(), **asdict(mark)} for mark in self.marks]
        return {**asdict(self), "marks": marks}


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What stands in the place of a figure that there is nothing for yet."""

    id: str
    title: str
    why: str


Drawn: TypeAlias = Figure | Missing


def evenly(values: Sequence[T], most: int) -> list[T]:
    """As many of them as may be, evenly taken.

    >>> evenly("abcdef", 3)
    ['b', 'd', 'f']
    """
    count = len(values)
    return [
        one for index, one in enumerate(values) if count <= most or (index + 1) * most // count > index * most // count
    ]


def padded(values: Sequence[float], part: float = 0.06, least: float = 0.5) -> tuple[float, float]:
    """The range of values with some room at both ends, never narrower than `least`.

    >>> padded([80.0, 90.0], part=0.1)
    (79.0, 91.0)
    """
    low, high = min(values), max(values)
    room = max(part * (high - low), (least - (high - low)) / 2)
    return low - room, high + room


def ticks(low: float, high: float, count: int = 6) -> tuple[tuple[float, str], ...]:
    """Round numbers between two ends, about `count` of them.

    >>> [text for _, text in ticks(0, 1, 5)]
    ['0.0', '0.2', '0.4', '0.6', '0.8', '1.0']
    """
    rough = max(high - low, 1e-9) / count
    power = 10.0 ** _exponent(rough)
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    digits = max(0, -_exponent(step))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = (index * step for index in range(first, last + 1))
    return tuple((round(value, digits + 2), f"{round(value, digits) + 0.0:,.{digits}f}") for value in values)


def whole_ticks(first: int, last: int) -> tuple[tuple[float, str], ...]:
    """Whole numbers between two ends, both ends among them.

    >>> [text for _, text in whole_ticks(1, 3)]
    ['1', '2', '3']
    """
    step = max(1, -(-(last - first) // 6))
    values = [*range(first, last, step), last]
    if len(values) > 2 and last - values[-2] < step / 2:
        del values[-2]
    return tuple((float(value), str(value)) for value in values)


def _exponent(value: float) -> int:
    """The power of ten at or below a positive number."""
    return int(f"{value:e}".partition("e")[2])


def decades(low: float, high: float, unit: float, name: str) -> tuple[tuple[float, str], ...]:
    """Ticks at 1, 2 and 5 of every power of ten, written in a unit.

    >>> [text for _, text in decades(4e8, 3e9, 1e9, "G")]
    ['0.5 G', '1 G', '2 G']
    """
    exponents = range(_exponent(low), _exponent(high) + 1)
    values = [factor * 10.0**exponent for exponent in exponents for factor in (1, 2, 5)]
    return tuple((value, f"{value / unit:g} {name}") for value in values if low <= value <= high)
