"""The ranking as a picture: a dot with its 95 % interval for every trained network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from scalesearch.plan import Layout
from scalesearch.ranking import Ranking, Row
from scalesearch.report.figure import Axis, Drawn, Figure, Line, Lines, Mark, Missing, Spot, Spots, Zone, padded, ticks
from scalesearch.verdict import chance, out_of_order

Reasons = Mapping[str, str]
NONE: Reasons = MappingProxyType({})
MOST_ROWS = 40
"""Rows of the picture; the table holds them all."""
ROW = 19
"""Height of a row [px]."""
NAMES = {
    "best": "first on budget",
    "tied": "cannot be told apart from it",
    "apart": "told apart: worse",
    "off": "off budget, never chosen",
}


def ranking_figure(
    ranking: Ranking | None,
    anchor: Sequence[float] = (),
    *,
    id: str,
    title: str,
    part: str = "validation",
    off: Reasons = NONE,
) -> Drawn:
    """Trained networks by rank.

    Args:
        ranking: what is ranked; None = nothing yet.
        anchor: accuracies of the unscaled base, by seed [%].
        id: of the figure.
        title: of the figure.
        part: of the images, that accuracies are measured on.
        off: why networks are off budget, by their ids.
    """
    rows = [row for row in ranking.rows if row.seeds] if ranking else []
    if ranking is None or not rows:
        return Missing(id=id, title=title, why="No trial has reached its full length, so there is nothing to rank.")
    shown = _shown(rows, ranking)
    ends = [end for row in shown for end in (row.low, row.high, row.estimate) if end is not None]
    level = sum(anchor) / len(anchor) if anchor else None
    low, high = padded([*ends, *([] if level is None else [level])])
    return Figure(
        id=id,
        title=title,
        caption=f"{len(shown)} of {len(rows)} trained candidates. {_said(ranking, shown)}",
        x=Axis(title=f"{part} accuracy, %", low=low, high=high, ticks=ticks(low, high)),
        y=Axis(
            title="",
            low=-len(shown) + 0.4,
            high=0.6,
            ticks=tuple((-place, row.id) for place, row in enumerate(shown)),
            has_grid=False,
        ),
        marks=(
            *_bands(shown),
            *_base(level, len(shown)),
            *_marks(shown, ranking, off),
        ),
        height=ROW * len(shown) + 20,
        beside=tuple(_chances(shown)),
    )


def _shown(rows: Sequence[Row], ranking: Ranking) -> list[Row]:
    """The first rows, and the references wherever they stand."""
    kept = {row.id for row in rows[:MOST_ROWS]} | {row.id for row in rows if row.references or row.id == ranking.leader}
    return [row for row in rows if row.id in kept]


def _said(ranking: Ranking, shown: Sequence[Row]) -> str:
    leader = next((row for row in shown if row.id == ranking.leader), None)
    if leader is None:
        return "None of them is on budget."
    interval = "" if leader.low is None else f", 95 % interval {leader.low:.2f} to {leader.high:.2f}"
    first = f"First on budget is {leader.id} with {leader.estimate:.2f} %{interval}."
    return " ".join(filter(None, (first, out_of_order(ranking))))


def kind_of(row: Row, ranking: Ranking) -> str:
    """The meaning of a row's mark."""
    if row.off_budget:
        return "off"
    if row.id == ranking.leader:
        return "best"
    return "tied" if row.tied_with_best else "apart"


def _bands(shown: Sequence[Row]) -> Iterator[Mark]:
    """The set that cannot be told apart, behind its rows."""
    first = 0
    while first < len(shown):
        last = first
        while last < len(shown) and shown[last].tied_with_best:
            last += 1
        if last > first and len(shown) > 1:
            yield Zone(kind="tied", y=(-last + 0.5, -first + 0.5))
        first = max(last, first + 1)


def _base(level: float | None, rows: int) -> Iterator[Mark]:
    if level is not None:
        yield Lines(
            kind="base",
            name="the unscaled base",
            lines=(Line(places=((level, 0.6 - rows), (level, 0.6)), tip=f"the unscaled base: {level:.2f} %"),),
        )


def _marks(shown: Sequence[Row], ranking: Ranking, off: Reasons) -> Iterator[Mark]:
    for kind, name in NAMES.items():
        own = [(place, row) for place, row in enumerate(shown) if kind_of(row, ranking) == kind]
        if not own:
            continue
        intervals = [
            Line(places=((row.low, -place), (row.high, -place)), tip=tip(row, off), label=" ".join(row.references))
            for place, row in own
            if row.low is not None and row.high is not None
        ]
        yield Lines(kind=kind, lines=tuple(intervals))
        yield Spots(
            kind=kind,
            name=name,
            spots=tuple(
                Spot(
                    x=row.estimate,
                    y=-place,
                    tip=tip(row, off),
                    label="" if intervals else " ".join(row.references),
                    side=None,
                )
                for place, row in own
            ),
        )


def off_budget(layout: Layout) -> Reasons:
    """Why networks are off budget: what they and their proxies really cost."""
    return {
        one.id: f" · off budget: {one.scaled.growth:.3f}x the base, its proxy {one.proxy.growth:.3f}x"
        for one in layout.candidates
        if one.off_budget
    }


def tip(row: Row, off: Reasons = NONE) -> str:
    """All that is known of a ranked network, in a line."""
    interval = "no interval" if row.low is None else f"95 % interval {row.low:.2f} to {row.high:.2f}"
    likely = "" if row.p_best is None else f" · P(best) {chance(row.p_best)}"
    seeds = f"{row.seeds} seed{'' if row.seeds == 1 else 's'}" if row.seeds else "not trained"
    named = f" · {', '.join(row.references)}" if row.references else ""
    return f"{row.id}: {row.estimate:.2f} %, {interval} · {seeds}{likely}{named}{off.get(row.id, '')}"


def _chances(shown: Sequence[Row]) -> Iterator[tuple[float, str]]:
    """The column of probabilities with its head."""
    if any(row.p_best is not None for row in shown):
        yield 0.9, "P(best)"
    for place, row in enumerate(shown):
        if row.p_best is not None:
            yield -place, chance(row.p_best)
