"""How sure it is where compute should go: the three shares with their intervals."""

from __future__ import annotations

from scalesearch.outcome import Outcome
from scalesearch.report.figure import Axis, Drawn, Figure, Line, Lines, Missing, Spot, Spots
from scalesearch.scaling import DIMENSIONS, PAPER

TICKS = ((0.0, "0"), (0.5, "50"), (1.0, "100 %"))


def shares_figure(outcome: Outcome | None) -> Drawn:
    """The best shares of log compute by the surface, with 95 % intervals; the paper's beside them."""
    id, title = "shares", "Best shares of log compute"
    surface = outcome.ranking.surface if outcome else None
    if outcome is None or surface is None or not outcome.ranking.rests_on_surface:
        why = "No interval of the shares: a response surface needs ten trained candidates, three of them repeated."
        if surface is not None:
            why = "No interval of the shares: the response surface does not fit these trials."
        return Missing(id=id, title=title, why=why)
    best = surface.optimum
    rows = list(enumerate(zip(DIMENSIONS, best.shares, best.low, best.high, strict=True)))
    paper = [
        Spot(x=share, y=-place, tip=f"the paper's: {100 * share:.0f} %") for place, share in enumerate(PAPER.shares)
    ]
    theirs = [Spots(kind="theirs", name="the paper's rule", spots=tuple(paper))] if "paper" in best.named else []
    return Figure(
        id=id,
        title=title,
        caption="Dots: where the surface is highest. Lines: 95 % intervals of it. "
        + "; ".join(
            f"{name} {100 * share:.0f} % ({100 * low:.0f} to {100 * high:.0f})" for _, (name, share, low, high) in rows
        )
        + ".",
        x=Axis(title="share of log compute", low=0, high=1.04, ticks=TICKS),
        y=Axis(title="", low=-2.5, high=0.5, ticks=tuple((-place, row[0]) for place, row in rows), has_grid=False),
        marks=(
            *(
                Lines(kind=name, lines=(Line(places=((low, -place), (high, -place))),))
                for place, (name, _, low, high) in rows
            ),
            *theirs,
            *(
                Spots(
                    kind=name,
                    name="",
                    spots=(
                        Spot(
                            x=share, y=-place, tip=f"{name} {100 * share:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
                        ),
                    ),
                )
                for place, (name, share, low, high) in rows
            ),
        ),
        height=96,
    )
