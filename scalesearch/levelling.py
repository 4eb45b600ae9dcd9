"""Projection of a point of the rule onto a legal network of equal compute.

The paper's rounding makes networks of one nominal growth cost 1.9-3.3 times the base (docs/design.md, section 4).
Here every network within `tolerance` of the growth asked for is listed in closed form, and each point takes the
one nearest to it in log space. Knows nothing of grids or training.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count as count_from
from itertools import groupby
from operator import mul
from typing import NamedTuple

from scalesearch import cost
from scalesearch.blueprint import Architecture
from scalesearch.cost import Cost
from scalesearch.depths import least_depth, spread
from scalesearch.errors import ScalingError
from scalesearch.scaling import Channels, Multipliers, Rounding, resize, scale_widths
from scalesearch.spec import DEEPEST, LARGEST_SIDE, WIDEST, Network

TOLERANCE = 0.03
"""Largest |realised / asked - 1| of a legal network."""
REACH = 0.15
"""Farthest distance, in log space, at which a network still stands for a point."""
DEPTH_STEPS = 200
"""Networks of more blocks than this move by as many blocks as are a step of this many to the base's depth."""
WIDTH_STEP = 0.001
"""Step on which width multipliers are tried; channels change more coarsely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """A network made from a base, with the multipliers it really has."""

    network: Architecture
    effective: Multipliers
    """Blocks / base blocks, a width multiplier that builds these channels, side / base side."""
    cost: Cost
    growth: float
    """Realised growth: macs / macs of the base."""
    distance: float = 0.0
    """Log-space distance from the point it stands for."""


class _Widths(NamedTuple):
    """Channels of stem, stages and head, and the range of multipliers that round to them."""

    channels: Channels
    low: float
    high: float


class _Legal(NamedTuple):
    depth: int
    log_depth: float
    log_resolution: float
    log_error: float
    """ln(realised / asked)."""
    macs: int
    widths: _Widths
    resolution: int


def _width_choices(base: Network, rounding: Rounding, start: float, stop: float) -> Iterator[_Widths]:
    """Every distinct tuple of channels for multipliers from `start` to `stop`, either way, with its range."""
    step = 1 if stop >= start else -1
    outward = (math.ceil, math.floor) if step > 0 else (math.floor, math.ceil)
    first, last = (whole(round(end / WIDTH_STEP, 6)) for whole, end in zip(outward, (start, stop), strict=True))
    factors = (round(index * WIDTH_STEP, 6) for index in range(max(first, 1), last + step, step))
    for channels, group in groupby(factors, lambda factor: scale_widths(base, factor, rounding)):
        ends = list(group)
        if max(channels.stem, *channels.stages, channels.head, channels.hidden) <= WIDEST:
            yield _Widths(channels, min(ends), max(ends))


class _Work:
    """macs of networks of given channels: work per pixel at each cumulative stride, linear in the depths."""

    def __init__(self, base: Network, channels: Channels) -> None:
        twice = resize(base, depths=(2,) * len(base.stages), widths=channels, resolution=base.resolution)
        once: Counter[int] = Counter()
        repeats: list[Counter[int]] = []
        for part in cost.parts(twice):
            target: Counter[int] = Counter() if part.repeats else once
            if part.repeats:
                repeats.append(target)
            for layer in part.layers:
                if layer.operator in ("conv", "linear"):
                    target[layer.stride] += layer.work
        self.strides = tuple(once)
        self._once = [once[stride] for stride in self.strides]
        self._repeats = [[(self.strides.index(stride), value) for stride, value in one.items()] for one in repeats]

    def at(self, depths: tuple[int, ...]) -> list[int]:
        """Work per pixel at each of `strides` for a network of these depths."""
        work = list(self._once)
        for depth, repeat in zip(depths, self._repeats, strict=True):
            for place, value in repeat:
                work[place] += (depth - 1) * value
        return work


def _macs(work: list[int], areas: tuple[int, ...]) -> int:
    return sum(map(mul, work, areas))


@dataclass(frozen=True, slots=True)
class _Window:
    """What is worth listing: ranges of block totals, width multipliers and sides around the points."""

    depths: tuple[int, ...]
    widths: tuple[float, float]
    resolutions: tuple[int, ...]


def _window(
    points: Sequence[Multipliers], base: Network, rounding: Rounding, growth: float, resolution_step: int
) -> _Window:
    up = growth >= 1
    slack, half = math.exp(REACH), math.exp(REACH / 2)

    def bounds(values: list[float], factor: float) -> tuple[float, float]:
        low, high = min(values) / factor, max(values) * factor
        return (max(low, 1.0), max(high, 1.0)) if up else (min(low, 1.0), min(high, 1.0))

    depth = bounds([point.depth for point in points], slack)
    side = bounds([point.resolution for point in points], half)
    sides = set(_multiples(base.resolution * side[0], base.resolution * side[1], resolution_step))
    if side[0] <= 1 <= side[1]:
        sides.add(base.resolution)
    least = max(least_depth(base, rounding), math.ceil(round(base.depth * depth[0], 9)))
    most = math.floor(round(base.depth * depth[1], 9))
    depths = {base.depth} if depth[0] <= 1 <= depth[1] else set[int]()
    if any(rounding.deepens(base)):
        depths |= set(range(least, most + 1, max(1, base.depth // DEPTH_STEPS)))
    return _Window(
        depths=tuple(sorted(depths)),
        widths=bounds([point.width for point in points], half),
        resolutions=tuple(sorted(side for side in sides if 1 <= side <= LARGEST_SIDE)),
    )


def _multiples(low: float, high: float, step: int) -> range:
    return range(math.ceil(round(low / step, 9)) * step, math.floor(round(high, 9)) + 1, step)


def _legal(base: Network, rounding: Rounding, growth: float, tolerance: float, window: _Window) -> Iterator[_Legal]:
    """Every network in the window whose macs lie within `tolerance` of `growth` times the base's."""
    asked = growth * cost.count(base).macs
    least, most = asked * (1 - tolerance), asked * (1 + tolerance)
    totals = ((total, math.log(total / base.depth), spread(total, base, rounding)) for total in window.depths)
    spreads = [one for one in totals if max(one[2]) <= DEEPEST]
    sides: list[tuple[int, float, tuple[int, ...]]] = []
    for widths in _width_choices(base, rounding, *window.widths):
        channels_work = _Work(base, widths.channels)
        sides = sides or [_side(side, base, channels_work.strides) for side in window.resolutions]
        for total, log_depth, depths in spreads:
            work = channels_work.at(depths)
            first = bisect_left(sides, least, key=lambda side, work=work: _macs(work, side[2]))
            for side, log_side, areas in sides[first:]:
                macs = _macs(work, areas)
                if macs > most:
                    break
                yield _Legal(total, log_depth, log_side, math.log(macs / asked), macs, widths, side)


def _side(side: int, base: Network, strides: tuple[int, ...]) -> tuple[int, float, tuple[int, ...]]:
    """A side with its logarithm over the base's and the pixels of its map at each stride."""
    return side, math.log(side / base.resolution), tuple(cost.pixels(side, stride) for stride in strides)


class _Shelf(NamedTuple):
    """The legal networks of one depth, in rising order of resolution."""

    log_depth: float
    log_resolutions: list[float]
    networks: list[_Legal]


def _shelves(legal: Iterator[_Legal]) -> list[_Shelf]:
    by_depth: dict[float, list[_Legal]] = {}
    for one in legal:
        by_depth.setdefault(one.log_depth, []).append(one)
    ordered = [(depth, sorted(shelf, key=lambda one: one.resolution)) for depth, shelf in by_depth.items()]
    return [_Shelf(depth, [one.log_resolution for one in shelf], shelf) for depth, shelf in ordered]


_Found = tuple[tuple[float, int, int, int], float, _Legal]
"""What orders the networks near a point (squared distance, macs, depth, side), the width multiplier, the network."""


def _nearest(point: Multipliers, shelves: list[_Shelf]) -> _Found | None:
    """The legal network nearest to the point within `REACH`; ties go to fewer macs."""
    log_depth, log_side = math.log(point.depth), math.log(point.resolution)
    best: _Found | None = None
    limit = REACH**2
    for shelf in sorted(shelves, key=lambda shelf: abs(shelf.log_depth - log_depth)):
        offset = (shelf.log_depth - log_depth) ** 2
        if offset > limit:
            break
        reach = math.sqrt(limit - offset) / 2
        first = bisect_left(shelf.log_resolutions, log_side - reach)
        last = bisect_right(shelf.log_resolutions, log_side + reach)
        for one in shelf.networks[first:last]:
            width = min(max(point.width, one.widths.low), one.widths.high)
            squared = offset + 4 * (one.log_resolution - log_side) ** 2 + one.log_error**2
            if width != point.width:
                squared += 4 * math.log(width / point.width) ** 2
            key = (round(squared, 12), one.macs, one.depth, one.resolution)
            if squared <= limit and (best is None or key < best[0]):
                best, limit = (key, width, one), squared + 1e-12  # equal distances stay in the race
    return best


def level(
    points: Sequence[Multipliers],
    base: Network,
    rounding: Rounding,
    growth: float,
    *,
    tolerance: float = TOLERANCE,
    resolution_step: int = 4,
) -> list[Scaled | None]:
    """Project each point onto the nearest legal network of `growth` times the base's compute.

    Legal: blocks spread by largest remainder, any channels the rounding yields, a side that is a multiple of
    `resolution_step` (or the base's own), no dimension on the other side of 1 than `growth`, and
    |realised / growth - 1| <= `tolerance`. Nearest: least sqrt(ln²(d/alpha) + (2 ln(w/beta))² + (2 ln(r/gamma))²
    + ln²(realised/growth)).

    Returns:
        One entry per point, in order; None where no legal network lies within `REACH`.
    """
    window = _window(points, base, rounding, growth, resolution_step)
    shelves = _shelves(_legal(base, rounding, growth, tolerance, window))
    base_macs = cost.count(base).macs
    return [_as_scaled(_nearest(point, shelves), base, rounding, base_macs) for point in points]


def _as_scaled(found: _Found | None, base: Network, rounding: Rounding, base_macs: int) -> Scaled | None:
    if found is None:
        return None
    (squared, *_), width, one = found
    depths = spread(one.depth, base, rounding)
    network = resize(base, depths=depths, widths=one.widths.channels, resolution=one.resolution)
    return Scaled(
        network=network,
        cost=cost.count(network),
        effective=Multipliers(depth=one.depth / base.depth, width=width, resolution=one.resolution / base.resolution),
        growth=one.macs / base_macs,
        distance=math.sqrt(squared),
    )


def level_one(dimension: str, base: Network, rounding: Rounding, growth: float, *, resolution_step: int = 4) -> Scaled:
    """Scale one dimension alone until the compute is as near to `growth` as it gets; ties to fewer macs.

    The result may lie outside the tolerance: a single dimension has coarse steps.

    Raises:
        ScalingError: the dimension has no step at all in that direction.
    """
    base_macs = cost.count(base).macs
    best: Scaled | None = None
    for effective, network in _steps(dimension, base, rounding, growth, resolution_step):
        found = cost.count(network)
        realised = found.macs / base_macs
        if best is None or abs(math.log(realised / growth)) < abs(math.log(best.growth / growth)):
            best = Scaled(network=network, effective=effective, cost=found, growth=realised)
        if (realised >= growth) == (growth >= 1):
            break
    if best is None:
        raise ScalingError(f"{dimension} alone cannot scale this base to {growth:g}x", mend="choose another budget")
    return best


def _steps(
    dimension: str, base: Network, rounding: Rounding, growth: float, resolution_step: int
) -> Iterator[tuple[Multipliers, Network]]:
    """Every network that differs from the base in one dimension, walking away from it towards `growth`."""
    channels = scale_widths(base, 1.0, rounding)
    if dimension == "depth" and not any(rounding.deepens(base)):
        return
    if dimension == "depth":
        step = max(1, base.depth // DEPTH_STEPS)
        fewest = least_depth(base, rounding)
        totals = count_from(base.depth + step, step) if growth > 1 else range(base.depth - step, fewest - 1, -step)
        for total in totals:
            depths = spread(total, base, rounding)
            if max(depths) > DEEPEST:
                return
            network = resize(base, depths=depths, widths=channels, resolution=base.resolution)
            yield Multipliers(depth=total / base.depth), network
    elif dimension == "resolution":
        step = resolution_step if growth > 1 else -resolution_step
        first = base.resolution // resolution_step * resolution_step + max(step, 0)
        sides = range(first, LARGEST_SIDE + 1 if growth > 1 else 0, step)
        for side in (side for side in sides if side != base.resolution):
            yield Multipliers(resolution=side / base.resolution), replace(base, resolution=side)
    else:
        for choice in _width_choices(base, rounding, 1.0, 1.5 * growth if growth > 1 else growth / 2):
            if choice.channels != channels:
                factor = min(max(math.sqrt(growth), choice.low), choice.high)
                network = resize(base, depths=base.depths, widths=choice.channels, resolution=base.resolution)
                yield Multipliers(width=factor), network
