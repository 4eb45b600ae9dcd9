"""The kind of base that is made of stages: scaled, counted and published in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, cast

from scalesearch.cost import Cost, count
from scalesearch.depths import least_depth, spread
from scalesearch.families import OWN, Named
from scalesearch.levelling import Scaled, level, level_one
from scalesearch.proxy_base import SMALLEST_SIDE, narrowed, relaxed
from scalesearch.scalable import FULL_STEP, PROXY_STEP, Scalable, named_by_growth
from scalesearch.scaling import Family, Multipliers, Published, Rounding, channels, resize, scale, scale_widths
from scalesearch.spec import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A network of stages with its rounding."""

    network: Network
    rounding: Rounding
    resolution_step: int
    """Sides of levelled networks are multiples of this [px]."""

    @property
    def cost(self) -> Cost:
        """What it costs."""
        return count(self.network)

    def project(self, points: Sequence[Multipliers], growth: float) -> list[Scaled | None]:
        """See `Scalable.project`; exact, see `level`."""
        return level(points, self.network, self.rounding, growth, resolution_step=self.resolution_step)

    def alone(self, dimension: str, growth: float) -> Scaled:
        """See `Scalable.alone`."""
        return level_one(dimension, self.network, self.rounding, growth, resolution_step=self.resolution_step)

    def rounded(self, point: Multipliers) -> Scaled:
        """See `Scalable.rounded`."""
        network = scale(self.network, point, self.rounding)
        effective = Multipliers(
            depth=network.depth / self.network.depth,
            width=point.width,
            resolution=network.resolution / self.network.resolution,
        )
        return self._scaled(network, effective)

    def stand_in(self, one: Scaled, full: Scalable) -> Scaled | None:
        """See `Scalable.stand_in`."""
        base, mine, shape = cast("Network", full.network), self.network, cast("Network", one.network)
        head = replace(mine.head, dropout=base.head.dropout)
        if replace(mine, head=head, drop_path=base.drop_path, num_classes=base.num_classes) != base:
            return None
        network = resize(mine, depths=shape.depths, widths=channels(shape), resolution=shape.resolution)
        return self._scaled(network, one.effective)

    def smallest(self) -> Scaled:
        """See `Scalable.smallest`: one block a stage, the least channels, the least side."""
        depth, side = least_depth(self.network, self.rounding), min(self.resolution_step, self.network.resolution)
        widths = scale_widths(self.network, 1e-4, self.rounding)
        network = resize(
            self.network, depths=spread(depth, self.network, self.rounding), widths=widths, resolution=side
        )
        return self._scaled(network, Multipliers())

    def _scaled(self, network: Network, effective: Multipliers) -> Scaled:
        found = count(network)
        return Scaled(network=network, effective=effective, cost=found, growth=found.macs / self.cost.macs)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedBase:
    """A network of stages with the family whose rounding it follows."""

    named: Named

    @property
    def name(self) -> str:
        """See `Base.name`."""
        return self.named.name

    def full(self, classes: int | None = None) -> Staged:
        """See `Base.full`."""
        network = self.named.network
        network = replace(network, num_classes=classes or network.num_classes)
        return Staged(network=network, rounding=self.named.family.rounding, resolution_step=FULL_STEP)

    def small(self, side: int, classes: int, halvings: int) -> Staged:
        """See `Base.small`; strides are relaxed for small images."""
        network, rounding = narrowed(relaxed(self.named.network, side, classes), self.named.family.rounding, halvings)
        return Staged(network=network, rounding=rounding, resolution_step=PROXY_STEP)

    @property
    def rounding(self) -> Rounding:
        """See `Base.rounding`."""
        return self.named.family.rounding

    def proxy_side(self, native: int, growth: float) -> int:
        """See `Base.proxy_side`."""
        return max(SMALLEST_SIDE, native)

    def remarks(self) -> list[str]:
        """See `Base.remarks`: nothing."""
        return []

    def growths(self, budget: float) -> dict[str, float]:
        """See `Base.growths`: the family's own for its baseline scaled up."""
        family = self.named.family
        if budget >= 1 and family.growths and self.named.network == family.baseline:
            return dict(family.growths)
        return named_by_growth(self.name, budget)

    def regularised(self, one: Scaled) -> Scaled:
        """See `Base.regularised`."""
        network = cast("Network", one.network)
        head = replace(network.head, dropout=dropout(self.named.family, network))
        return replace(one, network=replace(network, head=head))

    def published(self, classes: int | None) -> dict[str, Scaled]:
        """See `Base.published`."""
        family = self.named.family
        if not family.published or self.named.network != family.baseline:
            return {}
        named = {family.published[0].name, *(name.lower() for name in family.growths)}
        start = self.full(classes).network
        rows = (row for row in family.published if not family.growths or row.name in named)
        return {row.name.upper(): _published(row, family, start) for row in rows}

    def confirm(self, kept: Iterable[Scaled]) -> None:
        """See `Base.confirm`: the closed form is held to fvcore where a network is built."""

    def settled(self) -> StagedBase:
        """See `Base.settled`."""
        return self

    def to_plan(self) -> Any:
        """See `Base.to_plan`."""
        if self.named.family.name != OWN:
            return self.name
        network, rounding = self.named.network.to_dict(), asdict(self.named.family.rounding)
        return {"name": self.name, "network": network, "rounding": rounding}


def _published(row: Published, family: Family, start: Network) -> Scaled:
    network = replace(family.member(row.name), num_classes=start.num_classes)
    effective = Multipliers(
        depth=network.depth / start.depth, width=row.width, resolution=row.resolution / start.resolution
    )
    found = count(network)
    return Scaled(network=network, effective=effective, cost=found, growth=found.macs / count(start).macs)


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
