"""The scaling rule and the paper's rounding: coefficients, multipliers, families, and `scale`.

The rule is arXiv:1905.11946, equation 3: depth x alpha^phi, width x beta^phi, resolution x gamma^phi. Rounding
onto legal networks of equal compute is `levelling`; knows nothing of search or training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from scalesearch.errors import ScalingError
from scalesearch.spec import Network

LARGEST_FACTOR = 1e4
"""Multipliers and coefficients reach from one over this to this."""

DIMENSIONS = ("depth", "width", "resolution")


def _positive(name: str, value: float) -> None:
    if not 1 / LARGEST_FACTOR <= value <= LARGEST_FACTOR:
        raise ScalingError(f"{name} = {value!r}", mend=f"it must be a positive number of at most {LARGEST_FACTOR:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Multipliers:
    """Factors on depth, width and resolution, before or after rounding."""

    depth: float = 1.0
    width: float = 1.0
    resolution: float = 1.0

    def __post_init__(self) -> None:
        for name in DIMENSIONS:
            _positive(f"{name} multiplier", getattr(self, name))

    @property
    def nominal(self) -> float:
        """Growth of compute by the algebra: depth · width² · resolution²."""
        return self.depth * self.width**2 * self.resolution**2

    @property
    def shares(self) -> tuple[float, float, float]:
        """Log-compute share of depth, width and resolution; they sum to 1.

        Raises:
            ScalingError: the multipliers do not change the nominal compute.
        """
        logs = (math.log(self.depth), 2 * math.log(self.width), 2 * math.log(self.resolution))
        total = math.fsum(logs)
        if abs(total) < 1e-12:
            raise ScalingError(f"{self} leaves the compute as it is", mend="shares need a growth other than 1")
        return logs[0] / total + 0.0, logs[1] / total + 0.0, logs[2] / total + 0.0  # no -0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficients:
    """The bases alpha, beta, gamma of the rule for depth, width and resolution."""

    alpha: float
    beta: float
    gamma: float

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma"):
            _positive(name, getattr(self, name))

    @classmethod
    def from_shares(cls, shares: tuple[float, float, float], budget: float) -> Coefficients:
        """The rule that spends `budget` by `shares`, so that alpha·beta²·gamma² = budget exactly.

        >>> rule = Coefficients.from_shares((0.2, 0.4, 0.4), 2.0)
        >>> round(rule.nominal, 12)
        2.0
        """
        depth, width, resolution = shares
        return cls(alpha=budget**depth, beta=budget ** (width / 2), gamma=budget ** (resolution / 2))

    @property
    def nominal(self) -> float:
        """alpha·beta²·gamma²: growth of compute per unit of phi by the algebra."""
        return self.at(1.0).nominal

    @property
    def shares(self) -> tuple[float, float, float]:
        """Log-compute share of depth, width and resolution."""
        return self.at(1.0).shares

    @property
    def text(self) -> str:
        """alpha/beta/gamma, for messages."""
        return f"{self.alpha:.4g}/{self.beta:.4g}/{self.gamma:.4g}"

    def at(self, phi: float) -> Multipliers:
        """The multipliers (alpha^phi, beta^phi, gamma^phi).

        >>> Coefficients(alpha=1.2, beta=1.1, gamma=1.15).at(0.0).nominal
        1.0
        """
        logs = [phi * math.log(value) for value in (self.alpha, self.beta, self.gamma)]
        if not all(abs(log) <= math.log(LARGEST_FACTOR) for log in logs):
            raise ScalingError(f"phi = {phi!r}", mend="give an exponent of a few units")
        return Multipliers(depth=self.alpha**phi, width=self.beta**phi, resolution=self.gamma**phi)


PAPER = Coefficients(alpha=1.2, beta=1.1, gamma=1.15)
"""The paper's result for B0. Source: arXiv:1905.11946, section 4, step 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """How a family turns real channel counts into whole ones, and which parts it scales."""

    divisor: int = 8
    """Channel counts are multiples of this."""
    floor: float = 0.9
    """Rounding down never keeps less than this share of the channels."""
    scale_stem: bool = True
    """Whether the stem widens with the stages."""
    scale_head: bool = True
    """Whether the head widens with the stages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One row of a family's published table: data, apart from the rule."""

    name: str
    width: float
    depth: float
    resolution: int
    """Input side [px]."""
    dropout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A baseline, its rounding and its published members."""

    name: str
    baseline: Network
    rounding: Rounding
    published: tuple[Published, ...]
    """The baseline's row first."""
    growths: Mapping[str, float]
    """Growth of compute over the baseline that a scaled family's members are named for; empty = no names of its own."""
    source: str
    """Paper and table the numbers come from."""

    def member(self, name: str) -> Network:
        """A published member, rounded the paper's way.

        Raises:
            ScalingError: the family has published no such member.
        """
        for row in self.published:
            if row.name == name:
                scaled = scale(self.baseline, Multipliers(depth=row.depth, width=row.width), self.rounding)
                head = replace(scaled.head, dropout=row.dropout)
                return replace(scaled, resolution=row.resolution, head=head)
        raise ScalingError(f"{self.name} has no published member {name!r}", mend=f"it has {self.member_names}")

    @property
    def member_names(self) -> str:
        """The published members, for messages."""
        return ", ".join(row.name for row in self.published)


def round_width(width: float, rounding: Rounding) -> int:
    """Round a channel count to a multiple of the divisor without losing more than 1 - floor of it.

    Args:
        width: channels before rounding, > 0 [channels].
        rounding: divisor and floor.

    Returns:
        A positive multiple of the divisor [channels].
    Source:
        tensorflow/tpu, models/official/efficientnet/efficientnet_model.py, round_filters.

    >>> [round_width(width * 1.1, Rounding()) for width in (32, 24, 1280)], round_width(10, Rounding())
    ([32, 24, 1408], 16)
    """
    step = rounding.divisor
    rounded = max(step, int(width + step / 2) // step * step)
    return rounded + step if rounded < rounding.floor * width else rounded


def scale_widths(network: Network, factor: float, rounding: Rounding) -> tuple[int, ...]:
    """Rounded channels of stem, stages and head, in that order, for a width multiplier."""
    stem, head = network.stem.width, network.head.width
    return (
        round_width(stem * factor, rounding) if rounding.scale_stem else stem,
        *(round_width(stage.width * factor, rounding) for stage in network.stages),
        round_width(head * factor, rounding) if head and rounding.scale_head else head,
    )


def resize(network: Network, *, depths: tuple[int, ...], widths: tuple[int, ...], resolution: int) -> Network:
    """The same network with other depths, other channels (stem, stages, head) and another input side."""
    stages = tuple(
        replace(stage, depth=depth, width=width)
        for stage, depth, width in zip(network.stages, depths, widths[1:-1], strict=True)
    )
    return replace(
        network,
        stem=replace(network.stem, width=widths[0]),
        stages=stages,
        head=replace(network.head, width=widths[-1]),
        resolution=resolution,
    )


def scale(network: Network, multipliers: Multipliers, rounding: Rounding) -> Network:
    """Scale by the paper's rounding: depth up to the next whole, channels by `round_width`, resolution to the pixel.

    The built network does not cost `multipliers.nominal` times as much: `ceil` on depth sees to that.

    Source:
        tensorflow/tpu, models/official/efficientnet/efficientnet_model.py, round_repeats and round_filters.
    """
    return resize(
        network,
        # a product such as 1.1 x 10 may land a hair above the whole number it means
        depths=tuple(math.ceil(round(depth * multipliers.depth, 9)) for depth in network.depths),
        widths=scale_widths(network, multipliers.width, rounding),
        resolution=max(1, round(network.resolution * multipliers.resolution)),
    )
