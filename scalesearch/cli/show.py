"""What people see of a run and of a family: tables and sentences on a terminal, or one JSON document on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalesearch import documents
from scalesearch.cli.console import (
    MILLION,
    columns,
    is_narrow,
    numbers,
    percent,
    print_document,
    sentence,
    table_of,
    terminal,
)
from scalesearch.cli.plots import intervals
from scalesearch.families import FAMILIES
from scalesearch.members import Rule
from scalesearch.plan import ANCHOR
from scalesearch.presets import WORTH
from scalesearch.scaling import PAPER

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from scalesearch.outcome import Outcome
    from scalesearch.ranking import Ranking, Row
    from scalesearch.repair import Repaired

MOST_NAMED = 5
"""Trials that are named in a line."""
LEFT_OUT = ("rank", "seeds", "d w r %")
"""Columns of a ranking that narrow terminals do without."""
SHARES = "d w r %: shares of log compute of the trained proxy"
OFF_BUDGET = "×: it or its proxy is off budget, listed but never chosen"
SURFACE = "estimate: of the response surface, which lends every candidate its neighbours' trials"
EFFICIENTNETS = FAMILIES["efficientnet"].networks


def stamp(evidence: str, base: str) -> str:
    """The first line of everything that reports a search."""
    paper = f"; the paper's rule for B0 is α {PAPER.alpha:g} β {PAPER.beta:g} γ {PAPER.gamma:g}"
    worth = WORTH.get(evidence)
    return f"evidence: {evidence}{f' ({worth})' if worth else ''}{paper if base in EFFICIENTNETS else ''}"


def heading(evidence: str, base: str, *, as_json: bool) -> None:
    """The stamp, before anything else is said."""
    sentence(terminal(as_json), stamp(evidence, base))


def rule_line(rule: Rule) -> str:
    """Coefficients and shares of a rule."""
    found = rule.coefficients
    shares = zip(("depth", "width", "resolution"), found.shares, strict=True)
    spent = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares)
    values = f"α {found.alpha:.4g} β {found.beta:.4g} γ {found.gamma:.4g}"
    return f"{values} (α·β²·γ² = {rule.budget:.4g}; shares of log compute: {spent})"


def rank(outcome: Outcome, *, as_json: bool) -> None:
    """The verdict, the ranking and the rule."""
    if as_json:
        print_document(documents.rank_document(outcome))
        return
    out = terminal(as_json)
    _ranking(out, outcome)
    for line in intervals(outcome.final):
        out.print(line)


def _ranking(out: Console, outcome: Outcome) -> None:
    from scalesearch.verdict import out_of_order  # brings numpy

    said = partial(sentence, out)
    said(stamp(outcome.plan.evidence, outcome.plan.base.name))
    for finding in documents.rank_document(outcome)["findings"]:
        said(f"• {finding}", "  ")
    if outcome.confirmation is not None:
        out.print(_ranking_table(outcome.confirmation, outcome, title="confirmed on the test part"))
    out.print(_ranking_table(outcome.ranking, outcome, title="search, on the validation images"))
    untrained = sum(not row.seeds for row in outcome.ranking.rows)
    if untrained:
        said(f"{untrained} more candidates were not trained; ranking.json has the surface's estimates of them")
    said("" if is_narrow() else SHARES)
    said(OFF_BUDGET)
    said(SURFACE if outcome.ranking.rests_on_surface else "")
    said(out_of_order(outcome.ranking))
    if outcome.anchor:
        reached = ", ".join(f"{accuracy:.2f}" for accuracy in outcome.anchor)
        said(f"the unscaled proxy base, trained the same way, outside the ranking: {reached} %")
    ranking = outcome.ranking
    if ranking.noise_sd is not None:
        said(f"noise between seeds: {ranking.noise_sd:.2f} points ({ranking.df} degrees of freedom)")
    if outcome.travel is not None:
        title = f"at φ {outcome.travel.phi:g}, {outcome.travel.growth:.3g}x, on the validation images"
        out.print(_ranking_table(outcome.travel.ranking, outcome, title=title))
    for trial in outcome.failed:
        said(f"failed: {trial.key}: {trial.reason}", "  ")
    if outcome.leader is not None:
        said(f"rule of {outcome.leader.id}, the first on budget: {rule_line(outcome.rule())}")


def _ranking_table(ranking: Ranking, outcome: Outcome, title: str) -> Table:
    rows = [_ranked(row, ranking, outcome) for row in ranking.rows if row.seeds]
    return table_of(rows, left_out=LEFT_OUT, title=title)


def _ranked(row: Row, ranking: Ranking, outcome: Outcome) -> dict[str, str]:
    """A row of the table, by the names of its columns."""
    from scalesearch.verdict import chance  # brings numpy

    return {
        "candidate": row.id + (" ×" if row.off_budget else ""),
        "rank": str(row.rank),
        "estimate %" if ranking.rests_on_surface else "mean %": f"{row.estimate:.2f}",
        "95 % interval": "" if row.low is None else f"{row.low:.2f} – {row.high:.2f}",
        "seeds": str(row.seeds),
        "P(best)": "" if row.p_best is None else chance(row.p_best),
        "tied": "tied" if row.is_shown_tied else "",
        "d w r %": "" if row.id == ANCHOR else percent(outcome.layout.candidate(row.id).shares),
        "reference": " ".join(row.references),
    }


def family(manifest: dict[str, Any], folder: Path, *, as_json: bool) -> None:
    """The members that were written."""
    if as_json:
        print_document({**manifest, "folder": str(folder)})
        return
    _family(terminal(as_json), manifest, folder)


def _family(out: Console, manifest: dict[str, Any], folder: Path) -> None:
    table = columns("member", "φ", "growth", "M macs", "M params", "px", "depths", "widths", "dropout")
    if not all("depths" in row for row in manifest["members"]):
        table = columns("member", "φ", "growth", "M macs", "M params", "px", "depth", "width")
    for row in manifest["members"]:
        table.add_row(
            row["name"],
            "" if row["phi"] is None else f"{row['phi']:.2f}",
            f"{row['realised_growth']:.3f}",
            f"{row['macs'] / MILLION:,.0f}",
            f"{row['params'] / MILLION:.2f}",
            str(row["resolution"]),
            *_shape(row),
        )
    out.print(table)
    for row in manifest["unreached"]:
        out.print(f"not reached: {row['name']}: {row['reason']}")
    if any(row["name"] == "B1" and row["phi"] is not None for row in manifest["members"]):
        out.print("growth is over b0; the paper's own B1-B7 cost 1.78-97.8 times B0 and follow no single rule")
    out.print(f"family: {folder}")


def _shape(row: dict[str, Any]) -> tuple[str, ...]:
    """Of a member of stages, or of a builder's."""
    if "depths" in row:
        return numbers(row["depths"]), numbers(row["widths"]), f"{row['dropout']:g}"
    return f"{row['depth']:.3f}", f"{row['width']:.3f}"


def run(folder: Path, outcome: Outcome, manifest: dict[str, Any], *, as_json: bool) -> None:
    """A finished run: ranking and family."""
    if as_json:
        print_document(documents.run_document(folder, outcome, manifest))
    out = terminal(as_json)
    _ranking(out, outcome)
    _family(out, manifest, folder / "family")
    out.print(f"run folder: {folder}; open {folder / 'report.html'} in a browser")


def repaired(folder: Path, found: Repaired, *, as_json: bool) -> None:
    """What was mended in a run folder."""
    if as_json:
        print_document(documents.repair_document(folder, found))
        return
    lines = f"{len(found.damaged)} damaged lines of the journal left out; " if found.damaged else ""
    lines += "the last line of the journal was cut off and is left out; " if found.is_torn else ""
    done = f"{found.trials} trials, {found.added} added, {found.changed} brought up"
    told = terminal(as_json).print
    told(f"{lines}study {found.study} in {found.storage}: {done}: {_where_trials_stand(found)}")
    if found.lost:
        told(f"begun but not ended, though all epochs are there, so that the end is lost: {_named(found.lost)}")
    if found.ahead:
        told(f"trials.csv and ranking.json rest on ends that the journal does not have: {_named(found.ahead)}")
    if not found.is_finished:
        told("run the same command: it trains the rest")
    for path in found.aside:
        told(f"kept aside: {path}")


def _where_trials_stand(found: Repaired) -> str:
    counts = {"ended": found.ended, "begun": len(found.begun), "waiting": found.waiting}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count or state == "ended")


def _named(trials: Sequence[object]) -> str:
    """The first trials by name, the others by their number."""
    more = len(trials) - MOST_NAMED
    return ", ".join(map(str, trials[:MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
