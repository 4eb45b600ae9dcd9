"""The search space: a budget, the grid of (alpha, beta, gamma) under the constraint, and the reference points.

Knows nothing of networks: `candidates` turns the points into them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from scalesearch.errors import SpaceError
from scalesearch.levelling import TOLERANCE
from scalesearch.scaling import PAPER, Coefficients

Policy = Literal["level", "paper"]
LARGEST_BUDGET = 16.0
"""Budgets reach from 1/16 to 16 times the base: a search at phi = 1 is a small step."""

MOST_GRID_VALUES = 1_000_000
"""Of (alpha, beta, gamma), before the constraint."""

REFERENCES: dict[str, tuple[float, float, float]] = {
    "depth": (1.0, 0.0, 0.0),
    "width": (0.0, 1.0, 0.0),
    "resolution": (0.0, 0.0, 1.0),
    "dwr": (1 / 3, 1 / 3, 1 / 3),  # uniform compound scaling. Source: arXiv:2103.06877
    "fast": (0.1, 0.8, 0.1),  # Source: arXiv:2103.06877
    "paper": PAPER.shares,  # Source: arXiv:1905.11946, section 4
    "effnetx-gpu": (0.38, 0.42, 0.20),  # Source: arXiv:2102.05610, fitted to its published GPU family
}
"""Log-compute shares (depth, width, resolution) of the named points that every ranking contains."""


def budget_form(text: str) -> tuple[float, str]:
    """Amount and unit (`X`, `M` or `G`) of a budget as written.

    Raises:
        SpaceError: no such form.
    """
    match = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*(x|M|G)", text.strip(), flags=re.IGNORECASE)
    if match is None:
        mend = "write a growth such as 2x or 0.5x, or multiply-adds such as 800M or 1.2G, no exponents"
        raise SpaceError(f"budget {text!r} is not understood", mend=mend)
    return float(match[1]), match[2].upper()


def budget_text(text: str) -> str:
    """A budget spelt in one way.

    >>> budget_text(" 2.0X"), budget_text("800m")
    ('2x', '800M')
    """
    amount, unit = budget_form(text)
    return f"{amount:g}{'x' if unit == 'X' else unit}"


def parse_budget(text: str, base_macs: int) -> float:
    """Growth of compute that a text such as `2x`, `0.5x`, `800M` or `1.2G` asks for.

    Args:
        text: a growth (`x`) or an amount of compute (`M`, `G`) [multiply-adds].
        base_macs: compute of the base [multiply-adds].

    Raises:
        SpaceError: no such form, not positive, out of reach, or nothing to scale.

    >>> parse_budget("1.5x", 400_000_000), parse_budget("800M", 400_000_000)
    (1.5, 2.0)
    """
    amount, unit = budget_form(text)
    growth = amount if unit == "X" else amount * {"M": 1e6, "G": 1e9}[unit] / base_macs
    if not 1 / LARGEST_BUDGET <= growth <= LARGEST_BUDGET:
        bounds = f"1/{LARGEST_BUDGET:g}x to {LARGEST_BUDGET:g}x"
        raise SpaceError(f"budget {text!r} is {growth:.4g}x the base", mend=f"ask for {bounds}")
    if abs(growth - 1) <= TOLERANCE:
        mend = f"ask for more than {1 + TOLERANCE:g}x or less than {1 - TOLERANCE:g}x"
        raise SpaceError(f"budget {text!r} asks for nothing: it is the base itself, within {TOLERANCE:.0%}", mend=mend)
    return growth


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Which points of the rule are looked at, and how they become networks."""

    budget: float
    """Growth of compute asked for at phi = 1."""
    policy: Policy = "level"
    """`level`: networks of equal compute. `paper`: the paper's rounding."""
    step: float
    """Distance of neighbouring grid values."""
    tolerance: float
    """Points with |alpha·beta²·gamma² - budget| below it are kept."""

    def __post_init__(self) -> None:
        if not 1 / LARGEST_BUDGET <= self.budget <= LARGEST_BUDGET:
            raise SpaceError(f"budget {self.budget!r}", mend=f"it must be 1/{LARGEST_BUDGET:g} to {LARGEST_BUDGET:g}")
        if not (math.isfinite(self.step) and self.step >= 0.01):
            raise SpaceError(f"step {self.step:g}", mend="it must be at least 0.01")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise SpaceError(f"tolerance {self.tolerance:g}", mend="it must be 0 or more")

    @classmethod
    def of(
        cls, budget: float, *, policy: Policy = "level", step: float | None = None, tolerance: float | None = None
    ) -> Space:
        """A space with the default grid of its budget: step 0.05·max(1, log2 budget), tolerance 0.05·budget."""
        return cls(
            budget=budget,
            policy=policy,
            step=round(0.05 * max(1.0, math.log2(budget)), 6) if step is None else step,
            tolerance=0.05 * budget if tolerance is None else tolerance,
        )

    def grid(self) -> list[Coefficients]:
        """The points under the constraint, in rising order of alpha, beta, gamma.

        For budgets of at least 1 alpha runs in [1, budget], beta and gamma in [1, √budget], the root rounded
        outwards to the step; below 1 the bounds are reciprocal.

        Raises:
            SpaceError: the constraint keeps no point; the message names the nearest.
        """
        alphas, betas = self._axis(self.budget, math.floor), self._axis(math.sqrt(self.budget), math.ceil)
        if len(betas) ** 2 * len(alphas) > MOST_GRID_VALUES:
            fault = f"step {self.step:g} makes a grid of {len(betas) ** 2 * len(alphas):,} values"
            raise SpaceError(fault, mend=f"raise --step until it has at most {MOST_GRID_VALUES:,}")
        near = [_point(a, b, c) for b in betas for c in betas for a in self._alphas(alphas, b * b * c * c)]
        if not near:
            every = (_point(a, b, c) for b in betas for c in betas for a in alphas)
            nearest = min(every, key=lambda point: abs(point.nominal - self.budget))
            raise SpaceError(
                f"no grid point has |alpha·beta²·gamma² - {self.budget:g}| < {self.tolerance:g}",
                mend=f"the nearest is {nearest.text} with {nearest.nominal:.4g}; raise --tolerance or lower --step",
            )
        return sorted(near, key=lambda point: (point.alpha, point.beta, point.gamma))

    def _axis(self, end: float, whole: Callable[[float], int]) -> list[float]:
        steps = whole(round(abs(end - 1) / self.step, 9))
        values = [round(1 + math.copysign(index * self.step, end - 1), 9) for index in range(steps + 1)]
        return sorted(value for value in values if value > 0)

    def _alphas(self, alphas: list[float], rest: float) -> list[float]:
        return [alpha for alpha in alphas if round(abs(alpha * rest - self.budget), 9) < round(self.tolerance, 9)]


def _point(alpha: float, beta: float, gamma: float) -> Coefficients:
    return Coefficients(alpha=alpha, beta=beta, gamma=gamma)
