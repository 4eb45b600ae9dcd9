"""The family as pictures: its cost beside the published one's, whose accuracies are theirs alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from scalesearch.cost import count
from scalesearch.families import FAMILIES
from scalesearch.report.figure import Axis, Drawn, Figure, Line, Lines, Mark, Missing, Spot, Spots, decades

PUBLISHED = {"b0": 77.1, "b1": 79.1, "b2": 80.1, "b3": 81.6, "b4": 82.9, "b5": 83.6, "b6": 84.0, "b7": 84.3}
"""ImageNet top-1 of the published networks [%]. Source: arXiv:1905.11946v5, Table 2."""
SOURCE = "arXiv:1905.11946v5, Table 2"
Quantity = Literal["macs", "params"]
UNITS: Mapping[Quantity, tuple[float, str, str]] = {
    "macs": (1e9, "G", "multiply-adds"),
    "params": (1e6, "M", "parameters"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Theirs:
    """A published network."""

    name: str
    macs: int
    params: int
    top1: float
    """As printed [%]."""


def published_networks(base: str) -> tuple[Theirs, ...]:
    """The published family of a base, counted by us; empty where there is none whose accuracies are known."""
    family = FAMILIES["efficientnet"]
    if family.aliases.get(base, base) != "b0":
        return ()
    costs = {name: count(family.member(name)) for name in PUBLISHED}
    return tuple(
        Theirs(name=name.upper(), macs=costs[name].macs, params=costs[name].params, top1=top1)
        for name, top1 in PUBLISHED.items()
    )


def family_figure(quantity: Quantity, members: Sequence[Mapping[str, Any]], theirs: Sequence[Theirs]) -> Drawn:
    """Published accuracy over a cost, with our members where they stand in that cost: nobody trained them."""
    unit, short, name = UNITS[quantity]
    id, title = f"family-{quantity}", f"Accuracy over {name}"
    if not theirs:
        why = "This base has no published family whose accuracies could be shown beside its members."
        return Missing(id=id, title=title, why=why)
    costs = [getattr(one, quantity) for one in theirs] + [row[quantity] for row in members]
    low, high = min(costs) / 1.25, max(costs) * 1.35
    floor = 75.2
    return Figure(
        id=id,
        title=title,
        caption=f"Published EfficientNets, {theirs[0].top1} to {theirs[-1].top1} % ({SOURCE}). {_said(members, name)}",
        x=Axis(title=name, low=low, high=high, ticks=decades(low, high, unit, short), is_log=True),
        y=Axis(title="ImageNet top-1, %", low=floor, high=85.4, ticks=tuple((v, f"{v}") for v in range(76, 86, 2))),
        marks=(*_published(quantity, theirs), *_members(quantity, members, floor)),
        height=330,
    )


def _said(members: Sequence[Mapping[str, Any]], name: str) -> str:
    if not members:
        return "This run has no members."
    return f"This run's {len(members)} members stand on the axis by their {name}: nobody has trained them on ImageNet."


def _published(quantity: Quantity, theirs: Sequence[Theirs]) -> Iterator[Mark]:
    places = tuple((float(getattr(one, quantity)), one.top1) for one in theirs)
    yield Lines(kind="theirs", lines=(Line(places=places),))
    spots = [
        Spot(
            x=x,
            y=y,
            tip=f"{one.name} as published: {y} % top-1, {one.macs:,} macs, {one.params:,} params",
            label=one.name,
            side="above",
        )
        for one, (x, y) in zip(theirs, places, strict=True)
    ]
    yield Spots(kind="theirs", name="published, theirs", spots=tuple(spots))


def _members(quantity: Quantity, members: Sequence[Mapping[str, Any]], floor: float) -> Iterator[Mark]:
    """Stems on the axis: a cost without an accuracy."""
    rows = [(float(row[quantity]), str(row["name"])) for row in members]
    yield Lines(kind="ours", lines=tuple(Line(places=((x, floor), (x, floor + 0.7))) for x, _ in rows))
    spots = tuple(
        Spot(x=x, y=floor + 0.7, tip=f"{name} of this run: {x:,.0f} {quantity}, not trained", label=name, side="above")
        for x, name in rows
    )
    if spots:
        yield Spots(kind="ours", name="this run's: cost alone", spots=spots)
