"""Projection of a point of the rule onto a legal network of equal compute.

The paper's rounding makes networks of one nominal growth cost 1.9-3.3 times the base (docs/design.md, section 4).
Here every network within `tolerance` of the growth asked for is listed in closed form, and each point takes the
one nearest to it in log space. Knows nothing of grids or training.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count as count_from
from typing import NamedTuple

from scalesearch import cost
from scalesearch.errors import ScalingError
from scalesearch.scaling import Multipliers, Rounding, resize, scale_widths
from scalesearch.spec import Network

TOLERANCE = 0.03
"""Largest |realised / asked - 1| of a legal network."""
REACH = 0.15
"""Farthest distance, in log space, at which a network still stands for a point."""
WIDTH_STEP = 0.001
"""Step on which width multipliers are tried; channels change more coarsely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """A network made from a base, with the multipliers it really has."""

    network: Network
    effective: Multipliers
    """Blocks / base blocks, a width multiplier that builds these channels, side / base side."""
    growth: float
    """Realised growth: macs / macs of the base."""
    distance: float = 0.0
    """Log-space distance from the point it stands for."""


class _Widths(NamedTuple):
    """Channels of stem, stages and head, and the range of multipliers that round to them."""

    channels: tuple[int, ...]
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


def spread_depth(total: int, depths: tuple[int, ...]) -> tuple[int, ...]:
    """Share `total` blocks among stages as `depths` are, by largest remainder; at least 1 each, ties to the earlier.

    >>> spread_depth(19, (1, 2, 2, 3, 3, 4, 1))
    (1, 2, 2, 4, 4, 5, 1)
    >>> spread_depth(4, (1, 2, 2))
    (1, 2, 1)
    """
    whole = sum(depths)
    exact = [depth * total for depth in depths]
    shared = [max(1, part // whole) for part in exact]
    order = sorted(range(len(depths)), key=lambda i: (shared[i] * whole - exact[i], i))
    while sum(shared) < total:
        for index in order[: total - sum(shared)]:
            shared[index] += 1
    while sum(shared) > total:  # the floor of 1 gave too many: take from the stage farthest above its share
        spare = [i for i in range(len(depths)) if shared[i] > 1]
        shared[max(spare, key=lambda i: (shared[i] * whole - exact[i], i))] -= 1
    return tuple(shared)


def _width_choices(base: Network, rounding: Rounding, low: float, high: float) -> list[_Widths]:
    """Every distinct tuple of channels for multipliers in [low, high], with its range of multipliers."""
    choices: list[_Widths] = []
    for step in range(math.ceil(round(low / WIDTH_STEP, 6)), math.floor(round(high / WIDTH_STEP, 6)) + 1):
        factor = round(step * WIDTH_STEP, 6)
        channels = scale_widths(base, factor, rounding)
        if choices and choices[-1].channels == channels:
            choices[-1] = choices[-1]._replace(high=factor)
        else:
            choices.append(_Widths(channels, factor, factor))
    return choices


class _Profile:
    """macs of a network of given channels as Σ work(stride) · pixels(stride), linear in the depths."""

    def __init__(self, base: Network, channels: tuple[int, ...]) -> None:
        twice = resize(base, depths=(2,) * len(base.stages), widths=channels, resolution=base.resolution)
        self.once: Counter[int] = Counter()
        self.repeats: list[Counter[int]] = []
        for part in cost.parts(twice):
            target: Counter[int] = Counter() if part.block else self.once
            if part.block:
                self.repeats.append(target)
            for layer in part.layers:
                if layer.operator in ("conv", "linear"):
                    target[layer.stride] += layer.work

    def at(self, depths: tuple[int, ...]) -> list[tuple[int, int]]:
        work = dict(self.once)
        for depth, repeat in zip(depths, self.repeats, strict=True):
            for stride, value in repeat.items():
                work[stride] = work.get(stride, 0) + (depth - 1) * value
        return list(work.items())


def _macs(work: list[tuple[int, int]], resolution: int) -> int:
    return sum(value * cost.pixels(resolution, stride) for stride, value in work)


@dataclass(frozen=True, slots=True)
class _Window:
    """What is worth listing: ranges of block totals, width multipliers and sides around the points."""

    depths: range
    widths: tuple[float, float]
    resolutions: tuple[int, ...]


def _window(points: Sequence[Multipliers], base: Network, growth: float, resolution_step: int) -> _Window:
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
    least = max(len(base.stages), math.ceil(round(base.depth * depth[0], 9)))
    return _Window(
        depths=range(least, math.floor(round(base.depth * depth[1], 9)) + 1),
        widths=bounds([point.width for point in points], half),
        resolutions=tuple(sorted(side for side in sides if side >= 1)),
    )


def _multiples(low: float, high: float, step: int) -> range:
    return range(math.ceil(round(low / step, 9)) * step, math.floor(round(high, 9)) + 1, step)


def _legal(base: Network, rounding: Rounding, growth: float, tolerance: float, window: _Window) -> Iterator[_Legal]:
    """Every network in the window whose macs lie within `tolerance` of `growth` times the base's."""
    asked = growth * cost.count(base).macs
    least, most = asked * (1 - tolerance), asked * (1 + tolerance)
    spreads = [(total, math.log(total / base.depth), spread_depth(total, base.depths)) for total in window.depths]
    for widths in _width_choices(base, rounding, *window.widths):
        profile = _Profile(base, widths.channels)
        for total, log_depth, depths in spreads:
            work = profile.at(depths)
            first = bisect_left(window.resolutions, least, key=lambda side, work=work: _macs(work, side))
            for side in window.resolutions[first:]:
                macs = _macs(work, side)
                if macs > most:
                    break
                log_side = math.log(side / base.resolution)
                yield _Legal(total, log_depth, log_side, math.log(macs / asked), macs, widths, side)


def _nearest(point: Multipliers, legal: dict[int, list[_Legal]], base: Network) -> tuple[float, float, _Legal] | None:
    """(distance, width multiplier, network) nearest to the point within `REACH`; ties to fewer macs."""
    log_depth, log_resolution = math.log(point.depth), math.log(point.resolution)
    best: tuple[tuple[float, int, int, int], float, _Legal] | None = None
    limit = REACH**2
    for total, networks in legal.items():
        offset = (math.log(total / base.depth) - log_depth) ** 2
        if offset > limit:
            continue
        for one in networks:
            width = min(max(point.width, one.widths.low), one.widths.high)
            squared = offset + 4 * (one.log_resolution - log_resolution) ** 2 + one.log_error**2
            if width != point.width:
                squared += 4 * math.log(width / point.width) ** 2
            if squared <= limit:
                key = (round(squared, 12), one.macs, one.depth, one.resolution)
                if best is None or key < best[0]:
                    best, limit = (key, width, one), squared + 1e-12
    return None if best is None else (math.sqrt(best[0][0]), best[1], best[2])


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
    window = _window(points, base, growth, resolution_step)
    by_depth: dict[int, list[_Legal]] = {}
    for one in _legal(base, rounding, growth, tolerance, window):
        by_depth.setdefault(one.depth, []).append(one)
    base_macs = cost.count(base).macs
    return [_as_scaled(_nearest(point, by_depth, base), base, base_macs) for point in points]


def _as_scaled(found: tuple[float, float, _Legal] | None, base: Network, base_macs: int) -> Scaled | None:
    if found is None:
        return None
    distance, width, one = found
    depths = spread_depth(one.depth, base.depths)
    return Scaled(
        network=resize(base, depths=depths, widths=one.widths.channels, resolution=one.resolution),
        effective=Multipliers(depth=one.depth / base.depth, width=width, resolution=one.resolution / base.resolution),
        growth=one.macs / base_macs,
        distance=distance,
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
        realised = cost.count(network).macs / base_macs
        if best is None or abs(math.log(realised / growth)) < abs(math.log(best.growth / growth)):
            best = Scaled(network=network, effective=effective, growth=realised)
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
    if dimension == "depth":
        totals = count_from(base.depth + 1) if growth > 1 else range(base.depth - 1, len(base.stages) - 1, -1)
        for total in totals:
            depths = spread_depth(total, base.depths)
            network = resize(base, depths=depths, widths=channels, resolution=base.resolution)
            yield Multipliers(depth=total / base.depth), network
    elif dimension == "resolution":
        step = resolution_step if growth > 1 else -resolution_step
        first = base.resolution // resolution_step * resolution_step + max(step, 0)
        sides = count_from(first, step) if growth > 1 else range(first, 0, step)
        for side in (side for side in sides if side != base.resolution):
            yield Multipliers(resolution=side / base.resolution), replace(base, resolution=side)
    else:
        low, high = (1.0, 1.5 * growth) if growth > 1 else (growth / 2, 1.0)
        choices = _width_choices(base, rounding, low, high)
        for choice in choices if growth > 1 else reversed(choices):
            if choice.channels != channels:
                factor = min(max(math.sqrt(growth), choice.low), choice.high)
                network = resize(base, depths=base.depths, widths=choice.channels, resolution=base.resolution)
                yield Multipliers(width=factor), network
