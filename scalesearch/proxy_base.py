"""The network that proxies are scaled from: the base made fit for small images, and narrow enough for a CPU."""

from __future__ import annotations

import math
from dataclasses import replace

from scalesearch.dataset import Dataset
from scalesearch.depths import least_depth, spread
from scalesearch.scaling import Multipliers, Rounding, channels, resize, scale
from scalesearch.spec import Network

SMALLEST_SIDE = 20
"""Least resolution of a proxy base [px]."""
LAST_MAP = 3
"""Least side of the proxy base's last map [px]."""
NARROWEST = 4
"""Least channels that narrowing leaves to a stage."""


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


def narrowed(network: Network, rounding: Rounding, halvings: int) -> tuple[Network, Rounding]:
    """Channels halved `halvings` times, divisors and groups with them, so that the steps of width stay as fine.

    No stage gets fewer than `NARROWEST` channels: what is left of the halvings goes to the number of blocks.
    """
    possible = int(math.log2(max(1.0, min(network.stem.width, *_narrowest(network)) / NARROWEST)))
    times = min(halvings, possible)
    finer = replace(rounding, divisor=max(1, rounding.divisor >> times))
    stages = tuple(replace(stage, groups=_fewer(stage.groups, times)) for stage in network.stages)
    squeeze = replace(network.squeeze_excite, divisor=max(1, network.squeeze_excite.divisor >> times))
    divisor = max(1, network.hidden_divisor >> times)
    finely = replace(network, stages=stages, squeeze_excite=squeeze, hidden_divisor=divisor)
    # stem and head narrow too, whether or not they widen with the stages later
    narrow = scale(finely, Multipliers(width=0.5**times), replace(finer, stem="scaled", head="scaled"))
    depth = max(least_depth(narrow, rounding), narrow.depth >> (halvings - times))
    depths = spread(depth, narrow, rounding)
    return resize(narrow, depths=depths, widths=channels(narrow), resolution=narrow.resolution), finer


def _fewer(groups: int, halvings: int) -> int:
    """The most groups up to their number halved so often that still share what the groups share."""
    return next(number for number in range(max(1, groups >> halvings), 0, -1) if groups % number == 0)


def _narrowest(network: Network) -> list[int]:
    """Channels of each stage, or of its blocks' inside where that is narrower."""
    return [
        min(stage.width, round(stage.width * stage.expansion)) if stage.block == "bottleneck" else stage.width
        for stage in network.stages
    ]


def native_side(data: Dataset, growth: float, photo_side: int) -> int:
    """Side of a proxy base from which proxies grow to the images' own side, not above it [px].

    Args:
        data: the images.
        growth: of the budget.
        photo_side: most for photos [px].
    """
    native = round(data.side / math.sqrt(max(1.0, growth)))
    return min(photo_side, native) if data.is_photos else native
