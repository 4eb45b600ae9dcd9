"""How trainings went: learning curves, and whether short trainings order the candidates as long ones do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from scalesearch.agenda import accuracies
from scalesearch.fidelity import Agreement, fidelity, text
from scalesearch.outcome import Outcome
from scalesearch.plan import ANCHOR, Plan
from scalesearch.report.figure import (
    Axis,
    Drawn,
    Figure,
    Line,
    Lines,
    Mark,
    Missing,
    Spot,
    Spots,
    evenly,
    padded,
    ticks,
    whole_ticks,
)
from scalesearch.trials import TrialResult, TrialState

MOST_CURVES = 300
"""Lines of the picture; the table holds every training."""
NAMES = {
    "curve": "trained at full length",
    "stopped-line": "ended at a shorter length",
    "base": "the unscaled base",
    "best": "first on budget",
}


def curves_figure(plan: Plan, results: Sequence[TrialResult], leader: str | None) -> Drawn:
    """Validation accuracy by epoch, of every trial of the search."""
    title = "Validation accuracy by epoch"
    begun = [result for result in results if result.key.stage == "search" and result.epochs]
    if not begun:
        return Missing(id="curves", title=title, why="No epoch has been trained.")
    longest = max(result.key.rung for result in begun)
    y = padded([epoch.accuracy for result in begun for epoch in result.epochs])
    stopped, failed = (sum(one.state is state for one in begun) for state in (TrialState.PRUNED, TrialState.FAILED))
    shown = _shown(begun, leader)
    few = f" {len(shown)} of them are drawn; the table has all." if len(shown) < len(begun) else ""
    return Figure(
        id="curves",
        title=title,
        caption=f"{len(begun)} trainings, {stopped} of them of a shorter length, {failed} failed.{few}",
        x=Axis(
            title="epochs",
            low=1 - (_stub(longest) if any(len(result.epochs) == 1 for result in begun) else 0),
            high=longest + 0.02 * max(longest - 1, 1),
            ticks=whole_ticks(1, longest),
        ),
        y=Axis(title="validation accuracy, %", low=y[0], high=y[1], ticks=ticks(*y)),
        marks=(
            *_lines(shown, leader, longest),
            *_ends(shown, TrialState.PRUNED, "stopped", "stopped here"),
            *_ends(shown, TrialState.FAILED, "failed", "failed"),
        ),
        height=340,
    )


def _shown(begun: Sequence[TrialResult], leader: str | None) -> list[TrialResult]:
    """The first one's trainings and the base's, and as many others, evenly taken, as there is room for."""
    others = [one for one in begun if one.key.proxy not in (ANCHOR, leader)]
    taken = {one.key for one in evenly(others, max(MOST_CURVES - (len(begun) - len(others)), 0))}
    return [one for one in begun if one.key.proxy in (ANCHOR, leader) or one.key in taken]


def _stub(longest: int) -> float:
    """How long the line of a single epoch is drawn [epochs]."""
    return 0.07 * max(longest - 1, 1)


def _lines(begun: Sequence[TrialResult], leader: str | None, longest: int) -> Iterator[Mark]:
    groups: dict[str, list[Line]] = {kind: [] for kind in NAMES}
    for result in begun:
        places = [(float(epoch.epoch), round(epoch.accuracy, 2)) for epoch in result.epochs]
        line = Line(
            places=tuple(places if len(places) > 1 else [(places[0][0] - _stub(longest), places[0][1]), *places]),
            tip=f"{result.key}: {places[-1][1]:.2f} % after {result.epochs[-1].epoch} epochs, {result.state.value}",
        )
        groups[_kind(result, leader)].append(line)
    for kind, lines in groups.items():
        if lines:
            yield Lines(kind=kind, name=NAMES[kind], lines=tuple(lines))


def _kind(result: TrialResult, leader: str | None) -> str:
    if result.key.proxy == ANCHOR:
        return "base"
    if result.state is TrialState.PRUNED:
        return "stopped-line"
    return "best" if result.key.proxy == leader else "curve"


def _ends(shown: Sequence[TrialResult], state: TrialState, kind: str, name: str) -> Iterator[Mark]:
    spots = [
        Spot(x=float(one.epochs[-1].epoch), y=round(one.epochs[-1].accuracy, 2), tip=f"{one.key}: {one.reason or name}")
        for one in shown
        if one.state is state
    ]
    if spots:
        yield Spots(kind=kind, name=name, spots=tuple(spots))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One training length against the next."""

    agreement: Agreement
    places: Mapping[str, tuple[float, float]]
    """Of the candidates on budget with results at both lengths, from 1 for the highest mean accuracy."""


def steps(outcome: Outcome, results: Sequence[TrialResult]) -> list[Step]:
    """Each training length of a search against the next, from short to long."""
    found: list[Step] = []
    for short, long in pairwise(outcome.fidelity.rungs):
        pair = {rung: _on_budget(results, rung, outcome) for rung in (short, long)}
        both = [name for name in pair[short] if name in pair[long]]
        before, after = (_places({name: fmean(values[name]) for name in both}) for values in pair.values())
        places = {name: (before[name], after[name]) for name in both}
        found.append(Step(agreement=fidelity(pair, {}).agreements[0], places=places))
    return found


def fidelity_figures(outcome: Outcome | None, results: Sequence[TrialResult]) -> list[Drawn]:
    """For each training length the places of the candidates there against those after the next."""
    title = "Short against long training"
    if outcome is None or not outcome.fidelity.agreements:
        why = text(outcome.fidelity) if outcome else "No trial has an accuracy."
        return [Missing(id="fidelity", title=title, why=why)]
    return [_step(one, outcome) for one in steps(outcome, results)]


def _step(step: Step, outcome: Outcome) -> Drawn:
    one, places = step.agreement, step.places
    id, title = f"fidelity-{one.short}-{one.long}", f"{one.short} against {one.long} epochs"
    if not places:
        return Missing(id=id, title=title, why="No candidate has results at both lengths.")
    order = "not defined" if one.tau is None else f"{one.tau:.2f}"
    interval = "" if one.low is None else f" ({one.low:.2f} to {one.high:.2f})"
    last = max(len(places), 2)
    axis = Axis(
        title=f"place after {one.short} epoch{'s' * (one.short > 1)}", low=0, high=last + 1, ticks=whole_ticks(1, last)
    )
    upward = tuple((last + 1 - value, text) for value, text in axis.ticks)
    kinds = {name: "best" if name == outcome.final.leader else "tied" for name in places}
    return Figure(
        id=id,
        title=f"{title}: τ {order}{interval}",
        caption=f"Places of {len(places)} candidates: Kendall's τ {order}{interval}.",
        x=axis,
        y=Axis(title=f"place after {one.long} epochs", low=0, high=last + 1, ticks=upward),
        marks=(
            Lines(kind="diagonal", name="same place", lines=(Line(places=((0.5, last + 0.5), (last + 0.5, 0.5))),)),
            *(
                Spots(
                    kind=kind,
                    name="first on budget" if kind == "best" else "candidates",
                    spots=tuple(
                        Spot(x=before, y=last + 1 - after, tip=f"{name}: place {before:g}, then {after:g}")
                        for name, (before, after) in places.items()
                        if kinds[name] == kind
                    ),
                )
                for kind in sorted(set(kinds.values()), reverse=True)
            ),
        ),
        height=360,
        is_square=True,
    )


def _on_budget(results: Sequence[TrialResult], rung: int, outcome: Outcome) -> dict[str, list[float]]:
    """Accuracies of each candidate on budget after so many epochs [%]."""
    found = accuracies(results, "search", rung)
    return {name: values for name, values in found.items() if not outcome.layout.candidate(name).off_budget}


def _places(means: dict[str, float]) -> dict[str, float]:
    """Places from 1 for the highest; equal ones share the middle of theirs."""
    ordered = sorted(means.values(), reverse=True)
    return {name: ordered.index(mean) + (ordered.count(mean) + 1) / 2 for name, mean in means.items()}
