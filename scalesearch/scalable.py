"""What points are projected onto: a network with the rules that its scaled versions follow.

`Scalable` is all that a search knows of a base or a proxy base. `Staged` is the one made of stages, in closed form;
`builder.Built` the one that only a user's builder can make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

from scalesearch import cost
from scalesearch.blueprint import Architecture
from scalesearch.cost import Cost
from scalesearch.depths import least_depth, spread
from scalesearch.levelling import Scaled, level, level_one
from scalesearch.scaling import Multipliers, Rounding, channels, resize, scale, scale_widths
from scalesearch.spec import Network


class Scalable(Protocol):
    """A network whose depth, width and resolution can be scaled."""

    @property
    def network(self) -> Architecture:
        """The network as it is."""
        ...

    @property
    def cost(self) -> Cost:
        """What it costs."""
        ...

    def project(self, points: Sequence[Multipliers], growth: float) -> Sequence[Scaled | None]:
        """For each point the nearest network of `growth` times the compute; None where none is near enough."""
        ...

    def alone(self, dimension: str, growth: float) -> Scaled:
        """One dimension scaled until the compute is as near to `growth` as it gets.

        Raises:
            ScalingError: the dimension has no step in that direction.
        """
        ...

    def rounded(self, point: Multipliers) -> Scaled:
        """The network at a point by the paper's rounding, whatever it costs."""
        ...

    def stand_in(self, one: Scaled, full: Scalable) -> Scaled | None:
        """A network of `full` as one of this base; None unless the two differ in classes and regularisation only."""
        ...

    def smallest(self) -> Scaled | None:
        """The smallest network it can be scaled down to; None if that is not known."""
        ...


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
        return cost.count(self.network)

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
        found = cost.count(network)
        return Scaled(network=network, effective=effective, cost=found, growth=found.macs / self.cost.macs)
