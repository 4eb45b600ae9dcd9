"""Compute as pictures: what candidates really cost, and what the search spent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scalesearch.levelling import TOLERANCE
from scalesearch.plan import Layout, Plan
from scalesearch.report.figure import Axis, Drawn, Figure, Mark, Missing, Spot, Spots, Zone, evenly, padded, ticks
from scalesearch.spec import Network
from scalesearch.trials import STAGES, Stage, TrialResult, TrialState

MOST_POINTS = 500
"""Points of one kind in the picture; the table has every candidate."""


def compute_figure(plan: Plan, layout: Layout) -> Drawn:
    """What each grid point asks for, and what the networks cost that stand for it."""
    title, budget = "Growth, by the algebra and as built", plan.space.budget
    ours = [
        (point.nominal, one.scaled.growth, f"{one.id} for {point.text}")
        for one in layout.candidates
        for point in one.points or ((one.coefficients,) if one.references else ())
    ]
    theirs = [*_plain_rounding(plan, layout)] if plan.space.policy == "level" else []
    if not ours:
        return Missing(id="compute", title=title, why="No candidate is left.")
    x = padded([nominal for nominal, _, _ in [*ours, *theirs]], least=0.02)
    y = padded([growth for _, growth, _ in [*ours, *theirs]] + [budget], least=0.2)
    spread = _ends([growth for _, growth, _ in ours])
    before = f" By the paper's rounding they would cost {_ends([g for _, g, _ in theirs])} times." if theirs else ""
    few = f" {MOST_POINTS} of them are drawn; the table has every candidate." if len(ours) > MOST_POINTS else ""
    is_level = plan.space.policy == "level"
    return Figure(
        id="compute",
        title=title,
        caption=f"{len(ours)} points, references included, become {len(layout.candidates)} networks of {spread} times "
        f"the base.{before}{few}",
        x=Axis(title="growth by the algebra, α·β²·γ²", low=x[0], high=x[1], ticks=ticks(*x, count=5)),
        y=Axis(title="growth of the built network", low=y[0], high=y[1], ticks=ticks(*y)),
        marks=(
            Zone(
                kind="target",
                name=f"within {TOLERANCE:.0%} of the budget".replace("%", " %"),
                y=(budget * (1 - TOLERANCE), budget * (1 + TOLERANCE)),
            ),
            *_growths("before", "the paper's rounding", theirs),
            *_growths("tied", "levelled: what is searched" if is_level else "the paper's rounding, as asked", ours),
        ),
        height=300,
    )


def _ends(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def _plain_rounding(plan: Plan, layout: Layout) -> Iterator[tuple[float, float, str]]:
    """The same points by the paper's rounding; nothing of a base that only its builder can make."""
    base = plan.scalable
    if not isinstance(base.network, Network):
        return
    for one in layout.candidates:
        for point in one.points:
            yield point.nominal, base.rounded(point.at(1)).growth, f"the paper's rounding of {point.text}"


def _growths(kind: str, name: str, rows: Sequence[tuple[float, float, str]]) -> Iterator[Mark]:
    if rows:
        shown = evenly(rows, MOST_POINTS)
        spots = [
            Spot(x=round(x, 4), y=round(y, 4), tip=f"{what}: {x:.3f} by the algebra, {y:.3f} as built")
            for x, y, what in shown
        ]
        yield Spots(kind=kind, name=name, spots=tuple(spots))


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What the trials of one stage and length took."""

    stage: str
    epochs: int
    """Of each trial."""
    trained: int
    """Trials that went through all their epochs."""
    failed: int
    unfinished: int
    passes: int
    """Epochs times training images, of all of them so far."""
    macs: float
    """Multiply-adds of these, forward and backward (3 forward passes each)."""
    hours: float
    """Sum of the trials' own times, those beside each other counted apart [h]."""


def spending(plan: Plan, layout: Layout, results: Sequence[TrialResult]) -> list[Spending]:
    """What was spent, by stage and training length."""
    costs = {one.proxy_id: one.proxy.cost.macs for one in layout.candidates}
    groups: dict[tuple[Stage, int], list[TrialResult]] = {}
    for result in results:
        groups.setdefault((result.key.stage, result.key.rung), []).append(result)
    order = list(STAGES)
    found: list[Spending] = []
    for stage, rung in sorted(groups, key=lambda key: (order.index(key[0]), key[1])):
        own = groups[stage, rung]
        epochs = [(len(one.epochs), costs.get(one.key.proxy, plan.proxy_base.cost.macs)) for one in own]
        found.append(
            Spending(
                stage=STAGES[stage],
                epochs=rung,
                trained=sum(one.is_trained for one in own),
                failed=sum(one.state is TrialState.FAILED for one in own),
                unfinished=sum(not one.has_ended for one in own),
                passes=plan.images * sum(count for count, _ in epochs),
                macs=3.0 * plan.images * sum(count * macs for count, macs in epochs),
                hours=sum(one.seconds or 0.0 for one in own) / 3600,
            )
        )
    return found


def cost_figure(plan: Plan, layout: Layout, rows: Sequence[Spending]) -> Drawn:
    """Image passes by stage and length, beside what the exhaustive grid would take."""
    title = "Images seen in training"
    if not rows:
        return Missing(id="cost", title=title, why="No trial has begun.")
    bars = [(f"{row.stage}, {row.epochs} epoch{'s' * (row.epochs > 1)}", row.passes, "spent") for row in rows]
    grid = plan.images * (plan.epochs * plan.seeds * len(layout.trained) + plan.anchor_epochs)
    bars.append(("exhaustive grid", grid, "before"))
    high = 1.25 * max(passes for _, passes, _ in bars)  # room for the last label
    spots = [
        Spot(x=passes, y=-index, tip=f"{name}: {passes:,} image passes", label=f"{passes:,}", side="right")
        for index, (name, passes, _) in enumerate(bars)
    ]
    return Figure(
        id="cost",
        title=title,
        caption="; ".join(f"{name}: {passes:,} image passes" for name, passes, _ in bars),
        x=Axis(title="image passes in training", low=0, high=high, ticks=ticks(0, high, count=3)),
        y=Axis(
            title="",
            low=-len(bars) + 0.4,
            high=0.6,
            ticks=tuple((-index, name) for index, (name, _, _) in enumerate(bars)),
            has_grid=False,
        ),
        marks=(
            *(
                Zone(kind=kind, x=(0, passes), y=(-index - 0.28, -index + 0.28), tip=f"{name}: {passes:,}")
                for index, (name, passes, kind) in enumerate(bars)
            ),
            Spots(kind="unmarked", name="", spots=tuple(spots)),
        ),
        height=34 * len(bars) + 20,
    )
