"""The scaling rule and the paper's rounding: coefficients, multipliers, families, and `scale`.

The rule is arXiv:1905.11946, equation 3: depth x alpha^phi, width x beta^phi, resolution x gamma^phi. Rounding
onto legal networks of equal compute is `levelling`; knows nothing of search or training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

from scalesearch.declared import Declared, Range
from scalesearch.errors import ScalingError
from scalesearch.spec import Network, Stage

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
class Rounding(Declared):
    """How a family turns real channel counts into whole ones, and which parts it scales.

    The channels inside a block follow its stage's by the expansion; groups keep their number.
    """

    divisor: Annotated[int, Range(1, 1024)] = 8
    """Channel counts are multiples of this."""
    floor: Annotated[float, Range(0, 1)] = 0.9
    """Rounding down never keeps less than this share of the channels."""
    stem: Literal["scaled", "fixed"] = "scaled"
    """Whether the stem widens with the stages."""
    head: Literal["scaled", "widened", "fixed"] = "scaled"
    """Whether the head's channels follow the stages; `widened`: only upwards."""
    fixed_depths: Literal["none", "ends"] = "none"
    """Stages whose depth stays: none, or the first and the last."""

    place = "rounding"

    def deepens(self, network: Network) -> tuple[bool, ...]:
        """For each stage, whether its depth is scaled."""
        last = len(network.stages) - 1
        return tuple(self.fixed_depths == "none" or 0 < index < last for index in range(last + 1))


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
    """Networks that are scaled alike: their values, their rounding, and the names they go by."""

    name: str
    networks: Mapping[str, Network]
    """By name, the baseline first."""
    rounding: Rounding
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    """Other names that people type, each with the network it means."""
    published: tuple[Published, ...] = ()
    """The table that other networks follow from the baseline by, the baseline's row first; empty = no such table."""
    growths: Mapping[str, float] = field(default_factory=dict[str, float])
    """Growth of compute over the baseline that a scaled family's members are named for; empty = no names of its own."""
    source: str
    """Paper and table the numbers come from."""

    @property
    def baseline(self) -> Network:
        """The network that the published table scales."""
        return next(iter(self.networks.values()))

    def member(self, name: str) -> Network:
        """One of its networks.

        Raises:
            ScalingError: the family has no such network.
        """
        if name not in self.networks:
            raise ScalingError(f"{self.name} has no network {name!r}", mend=f"it has {', '.join(self.networks)}")
        return self.networks[name]


def tabled(baseline: Network, rounding: Rounding, rows: tuple[Published, ...]) -> Mapping[str, Network]:
    """The networks of a published table, rounded the paper's way."""
    return MappingProxyType({row.name: _row(baseline, rounding, row) for row in rows})


def _row(baseline: Network, rounding: Rounding, row: Published) -> Network:
    scaled = scale(baseline, Multipliers(depth=row.depth, width=row.width), rounding)
    return replace(scaled, resolution=row.resolution, head=replace(scaled.head, dropout=row.dropout))


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


class Channels(NamedTuple):
    """Output channels of every part of a network."""

    stem: int
    stages: tuple[int, ...]
    head: int
    """Of the 1x1 convolution in the head; 0 = none."""
    hidden: int
    """Of the linear layer in the head; 0 = none."""


def channels(network: Network) -> Channels:
    """The channels that a network has."""
    return Channels(network.stem.width, network.widths, network.head.width, network.head.hidden)


def scale_widths(network: Network, factor: float, rounding: Rounding) -> Channels:
    """Rounded channels for a width multiplier; at 1 the network's own.

    Channels that are no multiples of the divisor move in the largest steps that divide both.
    """
    own = channels(network)
    head_factor = {"scaled": factor, "widened": max(1.0, factor), "fixed": 1.0}[rounding.head]
    return Channels(
        _scaled_width(own.stem, factor if rounding.stem == "scaled" else 1.0, rounding),
        tuple(_scaled_width(stage.width, factor, rounding, stage) for stage in network.stages),
        *(_scaled_width(width, head_factor, rounding) for width in own[2:]),
    )


def _scaled_width(width: int, factor: float, rounding: Rounding, stage: Stage | None = None) -> int:
    if width == 0 or factor == 1:
        return width
    step = math.gcd(width, rounding.divisor) if stage is None else _step(stage, rounding.divisor)
    return round_width(width * factor, rounding if step == rounding.divisor else _with_divisor(rounding, step))


@cache
def _with_divisor(rounding: Rounding, divisor: int) -> Rounding:
    return replace(rounding, divisor=divisor)


def _step(stage: Stage, divisor: int) -> int:
    """The step that a stage's channels move in.

    In a bottleneck the hidden channels are rounded, as ResNets count them; the groups of a stage share them at every
    step.
    """
    unit = inside = 1
    if stage.block == "bottleneck":
        ratio, groups = round(1 / stage.expansion), stage.groups
        if abs(ratio * stage.expansion - 1) < 1e-9 and stage.width % (ratio * groups) == 0:
            unit, inside = ratio * groups, groups
        elif groups > 1:
            unit = inside = stage.width // math.gcd(stage.width, round(stage.width * stage.expansion) // groups)
    return unit * math.gcd(stage.width // unit, divisor // math.gcd(divisor, inside))


def resize(network: Network, *, depths: tuple[int, ...], widths: Channels, resolution: int) -> Network:
    """The same network with other depths, other channels and another input side."""
    stages = tuple(
        replace(stage, depth=depth, width=width)
        for stage, depth, width in zip(network.stages, depths, widths.stages, strict=True)
    )
    return replace(
        network,
        stem=replace(network.stem, width=widths.stem),
        stages=stages,
        head=replace(network.head, width=widths.head, hidden=widths.hidden),
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
        depths=tuple(
            math.ceil(round(depth * multipliers.depth, 9)) if deepens else depth
            for depth, deepens in zip(network.depths, rounding.deepens(network), strict=True)
        ),
        widths=scale_widths(network, multipliers.width, rounding),
        resolution=max(1, round(network.resolution * multipliers.resolution)),
    )
