"""The shares of depth, width and resolution as a triangle: candidates, the surface, where it may be highest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scalesearch.outcome import Outcome
from scalesearch.ranking import Row
from scalesearch.report.figure import Axis, Cells, Drawn, Figure, Line, Lines, Mark, Missing, Note, Place, Spot, Spots
from scalesearch.report.ranked import kind_of, tip
from scalesearch.samples import Shares
from scalesearch.space import REFERENCES
from scalesearch.terrain import Terrain

HEIGHT = 3**0.5 / 2
LEVELS = 6
"""Steps of the surface's shading."""
NAMES = {
    "best": "first on budget",
    "tied": "trained, may be as good",
    "apart": "trained, told apart",
    "untrained": "not trained",
}


def place(shares: Sequence[float]) -> Place:
    """Where shares stand: depth alone above, width alone to the left, resolution alone to the right.

    >>> place((0.0, 1.0, 0.0)), place((0.0, 0.0, 1.0))
    ((0.0, 0.0), (1.0, 0.0))
    """
    depth, _, side = shares
    return side + depth / 2, depth * HEIGHT


def simplex_figure(outcome: Outcome | None, terrain: Terrain | None) -> Drawn:
    """Accuracy over the shares."""
    id, title = "simplex", "Where compute should go"
    if outcome is None or not outcome.layout.is_level:
        why = "No trial has ended at full length yet."
        if outcome is not None:
            why = "Under the paper's rounding candidates cost different amounts, so shares alone do not explain them."
        return Missing(id=id, title=title, why=why)
    return Figure(
        id=id,
        title=title,
        alt=f"A triangle of the shares of depth, width and resolution. {_said(outcome)}",
        x=Axis(title="", low=-0.1, high=1.1),
        y=Axis(title="", low=-0.09, high=HEIGHT + 0.09),
        marks=(*_surface(terrain), *_ground(), *_candidates(outcome), *_references(outcome), *_optimum(outcome)),
        height=560,
        is_square=True,
    )


def _said(outcome: Outcome) -> str:
    ranking = outcome.ranking
    if ranking.surface is None or not ranking.rests_on_surface:
        return "No surface is fitted; candidates stand on their own means."
    found = ranking.surface.optimum
    shares = ", ".join(
        f"{name} {100 * share:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
        for name, share, low, high in zip(
            ("depth", "width", "resolution"), found.shares, found.low, found.high, strict=True
        )
    )
    return f"The surface is highest at {shares}; {100 * found.region:.0f} % of all shares may be as good."


def _ground() -> Iterator[Mark]:
    """The triangle with lines at every fifth, its corners named."""
    for part in (0.2, 0.4, 0.6, 0.8):
        rest = 1 - part
        ends = (
            ((part, rest, 0.0), (part, 0.0, rest)),
            ((rest, part, 0.0), (0.0, part, rest)),
            ((rest, 0.0, part), (0.0, rest, part)),
        )
        yield Lines(kind="rule", lines=tuple(Line(places=(place(one), place(other))) for one, other in ends))
    corners = (place((1, 0, 0)), place((0, 1, 0)), place((0, 0, 1)))
    yield Lines(kind="frame", lines=(Line(places=(*corners, corners[0])),))
    yield Note(x=corners[0][0], y=corners[0][1], text="all depth", kind="corner depth", side="above")
    yield Note(x=corners[1][0], y=corners[1][1], text="all width", kind="corner width", side="below")
    yield Note(x=corners[2][0], y=corners[2][1], text="all resolution", kind="corner resolution", side="below")


def _surface(terrain: Terrain | None) -> Iterator[Mark]:
    """The fitted surface in steps, and the edge of the region that may be as good as its top."""
    if terrain is None:
        return
    low, high = min(terrain.heights), max(terrain.heights)
    span = max(high - low, 1e-9)
    cells = [
        (
            _around(shares, terrain.step),
            min(LEVELS - 1, int(LEVELS * (height - low) / span)),
            f"surface {height:.2f} % at depth {shares[0]:.0%}, width {shares[1]:.0%}, resolution {shares[2]:.0%}",
        )
        for shares, height in zip(terrain.points, terrain.heights, strict=True)
    ]
    names = [""] * LEVELS
    names[0], names[-1] = f"surface {low:.2f} %", f"{high:.2f} %"
    yield Cells(kind="surface", levels=tuple(names), cells=tuple(cells))
    edge = tuple(_edge(terrain))
    if edge:
        yield Lines(kind="region", name="edge of what may be as good", lines=edge)


def _around(shares: Shares, step: float) -> tuple[Place, ...]:
    """The hexagon of a lattice point."""
    x, y = place(shares)
    side = step / 3**0.5
    corners = ((0, 1), (HEIGHT, 0.5), (HEIGHT, -0.5), (0, -1), (-HEIGHT, -0.5), (-HEIGHT, 0.5))
    return tuple((round(x + side * dx, 5), round(y + side * dy, 5)) for dx, dy in corners)


NEIGHBOURS = ((1, 0, -1), (0, -1, 1), (-1, 0, 1), (0, 1, -1), (1, -1, 0), (-1, 1, 0))
"""Steps from a lattice point to those around it, in units of the step."""


def _edge(terrain: Terrain) -> Iterator[Line]:
    """Borders between cells inside the region and cells outside it."""
    size = round(1 / terrain.step)
    inside = {
        (round(shares[0] * size), round(shares[1] * size)): is_in
        for shares, is_in in zip(terrain.points, terrain.may_be_best, strict=True)
    }
    for (depth, width), is_in in inside.items():
        for more_depth, more_width, _ in NEIGHBOURS:
            if is_in and inside.get((depth + more_depth, width + more_width)) is False:
                yield Line(places=_border((depth, width), (depth + more_depth, width + more_width), terrain.step))


def _border(one: tuple[int, int], other: tuple[int, int], step: float) -> tuple[Place, Place]:
    """The side that two hexagons share: across the line between them, at its middle."""
    (x0, y0), (x1, y1) = (place((d * step, w * step, 1 - (d + w) * step)) for d, w in (one, other))
    middle, half = ((x0 + x1) / 2, (y0 + y1) / 2), 0.5 / 3**0.5
    across = -(y1 - y0) * half, (x1 - x0) * half
    return (middle[0] - across[0], middle[1] - across[1]), (middle[0] + across[0], middle[1] + across[1])


def _candidates(outcome: Outcome) -> Iterator[Mark]:
    ranking = outcome.ranking
    spots: dict[str, list[Spot]] = {kind: [] for kind in ("untrained", "apart", "tied", "best")}
    for row in ranking.rows:
        kind = _kind(row, outcome)
        if kind in spots:
            x, y = place(outcome.layout.candidate(row.id).shares)
            spots[kind].append(Spot(x=x, y=y, tip=tip(row)))
    for kind, found in spots.items():
        if found:
            yield Spots(kind=kind, name=NAMES[kind], spots=tuple(found))


def _kind(row: Row, outcome: Outcome) -> str:
    kind = kind_of(row, outcome.ranking)
    return kind if row.seeds or kind == "off" else "untrained"


def _references(outcome: Outcome) -> Iterator[Mark]:
    """The named points where they are asked for; their networks stand nearby."""
    if outcome.plan.space.budget <= 1:
        return
    spots = [
        Spot(x=place(shares)[0], y=place(shares)[1], tip=f"reference {name}", label=name)
        for name, shares in REFERENCES.items()
        if max(shares) < 1
    ]
    yield Spots(kind="reference", name="reference points", spots=tuple(spots))


def _optimum(outcome: Outcome) -> Iterator[Mark]:
    ranking = outcome.ranking
    if ranking.surface is None or not ranking.rests_on_surface:
        return
    x, y = place(ranking.surface.optimum.shares)
    yield Spots(kind="optimum", name="top of the surface", spots=(Spot(x=x, y=y, tip=_said(outcome)),))
