"""The network that proxies are scaled from: the base made fit for small images, and narrow enough for a CPU."""

from __future__ import annotations

import math
from dataclasses import replace

from scalesearch.candidates import Scalable
from scalesearch.cost import count
from scalesearch.dataset import Dataset
from scalesearch.presets import Preset
from scalesearch.scaling import Multipliers, Rounding, scale
from scalesearch.spec import Network

SMALLEST_SIDE = 20
"""Least resolution of a proxy base [px]."""
LAST_MAP = 3
"""Least side of the proxy base's last map [px]."""


def relaxed(network: Network, resolution: int, num_classes: int) -> Network:
    """The network for small images: early stride-2 steps removed until its last map is at least 3x3.

    The order is stem, stem pool, then strided stages from the first. Regularisation by dropout and stochastic
    depth is off: short trainings underfit.
    """
    stem, stages = network.stem, list(network.stages)

    def last_map() -> int:
        return -(-resolution // (stem.stride * stem.pool * math.prod(stage.stride for stage in stages)))

    if last_map() < LAST_MAP:
        stem = replace(stem, stride=1)
    if last_map() < LAST_MAP:
        stem = replace(stem, pool=1)
    for index, stage in enumerate(stages):
        if last_map() < LAST_MAP:
            stages[index] = replace(stage, stride=1)
    return replace(
        network,
        stem=stem,
        stages=tuple(stages),
        head=replace(network.head, dropout=0.0),
        drop_path=0.0,
        resolution=resolution,
        num_classes=num_classes,
    )


def narrowed(network: Network, rounding: Rounding, halvings: int) -> Scalable:
    """Channels halved `halvings` times, the rounding's divisor with them, so that its steps stay as fine."""
    finer = replace(rounding, divisor=max(1, rounding.divisor >> halvings))
    narrow = scale(network, Multipliers(width=0.5**halvings), finer)
    return Scalable(network=narrow, rounding=finer, resolution_step=1)


def halvings_to_fit(network: Network, rounding: Rounding, most: int | None) -> int:
    """How often the channels are halved until the network costs at most `most` multiply-adds; None = no limit."""
    if most is None:
        return 0
    return next(n for n in range(16) if count(narrowed(network, rounding, n).network).macs <= most or n == 15)


def proxy_side(data: Dataset, growth: float, preset: Preset) -> int:
    """Resolution of the proxy base, so that what grows from it stays within the images' native side [px]."""
    native = round(data.side / math.sqrt(max(1.0, growth)))
    return max(SMALLEST_SIDE, min(preset.photo_side, native) if data.is_photos else native)
