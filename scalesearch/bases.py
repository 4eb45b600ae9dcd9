"""The network that a search starts from, whichever way the user names it: shipped, from a file, or from a builder.

Both kinds of base share one interface, `Base`; a search does not know which it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, cast

from scalesearch.basefile import read_base
from scalesearch.blueprint import Counted, is_builder
from scalesearch.builder import Built, Counts
from scalesearch.cost import count
from scalesearch.errors import ScalingError
from scalesearch.families import OWN, Named, find_base, own_network
from scalesearch.levelling import Scaled
from scalesearch.proxy_base import SMALLEST_SIDE, narrowed, relaxed
from scalesearch.scalable import Scalable, Staged
from scalesearch.scaling import Family, Multipliers, Published, Rounding
from scalesearch.spec import Network

FULL_STEP, PROXY_STEP = 4, 1
"""Sides of scaled networks and of proxies are multiples of these [px]."""
SMALLEST_BUILT_SIDE = 32
"""Least side of a builder's proxy base [px]: its strides stay, and most networks divide their input by 32."""
SIDE_STEP = 4
"""Sides that are tried for it are multiples of this [px]."""
LARGEST_JUMP = 0.25
"""Most that its compute may depart from the square of the side, in log space."""
GROWTHS_UP = {"1.4": 2**0.5, "2": 2.0, "4": 4.0, "8": 8.0, "16": 16.0}
GROWTHS_DOWN = {"0.7": 0.5**0.5, "0.5": 0.5, "0.25": 0.25}


class Base(Protocol):
    """The network that a search starts from."""

    @property
    def name(self) -> str:
        """What its run folders and scaled networks are called by."""
        ...

    def full(self, classes: int | None = None) -> Scalable:
        """The base at full size.

        Args:
            classes: outputs of the classifier; None = its own.

        Raises:
            ScalingError: it cannot have another number of classes.
        """
        ...

    def small(self, side: int, classes: int, halvings: int) -> Scalable:
        """The network that proxies are scaled from: for images of `side` [px], narrowed `halvings` times by half."""
        ...

    def proxy_side(self, native: int, growth: float) -> int:
        """Side of the proxy base for images of `native` [px], or the least that suits it."""
        ...

    def growths(self, budget: float) -> dict[str, float]:
        """Growth of compute of the default members of a family, by name."""
        ...

    def regularised(self, one: Scaled) -> Scaled:
        """A member with the dropout of its size."""
        ...

    def published(self, classes: int | None) -> dict[str, Scaled]:
        """The published table by name, the baseline first; empty where the base is not the baseline of one."""
        ...

    def confirm(self, kept: Iterable[Scaled]) -> None:
        """Hold the counts of candidates and proxies to a second way of counting, where they rest on torch's.

        Raises:
            CostMismatchError: the two ways differ.
        """
        ...

    def settled(self) -> Base:
        """The same base with all that was ever asked of it, so that asking again needs nothing from outside."""
        ...

    def to_plan(self) -> Any:
        """Plain values that `base_from_plan` makes it from."""
        ...


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

    def proxy_side(self, native: int, growth: float) -> int:
        """See `Base.proxy_side`."""
        return max(SMALLEST_SIDE, native)

    def growths(self, budget: float) -> dict[str, float]:
        """See `Base.growths`: the family's own for its baseline scaled up."""
        family = self.named.family
        if budget >= 1 and family.growths and self.named.network == family.baseline:
            return dict(family.growths)
        return _growths(self.name, budget)

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

    def growths(self, budget: float) -> dict[str, float]:
        """See `Base.growths`."""
        return _growths(self.name, budget)

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

    def settled(self) -> BuilderBase:
        """See `Base.settled`."""
        return replace(self, counts=self.counts.settled())

    def to_plan(self) -> Any:
        """See `Base.to_plan`."""
        rows = [row.text for row in self.counts.table]
        return {"builder": self.counts.builder, "resolution": self.resolution, "counted": rows}


def find(text: str, told: Callable[[str], None] = lambda _: None) -> Base:
    """The base that a text names: a shipped network, a base file (`mine.yaml`), or `package.module:function`.

    Args:
        text: the name.
        told: hears how far counting is, where networks have to be built to be counted.

    Raises:
        SpecError: no such base.
        PlanError: the file does not hold one; all its faults.
        ScalingError: the builder does not make a network.
    """
    if text.endswith((".yaml", ".yml")) or "/" in text:
        return StagedBase(named=read_base(Path(text)))
    if is_builder(text):
        from scalesearch.nets.builder import native_side  # brings torch

        return BuilderBase(counts=Counts(builder=text, told=told), resolution=native_side(text))
    return StagedBase(named=find_base(text))


def halvings_to_fit(base: Base, side: int, classes: int, most: int | None) -> int:
    """How often the proxy base is narrowed until it costs at most `most` multiply-adds; None = no limit."""
    if most is None:
        return 0
    return next(n for n in range(16) if base.small(side, classes, n).cost.macs <= most or n == 15)


def base_from_plan(values: Any) -> Base:
    """The inverse of `Base.to_plan`.

    Raises:
        SpecError, TypeError, KeyError: the values are not those of a base.
    """
    if isinstance(values, str):
        return StagedBase(named=find_base(values))
    if "builder" in values:
        table = tuple(map(Counted.from_text, values["counted"]))
        return BuilderBase(counts=Counts(builder=values["builder"], table=table), resolution=values["resolution"])
    return StagedBase(
        named=own_network(values["name"], Network.from_dict(values["network"]), Rounding(**values["rounding"]))
    )


def _growths(name: str, budget: float) -> dict[str, float]:
    return {f"{name}-x{text}": growth for text, growth in (GROWTHS_UP if budget >= 1 else GROWTHS_DOWN).items()}


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
