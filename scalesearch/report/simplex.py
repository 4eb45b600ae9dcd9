"""The shares of depth, width and resolution as a triangle: candidates, the surface, where it may be highest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scalesearch.outcome import Outcome
from scalesearch.ranking import Row
from scalesearch.report.contours import Corner, between, crossing
from scalesearch.report.figure import Axis, Cells, Drawn, Figure, Line, Lines, Mark, Missing, Note, Place, Spot, Spots
from scalesearch.report.ranked import kind_of, tip
from scalesearch.space import REFERENCES
from scalesearch.surface import CONFIDENCE
from scalesearch.terrain import Terrain

HEIGHT = 3**0.5 / 2
LEVELS = 6
"""Steps of the surface's shading."""
FINEST = 0.01
"""Accuracies are not written finer than this [points]."""
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
    id, title = "simplex", "Accuracy over the shares"
    if outcome is None or not outcome.layout.is_level:
        why = "No trial has reached its full length."
        if outcome is not None:
            why = "Under the paper's rounding candidates cost different amounts, so shares alone do not explain them."
        return Missing(id=id, title=title, why=why)
    return Figure(
        id=id,
        title=title,
        caption=f"The nearer a corner, the more of the growth goes there. {_said(outcome, terrain)}",
        x=Axis(title="", low=-0.02, high=1.02),
        y=Axis(title="", low=-0.07, high=HEIGHT + 0.06),
        marks=(
            *_surface(terrain, outcome.plan.margin),
            *_ground(),
            *_candidates(outcome),
            *_references(outcome),
            *_optimum(outcome, terrain),
        ),
        height=560,
        is_square=True,
    )


def is_flat(terrain: Terrain, margin: float) -> bool:
    """Whether nothing on a surface differs by what counts as a difference."""
    return max(terrain.heights) - min(terrain.heights) < max(margin, FINEST)


def _flat(margin: float) -> str:
    return f"flat: less than {max(margin, FINEST):g} points between highest and lowest"


def _said(outcome: Outcome, terrain: Terrain | None) -> str:
    ranking, margin = outcome.ranking, outcome.plan.margin
    if ranking.surface is None or terrain is None:
        return "No surface is fitted; candidates stand on their own means."
    beyond = "Corners are blank beyond what was trained: there is no surface."
    if is_flat(terrain, margin):
        return f"The surface is {_flat(margin)}. {beyond}"
    found = ranking.surface.optimum
    shares = ", ".join(
        f"{name} {100 * share:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
        for name, share, low, high in zip(
            ("depth", "width", "resolution"), found.shares, found.low, found.high, strict=True
        )
    )
    region = f"{100 * found.region:.0f} % of the shares within the trained range may be as good"
    return f"The surface is highest at {shares}; {region}, whatever single networks add. {beyond}"


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
    yield Note(x=corners[0][0], y=corners[0][1] + 0.015, text="all depth", kind="corner depth", side="above")
    yield Note(x=corners[1][0], y=corners[1][1] - 0.015, text="all width", kind="corner width", side="below")
    yield Note(x=corners[2][0], y=corners[2][1] - 0.015, text="all resolution", kind="corner resolution", side="below")


def _surface(terrain: Terrain | None, margin: float) -> Iterator[Mark]:
    """The fitted surface in steps, and the edge of the region that may be as good as its top."""
    if terrain is None:
        return
    low, high = min(terrain.heights), max(terrain.heights)
    count = 1 if is_flat(terrain, margin) else LEVELS
    step = (high - low) / count
    triangles = list(_triangles(terrain))
    cells: list[tuple[tuple[Place, ...], int, str]] = []
    for level in range(count):
        ends = low + level * step, low + (level + 1) * step
        tip = f"surface {ends[0]:.2f} to {ends[1]:.2f} %"
        pieces = (between(_corners(terrain, three, terrain.heights), *ends) for three in triangles)
        cells += [(piece, level, tip) for piece in pieces if piece]
    names = [f"surface {low:.2f} %", *[""] * (count - 2), f"{high:.2f} %"] if count > 1 else [_flat(margin)]
    yield Cells(kind="surface", levels=tuple(names), cells=tuple(cells))
    crossed = (crossing(_corners(terrain, three, terrain.worse), CONFIDENCE) for three in triangles)
    edge = tuple(Line(places=places) for places in crossed if places)
    if edge:
        yield Lines(kind="region", name="edge of what may be as good", lines=edge)


def _triangles(terrain: Terrain) -> Iterator[tuple[int, int, int]]:
    """Neighbours on the lattice, three by three, as places in `points`."""
    size = round(1 / terrain.step)
    at = {(round(size * depth), round(size * width)): index for index, (depth, width, _) in enumerate(terrain.points)}
    for depth, width in at:
        for others in (((depth + 1, width), (depth, width + 1)), ((depth + 1, width), (depth + 1, width - 1))):
            if all(other in at for other in others):
                yield at[depth, width], at[others[0]], at[others[1]]


def _corners(terrain: Terrain, three: tuple[int, int, int], values: Sequence[float]) -> list[Corner]:
    return [(*place(terrain.points[index]), values[index]) for index in three]


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
        Spot(x=place(shares)[0], y=place(shares)[1], tip=f"reference {name}", label=name, side=None)
        for name, shares in REFERENCES.items()
        if max(shares) < 1
    ]
    yield Spots(kind="reference", name="reference points", spots=tuple(spots))


def _optimum(outcome: Outcome, terrain: Terrain | None) -> Iterator[Mark]:
    surface = outcome.ranking.surface
    if surface is None or terrain is None or is_flat(terrain, outcome.plan.margin):
        return
    x, y = place(surface.optimum.shares)
    yield Spots(kind="optimum", name="top of the surface", spots=(Spot(x=x, y=y, tip=_said(outcome, terrain)),))
