"""The family of a rule: the base scaled to a row of growths, and the published tables, as values.

Members are levelled, so that each costs the growth it is named for. Knows nothing of files or modules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from scalesearch.cost import Cost, count
from scalesearch.errors import ScalingError
from scalesearch.families import Base
from scalesearch.levelling import TOLERANCE, Scaled, level
from scalesearch.scaling import Coefficients, Family, Multipliers
from scalesearch.spec import Network

LARGEST_GROWTH = 4096.0
"""Of a member over its base."""
PUBLISHED = "published"
"""The evidence of a family that follows the published table instead of a rule."""
GROWTHS_UP = {"1.4": 2**0.5, "2": 2.0, "4": 4.0, "8": 8.0, "16": 16.0}
GROWTHS_DOWN = {"0.7": 0.5**0.5, "0.5": 0.5, "0.25": 0.25}


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
    cost: Cost

    @property
    def network(self) -> Network:
        """The network itself."""
        return self.scaled.network


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreached:
    """A member that no legal network stands for."""

    name: str
    growth_asked: float
    reason: str


def growth_at(budget: float, phi: float) -> float:
    """Growth of compute of a budget at an exponent: budget^phi.

    Raises:
        ScalingError: an exponent out of reach.
    """
    if not abs(phi * math.log(budget)) <= math.log(LARGEST_GROWTH):
        raise ScalingError(f"phi {phi:g}", mend=f"it must lead to a growth of at most {LARGEST_GROWTH:g}")
    return budget**phi


def growths(base: Base, budget: float) -> dict[str, float]:
    """The default members of a base by name: the family's own for its baseline scaled up, else `<base>-x<growth>`."""
    if budget >= 1 and base.family.growths and base.is_baseline:
        return dict(base.family.growths)
    named = GROWTHS_UP if budget >= 1 else GROWTHS_DOWN
    return {f"{base.name}-x{name}": growth for name, growth in named.items()}


def named_growths(base: Base, values: Sequence[float]) -> dict[str, float]:
    """Members named after their growth.

    Raises:
        ScalingError: a growth that is not a positive number.
    """
    for value in values:
        if not 0 < value <= LARGEST_GROWTH:
            raise ScalingError(f"growth {value:g}", mend=f"it must be a number in (0, {LARGEST_GROWTH:g}]")
    digits = next(n for n in range(3, 18) if len({f"{value:.{n}g}" for value in values}) == len(set(values)))
    return {f"{base.name}-x{value:.{digits}g}": value for value in values}


def members(rule: Rule, base: Base, asked: dict[str, float], *, classes: int | None) -> list[Member | Unreached]:
    """Scale the base to each growth by the rule, levelled to within the tolerance.

    Args:
        rule: how compute is shared among the dimensions.
        base: the network that is scaled.
        asked: growth of compute by member name.
        classes: outputs of the classifier; None = the base's.
    """
    start = replace(base.network, num_classes=classes or base.network.num_classes)
    return [_member(name, growth, rule, base.family, start) for name, growth in asked.items()]


def _member(name: str, growth: float, rule: Rule, family: Family, start: Network) -> Member | Unreached:
    phi = rule.phi(growth)
    point = rule.coefficients.at(phi)
    scaled = level([point], start, family.rounding, growth)[0]
    if scaled is None:
        where = f"{point.depth:.3g}/{point.width:.3g}/{point.resolution:.3g}"
        reason = f"no network within {TOLERANCE:.0%} of {growth:.4g}x near depth/width/resolution {where}"
        return Unreached(name=name, growth_asked=growth, reason=reason)
    head = replace(scaled.network.head, dropout=dropout(family, scaled.network))
    scaled = replace(scaled, network=replace(scaled.network, head=head))
    return Member(name=name, phi=phi, growth_asked=growth, scaled=scaled, cost=count(scaled.network))


def dropout(family: Family, network: Network) -> float:
    """Dropout for a network's compute: linear in log growth through the published table, constant beyond its ends.

    Without a table it stays that of the network.
    """
    if not family.published:
        return network.head.dropout
    base_macs = count(replace(family.baseline, num_classes=network.num_classes)).macs
    rows = [
        (math.log(count(family.member(row.name)).macs / count(family.baseline).macs), row.dropout)
        for row in family.published
    ]
    return round(_interpolated(sorted(rows), math.log(count(network).macs / base_macs)), 3)


def _interpolated(rows: list[tuple[float, float]], x: float) -> float:
    x = min(max(x, rows[0][0]), rows[-1][0])
    for (x0, y0), (x1, y1) in pairwise(rows):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return rows[-1][1]


def published(base: Base, *, classes: int | None) -> list[Member]:
    """The family's baseline and the published members that its growths name, rounded the paper's way."""
    family = base.family
    named = {family.published[0].name, *(name.lower() for name in family.growths)}
    names = named if family.growths else set(family.networks)
    start = replace(family.baseline, num_classes=classes or family.baseline.num_classes)
    base_macs = count(start).macs
    found: list[Member] = []
    for row in (row for row in family.published if row.name in names):
        network = replace(family.member(row.name), num_classes=start.num_classes)
        cost = count(network)
        effective = Multipliers(
            depth=network.depth / start.depth, width=row.width, resolution=row.resolution / start.resolution
        )
        scaled = Scaled(network=network, effective=effective, growth=cost.macs / base_macs)
        found.append(Member(name=row.name.upper(), phi=None, growth_asked=None, scaled=scaled, cost=cost))
    return found
