"""A base that only a user's builder can make: projected by counting what the builder makes, point by point.

The counts come from torch once and are kept as a table, so that the same base can be laid out again without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import NamedTuple

from scalesearch.blueprint import Blueprint, Counted
from scalesearch.cost import Cost
from scalesearch.errors import ScalingError
from scalesearch.levelling import REACH, TOLERANCE, Scaled
from scalesearch.scalable import Scalable
from scalesearch.scaling import Multipliers

DEPTH_STEP, WIDTH_STEP = 0.05, 0.01
"""Grids of multipliers that a builder is asked for."""
MOST_TRIES = 12
"""Networks counted for one point."""


Ask = tuple[float, float, int]
"""Depth, width, side [px]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a builder makes, asked once for each (depth, width, side)."""

    builder: str
    table: tuple[Counted, ...] = ()
    """What is known already, in rising order."""
    told: Callable[[str], None] = field(default=lambda _: None, compare=False, repr=False)
    """Hears of every count."""
    may_import: bool = field(default=True, compare=False)
    """Whether a person has named the builder; one that a file names is never imported."""
    _known: dict[Ask, Counted] = field(default_factory=dict[Ask, Counted], compare=False, repr=False)

    def __post_init__(self) -> None:
        self._known.update({(row.depth, row.width, row.resolution): row for row in self.table})

    def __call__(self, depth: float, width: float, resolution: int) -> Counted:
        """From the table, else by torch's FlopCounterMode on meta tensors.

        Raises:
            ScalingError: it is not in the table, and the builder may not be imported.
        """
        asked = (round(depth, 6), round(width, 6), resolution)
        if asked not in self._known:
            if not self.may_import:
                fault = f"the plan does not say what {self.builder} makes at {asked}, and a file's builder is not run"
                raise ScalingError(fault, mend=f"give it on the command line: --base {self.builder}")
            from scalesearch.nets.builder import count_built  # brings torch

            self._known[asked] = count_built(self.builder, *asked)
            self.told(f"counted what {self.builder} makes: {len(self._known)} networks")
        return self._known[asked]

    def settled(self) -> Counts:
        """The same with everything asked so far in its table."""
        return replace(self, table=tuple(self._known[asked] for asked in sorted(self._known)), _known={})


class _Step(NamedTuple):
    """A value of one dimension, alone."""

    asked: float
    """What the builder or the image takes: a multiplier, or a side [px]."""
    effective: float
    """Multiplier that it stands for."""
    growth: float
    """Of the compute when this dimension alone takes it."""
    high: float
    """Largest multiplier that builds the same network."""


class _Option(NamedTuple):
    """A network that may stand for a point."""

    distance: float
    """From the point, with the compute that is foretold."""
    depth: _Step
    width: _Step
    side: _Step
    effective: Multipliers


@dataclass(frozen=True, slots=True)
class _Menu:
    """The steps of each dimension, and what counting has taught about their products."""

    depths: list[_Step]
    widths: list[_Step]
    sides: list[_Step]
    learned: dict[tuple[_Step, _Step], float] = field(default_factory=dict[tuple[_Step, _Step], float])
    """Counted over foretold growth, by depth and side."""

    def options(self, point: Multipliers, growth: float) -> Iterator[_Option]:
        """Every network within reach of a point whose compute is foretold to be right."""
        for depth, side in product(self.depths, self.sides):
            nearest = Multipliers(depth=depth.effective, width=point.width, resolution=side.effective)
            if _distance(point, nearest, 1.0) > REACH:
                continue
            known = depth.growth * side.growth * self.learned.get((depth, side), 1.0)
            for width in self.widths:
                if abs(known * width.growth / growth - 1) > TOLERANCE:
                    continue
                value = min(max(point.width, width.effective), width.high)
                effective = Multipliers(depth=depth.effective, width=value, resolution=side.effective)
                distance = _distance(point, effective, known * width.growth / growth)
                if distance <= REACH:
                    yield _Option(distance, depth, width, side, effective)

    def learn(self, option: _Option, growth: float) -> None:
        """Take up the counted growth of an option."""
        foretold = option.depth.growth * option.width.growth * option.side.growth
        self.learned[option.depth, option.side] = growth / foretold


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A network of a builder, at multipliers that later ones are relative to.

    What a depth multiplier means is the builder's (most round up). So the effective depth is the growth of compute
    that it brings alone, and a point takes the multiplier whose effect is nearest.
    """

    counts: Counts
    width: float
    """Multiplier that counts as 1."""
    resolution: int
    """Side that counts as 1 [px]."""
    resolution_step: int

    @property
    def network(self) -> Blueprint:
        """The network as it is.

        Raises:
            ScalingError: the builder does not make it.
        """
        return self._blueprint(self._itself())

    @property
    def cost(self) -> Cost:
        """What it costs; raises as `network` does."""
        return self._itself().cost

    def project(self, points: Sequence[Multipliers], growth: float) -> list[Scaled | None]:
        """See `Scalable.project`: the nearest of the networks foretold from single dimensions that counts right."""
        slack, half = math.exp(REACH), math.exp(REACH / 2)

        def window(values: Sequence[float], factor: float) -> tuple[float, float]:
            low, high = min(values) / factor, max(values) * factor
            return (1.0, max(high, 1.0)) if growth >= 1 else (min(low, 1.0), 1.0)

        menu = _Menu(
            self._depths(*window([point.depth for point in points], slack)),
            self._widths(*window([point.width for point in points], half)),
            self._sides(*window([point.resolution for point in points], half)),
        )
        return [self._nearest(point, growth, menu) for point in points]

    def alone(self, dimension: str, growth: float) -> Scaled:
        """See `Scalable.alone`."""
        reach = 1.5 * growth if growth > 1 else growth / 2
        ends = (1.0, reach) if growth > 1 else (reach, 1.0)
        if dimension == "depth":
            steps = [self._scaled(step.asked, 1.0, self.resolution, step.effective) for step in self._depths(*ends)]
        elif dimension == "width":
            steps = [self._scaled(1.0, step.asked, self.resolution, 1.0) for step in self._widths(*_root(ends))]
        else:
            steps = [self._scaled(1.0, 1.0, round(step.asked), 1.0) for step in self._sides(*_root(ends))]
        moved = [step for step in steps if step is not None and step.growth != 1]
        if not moved:
            raise ScalingError(f"{dimension} alone cannot scale this base to {growth:g}x", mend="choose another budget")
        return min(moved, key=lambda step: abs(math.log(step.growth / growth)))

    def rounded(self, point: Multipliers) -> Scaled:
        """See `Scalable.rounded`: the builder rounds.

        Raises:
            ScalingError: the builder does not make it.
        """
        alone = self._counted(point.depth, 1.0, self.resolution)
        effective = alone.cost.macs / self.cost.macs if not alone.fault else point.depth
        side = max(1, round(self.resolution * point.resolution))
        found = self._scaled(point.depth, point.width, side, effective)
        if found is None:
            one = self._counted(point.depth, point.width, side)
            raise ScalingError(one.reason or one.fault, mend="move the multipliers")
        return found

    def stand_in(self, one: Scaled, full: Scalable) -> Scaled | None:
        """See `Scalable.stand_in`: a builder's networks stand for themselves."""
        return one if self.network == full.network else None

    def smallest(self) -> None:
        """See `Scalable.smallest`: only the builder knows."""
        return

    def _depths(self, low: float, high: float) -> list[_Step]:
        asked = [round(index * DEPTH_STEP, 6) for index in _between(low, high, DEPTH_STEP)]
        return self._steps([(value, value, (value, 1.0, self.resolution)) for value in asked], is_depth=True)

    def _widths(self, low: float, high: float) -> list[_Step]:
        asked = [round(index * WIDTH_STEP, 6) for index in _between(low, high, WIDTH_STEP)]
        return self._steps([(value, value, (1.0, value, self.resolution)) for value in asked])

    def _sides(self, low: float, high: float) -> list[_Step]:
        step = self.resolution_step
        sides = {index * step for index in _between(low * self.resolution, high * self.resolution, step)}
        rows = sorted(side for side in sides | {self.resolution} if side > 0)
        return self._steps([(side, side / self.resolution, (1.0, 1.0, side)) for side in rows])

    def _steps(self, rows: list[tuple[float, float, Ask]], *, is_depth: bool = False) -> list[_Step]:
        """Distinct networks in rising order; multipliers that build the same one are a step together."""
        found: dict[object, _Step] = {}
        for asked, effective, ask in rows:
            one = self._counted(*ask)
            if one.fault:
                continue
            growth = one.cost.macs / self.cost.macs
            key = (one.shapes, ask[2])
            if key in found:
                found[key] = found[key]._replace(high=effective)
            else:
                found[key] = _Step(asked, growth if is_depth else effective, growth, effective)
        return list(found.values())

    def _nearest(self, point: Multipliers, growth: float, menu: _Menu) -> Scaled | None:
        """Count the options from the nearest on until one has the compute; every count corrects what is foretold."""
        tried: set[tuple[_Step, _Step, _Step]] = set()
        while len(tried) < MOST_TRIES:
            left = [one for one in menu.options(point, growth) if one[1:4] not in tried]
            if not left:
                return None
            chosen = min(left, key=lambda one: one.distance)
            tried.add(chosen[1:4])
            found = self._scaled(
                chosen.depth.asked, chosen.width.asked, round(chosen.side.asked), chosen.depth.effective
            )
            if found is None:
                continue
            menu.learn(chosen, found.growth)
            distance = _distance(point, chosen.effective, found.growth / growth)
            if abs(found.growth / growth - 1) <= TOLERANCE and distance <= REACH:
                return replace(found, effective=chosen.effective, distance=distance)
        return None

    def _scaled(self, depth: float, width: float, side: int, effective_depth: float) -> Scaled | None:
        one = self._counted(depth, width, side)
        if one.fault:
            return None
        return Scaled(
            network=self._blueprint(one),
            effective=Multipliers(depth=effective_depth, width=width, resolution=side / self.resolution),
            cost=one.cost,
            growth=one.cost.macs / self.cost.macs,
        )

    def _itself(self) -> Counted:
        one = self._counted(1.0, 1.0, self.resolution)
        if one.fault:
            raise ScalingError(
                one.reason or one.fault,
                mend=f"try it in Python at depth=1, width={self.width:g}, resolution={self.resolution}",
            )
        return one

    def _counted(self, depth: float, width: float, side: int) -> Counted:
        return self.counts(depth, self.width * width, side)

    def _blueprint(self, one: Counted) -> Blueprint:
        return Blueprint(
            builder=self.counts.builder,
            depth=one.depth,
            width=one.width,
            resolution=one.resolution,
            num_classes=one.num_classes,
            shapes=one.shapes,
        )


def _root(ends: tuple[float, float]) -> tuple[float, float]:
    return math.sqrt(ends[0]), math.sqrt(ends[1])


def _between(low: float, high: float, step: float) -> range:
    return range(max(1, math.ceil(round(low / step, 6))), math.floor(round(high / step, 6)) + 1)


def _distance(point: Multipliers, effective: Multipliers, off: float) -> float:
    return math.hypot(
        math.log(effective.depth / point.depth),
        2 * math.log(effective.width / point.width),
        2 * math.log(effective.resolution / point.resolution),
        math.log(off),
    )
