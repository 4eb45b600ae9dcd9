"""What a search is set on: landscapes of planted truth.

The real arms of a search (the distinct proxies of B0 at twice the compute, standard preset) with a truth that
is known. Over plane coordinates of the shares, centred on the arms and scaled to the spread of a uniform square,
accuracy falls with the squared distance from an optimum, and every arm adds a roughness of its own. What short
training shows differs: by a scatter of its own, and where asked by a systematic lead of width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol
from zlib import crc32

import numpy as np

from scalesearch.basis import CORNERS
from scalesearch.policies.race import region
from scalesearch.request import Request, resolve
from scalesearch.samples import Arm, Shares

Array = np.ndarray[Any, Any]

MARGIN = 0.1
"""Differences up to this count as none [points]."""
NOISE = {4: 0.56, 16: 0.19, 64: 0.15}
"""Training length [epochs] -> standard deviation between seeds [points]. Source: arXiv 2304.01910, CIFAR-10, ResNet."""
FULL = max(NOISE)
LIKENESS = {4: 0.7, 16: 0.9, FULL: 1.0}
"""Correlation of what a training length shows with the truth at full length, before noise and bias."""
EARLY = {4: 1.0, 16: 0.4, FULL: 0.0}
"""Part of the early bias that is left at a training length."""
BIAS = 1.0
"""What the early bias adds to pure width against pure depth at the shortest training [points]."""
LEVEL = 80.0
"""Accuracy at the planted optimum [%]."""
SPREAD = np.sqrt(2 / 3)
"""Root mean square radius of the square [-1, 1]² under a uniform density."""


class Landscape(Protocol):
    """What a searcher is set on, and what it is judged by."""

    @property
    def arms(self) -> tuple[Arm, ...]:
        """In canonical order."""
        ...

    @property
    def truth(self) -> Array:
        """(arms,): accuracy after full training [%]."""
        ...

    @property
    def optimum(self) -> Shares | None:
        """Shares at which the surface without roughness is highest; None where nobody knows."""
        ...

    @property
    def rungs(self) -> tuple[int, ...]:
        """Training lengths, ascending [epochs]."""
        ...

    @property
    def seeds(self) -> int | None:
        """Different trainings that there are of each arm; None: any number."""
        ...

    def accuracy(self, place: int, rung: int, seed: int, random: np.random.Generator) -> float:
        """What the training of an arm shows [%]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Planted:
    """A landscape whose truth is known."""

    arms: tuple[Arm, ...]
    means: Mapping[int, Array]
    """Training length [epochs] -> (arms,): what it shows on average [%]."""
    optimum: Shares | None
    seeds: int | None = None

    @property
    def truth(self) -> Array:
        """(arms,): accuracy after full training [%]."""
        return self.means[FULL]

    @property
    def rungs(self) -> tuple[int, ...]:
        """Training lengths, ascending [epochs]."""
        return tuple(NOISE)

    def accuracy(self, place: int, rung: int, seed: int, random: np.random.Generator) -> float:
        """A training from scratch; every one has noise of its own, whatever its seed."""
        return float(self.means[rung][place] + random.normal(0, NOISE[rung]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A kind of planted landscape."""

    curvature: float = 0.5
    """Mean fall of accuracy at distance 1 from the optimum [points]."""
    roughness: float = 0.05
    """Standard deviation of what each arm adds of its own [points]."""
    is_early_biased: bool = False
    """Whether short training favours width."""
    shape: str = "quadratic"
    """`quadratic`, `pointed` (distance to the power 1.5), `skewed` (three times as steep on one side)."""
    lead: float | None = None
    """What the best arm is raised to be ahead of the second [points]; None leaves it."""
    flips: bool = False
    """Whether the width region leads the depth region by `BIAS` at the shortest training, though depth is best."""


SETTINGS: Mapping[str, Setting] = {
    "smooth": Setting(),
    "rough": Setting(roughness=0.1),
    "smooth-biased": Setting(is_early_biased=True),
    "rough-biased": Setting(roughness=0.1, is_early_biased=True),
    "all-equal": Setting(curvature=0.0, roughness=0.0),
    "clear-winner": Setting(lead=0.5),
    "flip": Setting(flips=True),
    "rough-flat": Setting(curvature=0.25, roughness=0.1),
    "smooth-0": Setting(roughness=0.0),
    "pointed": Setting(shape="pointed"),
    "skewed": Setting(shape="skewed"),
}


@cache
def arms() -> tuple[Arm, ...]:
    """The trained proxies of B0 at twice the compute that keep the budget, each with its shares."""
    _, layout = resolve(Request(base="b0", preset="standard"))
    trained = [layout.candidate(name) for name in layout.trained]
    return tuple(Arm(id=one.proxy_id, shares=one.shares) for one in trained if not one.off_budget)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plane:
    """Plane coordinates of shares, in which arms are centred and as widely spread as a uniform square."""

    centre: Array
    unit: float
    """Distance between shares that is 1 in the plane."""

    @classmethod
    def of(cls, shares: Array) -> Plane:
        """The coordinates that suit these arms (arms, 3)."""
        flat = (shares - 1 / 3) @ CORNERS.T
        centre = flat.mean(axis=0)
        return cls(centre=centre, unit=float(np.sqrt(((flat - centre) ** 2).sum(axis=1).mean()) / SPREAD))

    def at(self, shares: Array) -> Array:
        """(points, 2) of shares (points, 3)."""
        return ((shares - 1 / 3) @ CORNERS.T - self.centre) / self.unit

    def shares(self, point: Array) -> Shares:
        """The shares of a point (2,)."""
        depth, width, resolution = (point * self.unit + self.centre) @ CORNERS + 1 / 3
        return float(depth), float(width), float(resolution)


def stream(*names: object) -> np.random.Generator:
    """Random numbers that belong to these names alone."""
    return np.random.default_rng([crc32(str(name).encode()) for name in names])


def planted(setting: Setting, random: np.random.Generator) -> Planted:
    """A landscape of a kind."""
    found = _planted(setting, random)
    while setting.flips and not _is_deep(found):
        found = _planted(setting, random)
    return found


def _planted(setting: Setting, random: np.random.Generator) -> Planted:
    known = arms()
    shares = np.array([arm.shares for arm in known])
    plane = Plane.of(shares)
    centre = random.uniform(-0.5, 0.5, 2)
    truth = LEVEL - setting.curvature * _fall(plane.at(shares) - centre, setting.shape, random)
    truth = truth + random.normal(0, setting.roughness, len(known))
    if setting.lead is not None:
        second, best = np.sort(truth)[-2:]
        truth = truth + (truth == best) * (second + setting.lead - best)
    means = {rung: _shown(truth, likeness, random) for rung, likeness in LIKENESS.items()}
    lean = shares[:, 1] * _bias(setting, known, means[min(EARLY)])
    means = {rung: values + EARLY[rung] * lean for rung, values in means.items()}
    return Planted(arms=known, means=means, optimum=plane.shares(centre) if setting.curvature else None)


def _fall(away: Array, shape: str, random: np.random.Generator) -> Array:
    """(arms,): how much lower each arm is than the optimum, at a mean curvature of 1."""
    turn, uneven, side = random.uniform(0, np.pi), random.uniform(0, 0.5), random.uniform(0, 2 * np.pi)
    axes = away @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    squares = axes**2 @ np.array([1 + uneven, 1 - uneven])
    if shape == "pointed":
        return squares**0.75
    if shape == "skewed":
        return squares * (1 + 0.5 * np.sign(away @ np.array([np.cos(side), np.sin(side)])))
    return squares


def _shown(truth: Array, likeness: float, random: np.random.Generator) -> Array:
    """What a training length shows on average: the truth, drawn to its mean, and scatter of its own as wide."""
    mean = truth.mean()
    scatter = np.sqrt(1 - likeness**2) * random.normal(0, truth.std(), len(truth))
    return mean + likeness * (truth - mean) + scatter


def _bias(setting: Setting, known: Sequence[Arm], shortest: Array) -> float:
    """What pure width gains over a network without any width at the shortest training [points]."""
    if not setting.flips:
        return BIAS if setting.is_early_biased else 0.0
    homes = np.array([region(arm) for arm in known])
    widths = np.array([arm.shares for arm in known])[:, 1]
    is_wide, is_deep = homes == "width", homes == "depth"
    lacking = BIAS - (shortest[is_wide].mean() - shortest[is_deep].mean())
    return float(lacking / (widths[is_wide].mean() - widths[is_deep].mean()))


def _is_deep(one: Planted) -> bool:
    """Whether the optimum and the best arm lie in the depth region, and no other region comes within the margin."""
    is_deep = np.array([region(arm) == "depth" for arm in one.arms])
    ahead = one.truth[is_deep].max() - one.truth[~is_deep].max()
    return one.optimum is not None and int(np.argmax(one.optimum)) == 0 and bool(ahead > MARGIN)
