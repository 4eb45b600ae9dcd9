"""What figures show, as tables: for readers who want numbers, or cannot see pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalesearch.cost import Cost
from scalesearch.limits import BATCH, training_memory
from scalesearch.plan import ANCHOR, Layout, Plan
from scalesearch.ranking import Ranking
from scalesearch.report.compute import Spending
from scalesearch.report.kin import Theirs
from scalesearch.report.training import Step
from scalesearch.trials import TrialResult
from scalesearch.verdict import chance

LINE = 40
"""Most characters of a text that stays on a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of texts; the first column heads its rows."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def long(self) -> set[int]:
        """The columns with a text that is longer than a line: they wrap, and what is longer than three is cut off."""
        return {column for row in self.rows for column, text in enumerate(row) if len(text) > LINE}


def ranking_table(ranking: Ranking, layout: Layout) -> Table:
    """Every ranked network, trained or not."""
    return Table(
        caption="Every ranked candidate"
        + ("; estimates of untrained ones are the surface's." if ranking.rests_on_surface else "."),
        columns=(
            "candidate",
            "rank",
            "estimate %",
            "95 % interval",
            "seeds",
            "P(best)",
            "tied",
            "d / w / r %",
            "reference",
        ),
        rows=tuple(
            (
                row.id,
                str(row.rank),
                f"{row.estimate:.2f}",
                "" if row.low is None else f"{row.low:.2f} – {row.high:.2f}",
                str(row.seeds),
                "" if row.p_best is None else chance(row.p_best),
                "tied" if row.is_shown_tied else "off budget" if row.off_budget else "",
                "" if row.id == ANCHOR else _percent(layout.candidate(row.id).shares),
                " ".join(row.references),
            )
            for row in ranking.rows
        ),
    )


def _percent(shares: Sequence[float]) -> str:
    return " / ".join(f"{100 * share:.0f}" for share in shares)


def candidates_table(layout: Layout) -> Table:
    """What every candidate costs."""
    return Table(
        caption="Candidates: growth by the algebra, and of the networks that are built.",
        columns=("candidate", "algebra", "built", "proxy", "M macs", "M params", "reference"),
        rows=tuple(
            (
                one.id,
                f"{one.coefficients.nominal:.3f}",
                f"{one.scaled.growth:.3f}",
                f"{one.proxy.growth:.3f}",
                f"{one.scaled.cost.macs / 1e6:,.0f}",
                f"{one.scaled.cost.params / 1e6:.2f}",
                " ".join(one.references),
            )
            for one in layout.candidates
        ),
    )


def places_table(steps: Sequence[Step]) -> Table:
    """The places of the candidates after each training length and after the next."""
    names = sorted({name for step in steps for name in step.places})
    return Table(
        caption="Places by mean accuracy, of the candidates on budget with results at both lengths.",
        columns=("candidate", *(f"after {one.agreement.short}, then {one.agreement.long} epochs" for one in steps)),
        rows=tuple(
            (name, *("{:g}, then {:g}".format(*step.places[name]) if name in step.places else "" for step in steps))
            for name in names
        ),
    )


def trials_table(results: Sequence[TrialResult]) -> Table:
    """Every trial with its end."""
    return Table(
        caption="Trials: accuracy and loss after the last epoch.",
        columns=("proxy", "stage", "seed", "epochs", "state", "accuracy %", "loss", "seconds"),
        rows=tuple(
            (
                one.key.proxy,
                one.key.stage,
                str(one.key.seed),
                f"{len(one.epochs)} of {one.key.rung}",
                one.state.value + (f": {one.reason}" if one.reason else ""),
                f"{one.epochs[-1].accuracy:.2f}" if one.epochs else "",
                f"{one.epochs[-1].loss:.4f}" if one.epochs else "",
                "" if one.seconds is None else f"{one.seconds:.0f}",
            )
            for one in results
        ),
    )


def family_table(plan: Plan, members: Sequence[Mapping[str, Any]]) -> Table:
    """What each member costs; memory is what a training step holds."""
    base = plan.scalable
    rows = [{"name": plan.base.name, "phi": 0.0, "realised_growth": 1.0, **_costs(base.cost), **base.network.outline}]
    return Table(
        caption=f"Members: memory is estimated for a training step with Adam in fp32 at batch {BATCH}.",
        columns=("member", "φ", "growth", "px", "M macs", "M params", "M activations", "GB memory", "depths", "widths"),
        rows=tuple(_member(row, plan) for row in [*rows, *members]),
    )


def _costs(cost: Cost) -> dict[str, int]:
    return {"macs": cost.macs, "params": cost.params, "activations": cost.activations}


def _member(row: Mapping[str, Any], plan: Plan) -> tuple[str, ...]:
    cost = Cost(params=row["params"], activations=row["activations"])
    memory = training_memory(plan.scalable.network, cost, BATCH)
    return (
        str(row["name"]),
        "" if row["phi"] is None else f"{row['phi']:.2f}",
        f"{row['realised_growth']:.3f}",
        str(row["resolution"]),
        f"{row['macs'] / 1e6:,.0f}",
        f"{row['params'] / 1e6:.2f}",
        f"{row['activations'] / 1e6:.1f}",
        f"{memory / 1e9:.1f}",
        _shape(row, "depths", "depth"),
        _shape(row, "widths", "width"),
    )


def _shape(row: Mapping[str, Any], many: str, one: str) -> str:
    """Of a member of stages, or of a builder's."""
    return " ".join(map(str, row[many])) if many in row else f"× {row[one]:.3f}"


def published_table(theirs: Sequence[Theirs], source: str) -> Table:
    """The published family, theirs."""
    return Table(
        caption=f"Published networks: accuracy as printed in {source}; costs counted here.",
        columns=("network", "M macs", "M params", "ImageNet top-1 %"),
        rows=tuple((one.name, f"{one.macs / 1e6:,.0f}", f"{one.params / 1e6:.2f}", f"{one.top1}") for one in theirs),
    )


def spending_table(rows: Sequence[Spending]) -> Table:
    """Compute and time, by stage and training length."""
    return Table(
        caption="Spent so far. Times of trials that ran beside each other are added up.",
        columns=(
            "stage",
            "epochs each",
            "trained",
            "failed",
            "unfinished",
            "image passes",
            "multiply-adds",
            "trial time",
        ),
        rows=tuple(
            (
                row.stage,
                str(row.epochs),
                str(row.trained),
                str(row.failed),
                str(row.unfinished),
                f"{row.passes:,}",
                _short(row.macs),
                _time(row.hours),
            )
            for row in rows
        ),
    )


def _time(hours: float) -> str:
    """Hours in the unit that people say them in."""
    return f"{hours:.2f} h" if hours >= 1 else f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


def _short(value: float) -> str:
    """A large number with its unit."""
    size, unit = next(
        ((size, unit) for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G")) if value >= size), (1e6, "M")
    )
    return f"{value / size:.3g} {unit}"
