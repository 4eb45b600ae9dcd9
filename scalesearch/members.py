"""The family of a rule: the base scaled to a row of growths, and the published tables, as values.

Members are levelled, so that each costs the growth it is named for. Knows nothing of files or modules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scalesearch.blueprint import Architecture
from scalesearch.cost import Cost
from scalesearch.errors import ScalingError
from scalesearch.levelling import TOLERANCE, Scaled
from scalesearch.limits import Limits
from scalesearch.scalable import Base, Scalable
from scalesearch.scaling import DIMENSIONS, Coefficients, Rounding

LARGEST_GROWTH = 4096.0
"""Of a member over its base."""
STEP_ALONG, STEPS_ALONG = 0.05, 14
"""Points of a rule that are tried for a member: their distance in log compute, and how many on each side (to twice)."""
PUBLISHED = "published"
"""The evidence of a family that follows the published table instead of a rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Coefficients that spend a budget exactly, with what they rest on."""

    coefficients: Coefficients
    budget: float
    evidence: str
    """`quick look`, `standard` or `given`."""

    @classmethod
    def of(cls, shares: tuple[float, float, float], budget: float, evidence: str) -> Rule:
        """The rule of log-compute shares, normalised so that alpha·beta²·gamma² = budget."""
        return cls(coefficients=Coefficients.from_shares(shares, budget), budget=budget, evidence=evidence)

    def phi(self, growth: float) -> float:
        """The exponent at which the rule reaches a growth of compute."""
        return math.log(growth) / math.log(self.budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A network of a family."""

    name: str
    phi: float | None
    """Exponent of the rule; None for a published row, which is not on a rule."""
    growth_asked: float | None
    """Growth of compute it is named for; None for a published row."""
    scaled: Scaled
    rounding: Rounding | None = None
    """What it can be scaled further by; None for a builder's network."""

    @property
    def network(self) -> Architecture:
        """The network itself."""
        return self.scaled.network

    @property
    def cost(self) -> Cost:
        """What it costs."""
        return self.scaled.cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreached:
    """A member that no legal network stands for."""

    name: str
    growth_asked: float | None
    """None for a published row."""
    reason: str


def growth_at(budget: float, phi: float) -> float:
    """Growth of compute of a budget at an exponent: budget^phi.

    Raises:
        ScalingError: an exponent out of reach.
    """
    if not abs(phi * math.log(budget)) <= math.log(LARGEST_GROWTH):
        raise ScalingError(f"phi {phi:g}", mend=f"it must lead to a growth of at most {LARGEST_GROWTH:g}")
    return budget**phi


def named_growths(base: str, values: Sequence[float]) -> dict[str, float]:
    """Members named after their growth.

    Raises:
        ScalingError: a growth that is not a positive number.
    """
    for value in values:
        if not 0 < value <= LARGEST_GROWTH:
            raise ScalingError(f"growth {value:g}", mend=f"it must be a number in (0, {LARGEST_GROWTH:g}]")
    digits = next(n for n in range(3, 18) if len({f"{value:.{n}g}" for value in values}) == len(set(values)))
    return {f"{base}-x{value:.{digits}g}": value for value in values}


def members(
    rule: Rule, base: Base, asked: dict[str, float], *, classes: int | None, limits: Limits
) -> list[Member | Unreached]:
    """Scale the base to each growth by the rule, levelled to within the tolerance.

    Args:
        rule: how compute is shared among the dimensions.
        base: the network that is scaled.
        asked: growth of compute by member name.
        classes: outputs of the classifier; None = the base's.
        limits: what a member may have at most.
    """
    start = base.full(classes)
    return [_member(name, growth, rule, base, start, limits) for name, growth in asked.items()]


def _member(name: str, growth: float, rule: Rule, base: Base, start: Scalable, limits: Limits) -> Member | Unreached:
    phi = rule.phi(growth)
    point = rule.coefficients.at(phi)
    scaled = _alone(start, rule, growth) or start.project([point], growth)[0] or _farther(start, rule, phi, growth)
    if scaled is None:
        where = f"{point.depth:.3g}/{point.width:.3g}/{point.resolution:.3g}"
        reason = f"no network within {TOLERANCE:.0%} of {growth:.4g}x near depth/width/resolution {where}"
        least = start.smallest() if growth < 1 else None
        if least is not None and least.growth > growth:
            reason += f"; the smallest network of this base costs {least.growth:.3g}x"
        return Unreached(name=name, growth_asked=growth, reason=reason)
    if fault := limits.fault(scaled):
        return Unreached(name=name, growth_asked=growth, reason=fault)
    return Member(name=name, phi=phi, growth_asked=growth, scaled=base.regularised(scaled), rounding=base.rounding)


def _alone(start: Scalable, rule: Rule, growth: float) -> Scaled | None:
    """A member of a rule that moves one dimension, with the others left as they are."""
    shares = dict(zip(DIMENSIONS, rule.coefficients.shares, strict=True))
    moved = [name for name, share in shares.items() if abs(share) > 1e-9]
    if len(moved) > 1 or abs(growth - 1) <= TOLERANCE:
        return None
    try:
        found = start.alone(moved[0], growth)
    except ScalingError:
        return None
    return found if abs(found.growth / growth - 1) <= TOLERANCE else None


def _farther(start: Scalable, rule: Rule, phi: float, growth: float) -> Scaled | None:
    """A member at another point of its rule, the nearest that has one.

    What does not scale, such as a head of fixed channels, makes compute grow otherwise than the algebra says; then a
    point before or behind on the same rule has the compute.
    """
    log_budget = math.log(rule.budget)
    steps = [sign * index * STEP_ALONG / log_budget for index in range(1, STEPS_ALONG + 1) for sign in (1, -1)]
    points = [rule.coefficients.at(phi + step) for step in steps if (phi + step) * phi > 0]
    found = start.project(points, growth) if points else ()
    return next((one for one in found if one is not None), None)


def published(base: Base, *, classes: int | None, limits: Limits) -> list[Member | Unreached]:
    """The baseline and the published members that its growths name, rounded the paper's way."""
    found: list[Member | Unreached] = []
    for name, scaled in base.published(classes).items():
        fault = limits.fault(scaled)
        if fault:
            found.append(Unreached(name=name, growth_asked=None, reason=fault))
        else:
            found.append(Member(name=name, phi=None, growth_asked=None, scaled=scaled, rounding=base.rounding))
    return found
