"""Candidates: the distinct networks that the points of a space lead to, each with the proxy trained for it.

A candidate keeps every grid point and reference that it stands for. Knows nothing of training, seeds or files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from scalesearch.errors import ScalingError, SpaceError
from scalesearch.levelling import TOLERANCE, Scaled
from scalesearch.limits import Limits
from scalesearch.scalable import Scalable
from scalesearch.scaling import DIMENSIONS, Coefficients
from scalesearch.space import REFERENCES, Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A distinct network of the base, with every point that leads to it and the proxy trained for it."""

    id: str
    coefficients: Coefficients
    """The nearest of its points, or its reference point."""
    points: tuple[Coefficients, ...]
    """Grid points that this network stands for; empty if it is only a reference."""
    references: tuple[str, ...]
    scaled: Scaled
    proxy: Scaled
    """The network that is really trained, made from the proxy base."""
    proxy_id: str
    """Id of the first candidate with the same proxy: they are trained once."""
    off_budget: bool
    """A single-dimension reference that its coarse steps leave outside the tolerance."""

    @property
    def shares(self) -> tuple[float, float, float]:
        """Log-compute shares of the trained proxy."""
        return self.proxy.effective.shares


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """A point that leads to no candidate, with the reason."""

    coefficients: Coefficients
    reference: str
    """Name of the reference point; empty for a grid point."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Everything a space holds on a base."""

    nominal_points: int
    candidates: tuple[Candidate, ...]
    """In rising order of effective depth, width, resolution."""
    excluded: tuple[Exclusion, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """A point with its network and proxy, before identical networks are merged."""

    coefficients: Coefficients
    reference: str
    """Name of the reference point; empty for a grid point."""
    scaled: Scaled
    proxy: Scaled


def candidates(space: Space, base: Scalable, proxy_base: Scalable, limits: Limits) -> Candidates:
    """Every distinct network of the space, references included, with its levelled proxy.

    Raises:
        SpaceError: no candidate is left; the message gives a reason.
    """
    grid = space.grid()
    named = {name: Coefficients.from_shares(shares, space.budget) for name, shares in REFERENCES.items()}
    points = [*((point, "") for point in grid), *((point, name) for name, point in named.items())]
    make = _levelled if space.policy == "level" else _rounded
    outcomes = [_limited(one, limits) for one in make(space, points, base, proxy_base)]
    found = [one for one in outcomes if isinstance(one, _Found)]
    excluded = [one for one in outcomes if isinstance(one, Exclusion)]
    if not found:
        reason = f"for example {grid[0].text}: {excluded[0].reason}"
        mend = "give another --budget, or more by --max-params, --max-activations or --max-memory"
        raise SpaceError("no candidate is left", mend=f"{reason}{_smallest(space, base)}; {mend}")
    merged = _merged(found, space)
    return Candidates(nominal_points=len(grid), candidates=tuple(merged), excluded=tuple(excluded))


def _limited(one: _Found | Exclusion, limits: Limits) -> _Found | Exclusion:
    fault = limits.fault(one.scaled) if isinstance(one, _Found) else ""
    return Exclusion(coefficients=one.coefficients, reference=one.reference, reason=fault) if fault else one


def _smallest(space: Space, base: Scalable) -> str:
    """What a base can be scaled down to, where a budget below 1 found nothing."""
    least = base.smallest() if space.budget < 1 else None
    if least is None:
        return ""
    return f"; the smallest network of this base costs {least.growth:.3g}x ({least.cost.macs:,} macs)"


_Points = Sequence[tuple[Coefficients, str]]


def _rounded(space: Space, points: _Points, base: Scalable, proxy_base: Scalable) -> Iterator[_Found | Exclusion]:
    """The paper's rounding: a point scales the base and the proxy base alike."""
    for point, name in points:
        try:
            scaled, proxy = base.rounded(point.at(1)), proxy_base.rounded(point.at(1))
        except ScalingError as error:
            yield Exclusion(coefficients=point, reference=name, reason=error.message)
            continue
        if scaled.network.built == base.network.built or proxy.network.built == proxy_base.network.built:
            reason = "the paper's rounding leaves the base or its proxy as it is"
            yield Exclusion(coefficients=point, reference=name, reason=reason)
        else:
            yield _Found(point, name, scaled, proxy)


def _levelled(space: Space, points: _Points, base: Scalable, proxy_base: Scalable) -> Iterator[_Found | Exclusion]:
    """Networks of equal compute: points are projected, single dimensions move alone."""
    projected = [entry for entry in points if entry[1] not in DIMENSIONS]
    networks = base.project([point.at(1) for point, _ in projected], space.budget)
    proxies = iter(_proxies([one for one in networks if one is not None], base, proxy_base, space.budget))
    for (point, name), scaled in zip(projected, networks, strict=True):
        proxy = next(proxies) if scaled is not None else None
        if scaled is not None and proxy is not None:
            yield _Found(point, name, scaled, proxy)
        else:
            what = "proxy" if scaled is not None else "network"
            yield Exclusion(coefficients=point, reference=name, reason=_unreachable(what, space.budget))
    for point, name in points:
        if name in DIMENSIONS:
            yield _single(point, name, space.budget, base, proxy_base)


def _proxies(networks: Sequence[Scaled], base: Scalable, proxy_base: Scalable, budget: float) -> list[Scaled | None]:
    """The proxy of each network: itself where the proxy base is the base as it is, else projected on the proxy base."""
    found = [proxy_base.stand_in(one, base) for one in networks]
    # another number of classes moves the growth a little
    kept = [one if one is not None and abs(one.growth / budget - 1) <= TOLERANCE else None for one in found]
    left = [network.effective for network, one in zip(networks, kept, strict=True) if one is None]
    projected = iter(proxy_base.project(left, budget) if left else ())
    return [next(projected) if one is None else one for one in kept]


def _unreachable(what: str, budget: float) -> str:
    return f"no {what} within {TOLERANCE:.0%} of {budget:.4g}x is near enough to stand for this point"


def _single(point: Coefficients, name: str, budget: float, base: Scalable, proxy_base: Scalable) -> _Found | Exclusion:
    try:
        scaled = base.alone(name, budget)
        return _Found(point, name, scaled, proxy_base.stand_in(scaled, base) or proxy_base.alone(name, budget))
    except ScalingError as error:
        return Exclusion(coefficients=point, reference=name, reason=error.message)


def _merged(found: Iterable[_Found], space: Space) -> list[Candidate]:
    groups: dict[object, list[_Found]] = {}
    for one in found:
        groups.setdefault(one.scaled.network.built, []).append(one)
    made = sorted((_candidate(group, space) for group in groups.values()), key=_order)
    shared: dict[object, list[Candidate]] = {}
    for one in made:
        shared.setdefault(one.proxy.network.built, []).append(one)
    return [_sharing(one, shared[one.proxy.network.built]) for one in made]


def _sharing(one: Candidate, same: list[Candidate]) -> Candidate:
    """A candidate with its proxy as all that share it have it: a single dimension's, where it stands for one."""
    owner = min(same, key=lambda other: not any(name in DIMENSIONS for name in other.references))
    return replace(one, proxy_id=same[0].id, proxy=owner.proxy)


def _order(candidate: Candidate) -> tuple[float, float, float]:
    effective = candidate.scaled.effective
    return effective.depth, effective.width, effective.resolution


def _candidate(group: list[_Found], space: Space) -> Candidate:
    # a single-dimension reference keeps its proxy, which moves nothing else; else the nearest point speaks
    chosen = min(group, key=lambda one: (one.reference not in DIMENSIONS, one.reference != "", one.scaled.distance))
    off = space.policy == "level" and any(
        abs(one.growth / space.budget - 1) > TOLERANCE for one in (chosen.scaled, chosen.proxy)
    )
    network, effective = chosen.scaled.network, chosen.scaled.effective
    name = f"d{network.depth:g}-w{effective.width:.3f}-r{network.resolution}"
    return Candidate(
        id=name,
        coefficients=chosen.coefficients,
        points=tuple(one.coefficients for one in group if not one.reference),
        references=tuple(one.reference for one in group if one.reference),
        scaled=chosen.scaled,
        proxy=chosen.proxy,
        proxy_id=name,
        off_budget=off,
    )


def spread(shares: Sequence[tuple[float, float, float]], first: Sequence[int], limit: int) -> list[int]:
    """Indices of at most `limit` points: those of `first` in order, then farthest-point sampling, ties to the earlier.

    >>> spread([(1, 0, 0), (0.9, 0.1, 0), (0, 1, 0), (0, 0, 1)], first=[0], limit=3)
    [0, 2, 3]
    """
    chosen = list(dict.fromkeys(first))[:limit]
    if not chosen and shares and limit:
        chosen = [0]
    gaps = [min((math.dist(point, shares[index]) for index in chosen), default=math.inf) for point in shares]
    while len(chosen) < min(limit, len(shares)):
        left = [index for index in range(len(shares)) if index not in chosen]
        farthest = max(left, key=lambda index: (round(gaps[index], 12), -index))
        chosen.append(farthest)
        gaps = [min(gap, math.dist(point, shares[farthest])) for gap, point in zip(gaps, shares, strict=True)]
    return chosen


def trained_proxies(found: Sequence[Candidate], limit: int | None) -> tuple[str, ...]:
    """Ids of the proxies to train, in candidate order: all, or a subset spread over the shares, references first."""
    arms = [one for one in found if one.id == one.proxy_id]
    if limit is None:
        return tuple(one.id for one in arms)
    place = {one.id: index for index, one in enumerate(arms)}
    named = {name: place[one.proxy_id] for one in found for name in one.references}
    first = [named[name] for name in REFERENCES if name in named]
    return tuple(arms[index].id for index in sorted(spread([one.shares for one in arms], first, limit)))
