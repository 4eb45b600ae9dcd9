"""The kind of base that only a user's builder can make."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from scalesearch.builder import Built, Counts
from scalesearch.errors import ScalingError
from scalesearch.levelling import Scaled
from scalesearch.scalable import FULL_STEP, PROXY_STEP, named_by_growth

SMALLEST_BUILT_SIDE = 32
"""Least side of a builder's proxy base [px]: its strides stay, and most networks divide their input by 32."""
SIDE_STEP = 4
"""Sides that are tried for it are multiples of this [px]."""
LARGEST_DEPTH_STEP = 1.15
"""Growth of compute from which the first step of depth is worth a word."""
LARGEST_JUMP = 0.25
"""Most that its compute may depart from the square of the side, in log space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuilderBase:
    """A callable of the user's, at the side that its network is made for."""

    counts: Counts
    resolution: int

    @property
    def name(self) -> str:
        """See `Base.name`."""
        return self.counts.builder.replace(":", ".")

    def full(self, classes: int | None = None) -> Built:
        """See `Base.full`."""
        base = Built(counts=self.counts, width=1.0, resolution=self.resolution, resolution_step=FULL_STEP)
        made = base.network.num_classes
        if classes not in (None, made):
            fault = f"{self.counts.builder} makes {made} classes, not {classes}"
            raise ScalingError(fault, mend="give a builder with that number of classes")
        return base

    def small(self, side: int, classes: int, halvings: int) -> Built:
        """See `Base.small`; the builder's strides and classes stay, and it must have at least `classes`."""
        base = Built(counts=self.counts, width=0.5**halvings, resolution=side, resolution_step=PROXY_STEP)
        if base.network.num_classes < classes:
            fault = f"{self.counts.builder} makes {base.network.num_classes} classes, the images have {classes}"
            raise ScalingError(fault, mend="give a builder with at least that many classes")
        return base

    @property
    def rounding(self) -> None:
        """See `Base.rounding`."""
        return

    def proxy_side(self, native: int, growth: float) -> int:
        """See `Base.proxy_side`: where the compute grows most like the square of the side.

        The strides of a builder stay, so small maps grow in jumps: from 32 to 33 px the last ones grow fourfold.
        """
        least = max(SMALLEST_BUILT_SIDE, -(-native // SIDE_STEP) * SIDE_STEP)
        jumps = {side: self._jump(side, growth) for side in range(least, 2 * least + 1, SIDE_STEP)}
        smooth = [side for side, jump in jumps.items() if jump <= LARGEST_JUMP]
        return smooth[0] if smooth else min(jumps, key=lambda side: jumps[side])

    def _jump(self, side: int, growth: float) -> float:
        """Most that the compute departs from the square of the side on the way to `growth`, in log space.

        Sides that the builder does not make are passed over.
        """
        end = round(side * math.sqrt(growth) / SIDE_STEP) * SIDE_STEP
        sides = range(min(side, end), max(side, end) + 1, SIDE_STEP)
        rows = {at: row for at in sides if not (row := self.counts(1.0, 1.0, at)).fault}
        if side not in rows:
            return math.inf
        start = rows.pop(side).cost.macs
        jumps = [abs(math.log(row.cost.macs / start) - 2 * math.log(at / side)) for at, row in rows.items()]
        return max(jumps, default=abs(math.log(growth)))

    def remarks(self) -> list[str]:
        """See `Base.remarks`: settings that raise, and a first step of depth that is a jump."""
        rows, builder = self.counts.table, self.counts.builder
        faults = [row for row in rows if row.fault]
        found: list[str] = []
        if faults:
            kinds, one = ", ".join(sorted({row.fault for row in faults})), faults[0]
            where = f"depth {one.depth:g}, width {one.width:g}, {one.resolution} px"
            found.append(f"{builder} raised {kinds} at {len(faults)} of {len(rows)} settings, such as {where}")
        base = self.full().cost.macs
        deeper = [row for row in rows if not row.fault and (row.width, row.resolution) == (1.0, self.resolution)]
        steps = sorted(row.cost.macs / base for row in deeper if row.depth > 1 and row.cost.macs > base)
        if steps and steps[0] > LARGEST_DEPTH_STEP:
            found.append(f"the first step of depth costs {steps[0]:.2f}x: points of less depth are out of reach")
        return found

    def growths(self, budget: float) -> dict[str, float]:
        """See `Base.growths`."""
        return named_by_growth(self.name, budget)

    def regularised(self, one: Scaled) -> Scaled:
        """See `Base.regularised`: dropout is the builder's."""
        return one

    def published(self, classes: int | None) -> dict[str, Scaled]:
        """See `Base.published`: there is none."""
        return {}

    def confirm(self, kept: Iterable[Scaled]) -> None:
        """See `Base.confirm`: by fvcore."""
        from scalesearch.nets.architecture import measure  # brings torch

        distinct = {one.network.built: one for one in kept}
        for number, one in enumerate(distinct.values(), start=1):
            measure(one.network, one.cost)
            self.counts.told(f"confirmed by fvcore: {number} of {len(distinct)} networks")

    def allowed(self) -> BuilderBase:
        """The same, now that a person has named the builder: it may be imported."""
        return replace(self, counts=replace(self.counts, may_import=True, _known={}))

    def settled(self) -> BuilderBase:
        """See `Base.settled`."""
        return replace(self, counts=self.counts.settled())

    def to_plan(self) -> Any:
        """See `Base.to_plan`."""
        rows = [row.text for row in self.counts.table]
        return {"builder": self.counts.builder, "resolution": self.resolution, "counted": rows}
