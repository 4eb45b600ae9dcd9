"""Where a response surface is highest: the best shares with their intervals, and the region that is as good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scalesearch.basis import CORNERS, Array
from scalesearch.samples import Shares
from scalesearch.surface import CONFIDENCE, Draws, Surface

STEPS = 40
"""A maximum on the edge of the range, and the region, are looked for at shares in steps of one in this many."""
DIGITS = 4
"""Decimals of a share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimum:
    """The shares at which the surface, without the roughness of single networks, is highest."""

    shares: Shares
    """Posterior means."""
    low: Shares
    """Lower ends of the 95 % intervals."""
    high: Shares
    """Upper ends of the 95 % intervals."""
    region: float
    """Part of all shares within the arms' range that may be as good as the optimum, up to the margin."""
    named: dict[str, bool]
    """For each named point: whether it lies within the region."""


def optimum(surface: Surface, draws: Draws, margin: float, named: dict[str, Shares]) -> Optimum:
    """Locate the optimum of a surface.

    Args:
        surface: the fit.
        draws: from its posterior.
        margin: a point belongs to the region unless, with 95 % probability, it is more than this worse than the
            point of the highest estimate [points].
        named: points to be placed inside or outside the region.
    """
    found = lattice(surface.shares)
    heights = draws.coefficients @ surface.basis.at(found).T
    best = _refined(surface, draws, found[heights.argmax(axis=1)])
    ends = np.percentile(best, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)], axis=0)
    chosen = np.array([*found, *named.values()])
    inside = worse(surface, draws, margin, chosen) < CONFIDENCE
    return Optimum(
        shares=_shares(best.mean(axis=0)),
        low=_shares(ends[0]),
        high=_shares(ends[1]),
        region=round(float(inside[: len(found)].mean()), DIGITS),
        named={name: bool(is_in) for name, is_in in zip(named, inside[len(found) :], strict=True)},
    )


def worse(surface: Surface, draws: Draws, margin: float, points: Array) -> Array:
    """(points,): the probability that shares are worse than those of the highest estimate by more than the margin."""
    found = draws.coefficients @ surface.basis.at(lattice(surface.shares)).T
    top = found[:, found.mean(axis=0).argmax()]
    behind = top[:, None] - draws.coefficients @ surface.basis.at(points).T
    return (behind > margin).mean(axis=0)


def _refined(surface: Surface, draws: Draws, best: Array) -> Array:
    """The exact maximum of each draw, a quadratic, where it has one within the arms' range; else the lattice's best."""
    basis = surface.basis
    _, x, y, xx, xy, yy = (draws.coefficients @ basis.mixing.T).T
    size = 4 * xx * yy - xy**2
    is_peak = (xx < 0) & (size > 0)
    size = np.where(is_peak, size, 1.0)
    flat = np.stack([(xy * y - 2 * yy * x) / size, (xy * x - 2 * xx * y) / size], axis=1)
    peaks = (flat * basis.scale + basis.centre) @ CORNERS + 1 / 3
    inside = (peaks >= surface.shares.min(axis=0)) & (peaks <= surface.shares.max(axis=0))
    chosen = is_peak & inside.all(axis=1)
    return np.where(chosen[:, None], peaks, best)


def lattice(shares: Array) -> Array:
    """(points, 3): shares in steps of one in `STEPS` that sum to 1, no farther out than the arms (arms, 3)."""
    depth, width = np.meshgrid(np.arange(STEPS + 1), np.arange(STEPS + 1), indexing="ij")
    inside = depth + width <= STEPS
    found = np.stack([depth[inside], width[inside], STEPS - depth[inside] - width[inside]], axis=1) / STEPS
    near = (found >= shares.min(axis=0) - 0.5 / STEPS) & (found <= shares.max(axis=0) + 0.5 / STEPS)
    return found[near.all(axis=1)]


def _shares(values: Array) -> Shares:
    depth, width, resolution = (round(float(value), DIGITS) for value in values)
    return depth, width, resolution
