"""Contours over triangles: what of a triangle lies between two heights, where one crosses it, and lines around many."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from scalesearch.report.figure import Place

Corner: TypeAlias = tuple[float, float, float]
"""x, y and the height there; between corners heights are linear."""


def between(corners: Sequence[Corner], low: float, high: float) -> tuple[Place, ...]:
    """The part of a triangle whose height is from `low` to `high`; empty where there is none.

    >>> between([(0, 0, 0.0), (1, 0, 1.0), (0, 1, 0.0)], 0.5, 2.0)
    ((0.5, 0.0), (1, 0), (0.5, 0.5))
    """
    left = _above([(x, y, -height) for x, y, height in _above(corners, low)], -high)
    return tuple((round(x, 5), round(y, 5)) for x, y, _ in left) if len(left) > 2 else ()


def _above(corners: Sequence[Corner], level: float) -> list[Corner]:
    """A polygon without what lies below a height."""
    kept: list[Corner] = []
    for one, other in zip(corners, [*corners[1:], *corners[:1]], strict=True):
        if one[2] >= level:
            kept.append(one)
        if (one[2] >= level) != (other[2] >= level):
            kept.append(_at(one, other, level))
    return kept


def _at(one: Corner, other: Corner, level: float) -> Corner:
    one, other = sorted((one, other))  # the same place from both triangles of an edge
    part = (level - one[2]) / (other[2] - one[2])
    return one[0] + part * (other[0] - one[0]), one[1] + part * (other[1] - one[1]), level


def crossing(corners: Sequence[Corner], level: float) -> tuple[Place, ...]:
    """The two ends of a height's line across a triangle; empty where it does not cross.

    >>> crossing([(0, 0, 0.0), (1, 0, 1.0), (0, 1, 0.0)], 0.5)
    ((0.5, 0.0), (0.5, 0.5))
    """
    sides = zip(corners, [*corners[1:], *corners[:1]], strict=True)
    ends = [_at(one, other, level) for one, other in sides if (one[2] >= level) != (other[2] >= level)]
    return tuple((round(x, 5), round(y, 5)) for x, y, _ in ends)


def outlines(pieces: Iterable[Sequence[Place]]) -> Iterator[list[Place]]:
    """Closed lines around polygons that lie side by side, without the edges that two of them share; holes have theirs.

    >>> list(outlines([[(0, 0), (1, 0), (0, 1)], [(1, 0), (1, 1), (0, 1)]]))
    [[(0, 0), (0, 1), (1, 1), (1, 0)]]
    """
    joined: defaultdict[Place, set[Place]] = defaultdict(set)
    for piece in pieces:
        for one, other in zip(piece, [*piece[1:], *piece[:1]], strict=True):
            if one != other:
                joined[one] ^= {other}
                joined[other] ^= {one}
    for start in list(joined):
        while joined[start]:  # an even number of edges meets in every corner, so a walk ends where it began
            line = [start]
            while joined[line[-1]]:
                following = min(joined[line[-1]])
                joined[line[-1]].remove(following)
                joined[following].remove(line[-1])
                line.append(following)
            yield line[:-1]
