"""The response surface of a search as a map: its height over the shares, and where it may be as good as at its top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scalesearch.agenda import accuracies, arms
from scalesearch.optimum import STEPS, lattice, worse
from scalesearch.plan import Layout, Plan
from scalesearch.ranking import fitted_surface
from scalesearch.samples import Shares, summed_up
from scalesearch.trials import TrialResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Terrain:
    """A surface on a lattice of shares."""

    step: float
    """Between neighbours of the lattice, of a share."""
    points: tuple[Shares, ...]
    """No farther out than the arms."""
    heights: tuple[float, ...]
    """Posterior mean at each point, without the roughness of single networks [%]."""
    worse: tuple[float, ...]
    """Probability that a point is worse than the top by more than the margin; the region of `Optimum.region` is where
    it is below `CONFIDENCE`."""


def terrain(plan: Plan, layout: Layout, results: Sequence[TrialResult]) -> Terrain | None:
    """The surface that the ranking of these trials rests on; None if there is too little for one."""
    found = arms(layout)
    lengths = sorted({result.key.rung for result in results if result.key.stage == "search"} | {plan.epochs})
    rungs = [summed_up(found, accuracies(results, "search", length)) for length in lengths]
    fitted = fitted_surface(found, rungs)
    if fitted is None:
        return None
    surface, draws = fitted
    points = lattice(surface.shares)
    heights = (draws.coefficients @ surface.basis.at(points).T).mean(axis=0)
    return Terrain(
        step=1 / STEPS,
        points=tuple((float(depth), float(width), float(side)) for depth, width, side in points),
        heights=tuple(map(float, heights)),
        worse=tuple(map(float, worse(surface, draws, plan.margin, points))),
    )
