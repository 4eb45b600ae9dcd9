"""All that a search knows of a base: `Base`, what it starts from, and `Scalable`, what points are projected onto.

`staged` holds the kind made of stages, in closed form; `builder` the kind that only a user's builder can make.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from scalesearch.blueprint import Architecture
from scalesearch.cost import Cost
from scalesearch.levelling import Scaled
from scalesearch.scaling import Multipliers, Rounding

FULL_STEP, PROXY_STEP = 4, 1
"""Sides of scaled networks and of proxies are multiples of these [px]."""
GROWTHS_UP = {"1.4": 2**0.5, "2": 2.0, "4": 4.0, "8": 8.0, "16": 16.0}
GROWTHS_DOWN = {"0.7": 0.5**0.5, "0.5": 0.5, "0.25": 0.25}


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

    @property
    def rounding(self) -> Rounding | None:
        """How its channels are rounded and what of it scales; None where that is a builder's."""
        ...

    def proxy_side(self, native: int, growth: float) -> int:
        """Side of the proxy base for images of `native` [px], or the least that suits it."""
        ...

    def remarks(self) -> list[str]:
        """What a user should know of a base whose networks are counted, not computed."""
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


def named_by_growth(name: str, budget: float) -> dict[str, float]:
    """Default members of a base that has no names of its own for them."""
    return {f"{name}-x{text}": growth for text, growth in (GROWTHS_UP if budget >= 1 else GROWTHS_DOWN).items()}
