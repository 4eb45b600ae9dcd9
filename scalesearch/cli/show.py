"""What people see: tables and sentences on a terminal, or one JSON document on stdout."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalesearch import documents
from scalesearch.blueprint import Architecture
from scalesearch.cli.console import columns, print_document, room, terminal, wrapped
from scalesearch.cli.plots import intervals
from scalesearch.cost import Cost
from scalesearch.families import FAMILIES
from scalesearch.members import Rule
from scalesearch.plan import ANCHOR, Layout, Plan
from scalesearch.presets import WORTH
from scalesearch.scaling import PAPER
from scalesearch.spec import Network

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from scalesearch.direct import ScaledBase
    from scalesearch.outcome import Outcome
    from scalesearch.ranking import Ranking, Row
    from scalesearch.repair import Repaired

CONVENTION = "macs: multiply-adds of convolutions and linear layers, what the paper calls FLOPs"
NARROW = 100
"""Terminals below that leave out columns of a ranking [characters]."""
LEFT_OUT = ("rank", "seeds", "d w r %")
SHARES = "d w r %: shares of log compute of the trained proxy"
OFF_BUDGET = "×: it or its proxy is off budget, listed but never chosen"
SURFACE = "estimate: of the response surface, which lends every candidate its neighbours' trials"
MILLION = 1e6
EFFICIENTNETS = FAMILIES["efficientnet"].networks


def _numbers(values: Any) -> str:
    return " ".join(map(str, values))


def _percent(shares: Any) -> str:
    return " ".join(f"{100 * share:3.0f}" for share in shares)


def stamp(evidence: str, base: str) -> str:
    """The first line of everything that reports a search."""
    paper = f"; the paper's rule for B0 is α {PAPER.alpha:g} β {PAPER.beta:g} γ {PAPER.gamma:g}"
    worth = WORTH.get(evidence)
    return f"evidence: {evidence}{f' ({worth})' if worth else ''}{paper if base in EFFICIENTNETS else ''}"


def heading(evidence: str, base: str, *, as_json: bool) -> None:
    """The stamp, before anything else is said."""
    terminal(as_json).print(stamp(evidence, base))


def rule_line(rule: Rule) -> str:
    """Coefficients and shares of a rule."""
    found = rule.coefficients
    shares = zip(("depth", "width", "resolution"), found.shares, strict=True)
    spent = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares)
    values = f"α {found.alpha:.4g} β {found.beta:.4g} γ {found.gamma:.4g}"
    return f"{values} (α·β²·γ² = {rule.budget:.4g}; shares of log compute: {spent})"


def plan(plan: Plan, layout: Layout, *, as_json: bool) -> None:
    """Candidates, proxies and what training them will take."""
    if as_json:
        print_document(documents.plan_document(plan, layout))
        return
    out = terminal(as_json)
    small = plan.proxy_base
    epochs = plan.anchor_epochs + plan.search_epochs(len(layout.trained))
    out.print(stamp(plan.evidence, plan.base.name))
    out.print(
        f"{plan.base.name} at {plan.budget}: {layout.nominal_points} grid points, {len(layout.candidates)} networks "
        f"({sum(not one.points for one in layout.candidates)} of them references only), "
        f"{len({one.proxy_id for one in layout.candidates})} distinct proxies, "
        f"{len(layout.trained)} of them in the search"
    )
    out.print(
        f"proxy base: {_outline(small.network)}, {small.cost.macs / MILLION:.1f} M macs, "
        f"{small.network.num_classes} classes for {plan.data.name}"
    )
    out.print(
        f"{plan.preset} preset, policy {plan.policy}: {plan.at_most}{epochs} epochs of {plan.images:,} images "
        f"({plan.images * epochs:,} image passes) in trainings of {plan.epochs}, {plan.validation_images:,} "
        f"validation images{_stages_after(plan)}"
    )
    for remark in plan.base.remarks():
        out.print(f"note: {remark}")
    out.print(_candidates_table(plan, layout))
    for one in layout.excluded:
        out.print(f"excluded {one.reference or one.coefficients.text}: {one.reason}")
    if any(one.proxy.network.resolution > plan.data.side for one in layout.candidates):
        out.print(f"↑ above the images' {plan.data.side} px: interpolation adds no information")
    out.print("d w r %: shares of log compute of the proxy · shared: its proxy stands for another candidate")
    out.print(
        f"× off budget: it or its proxy more than 3 % from {plan.budget}, never tied with the best · {CONVENTION}"
    )


def _stages_after(plan: Plan) -> str:
    """What follows the search."""
    confirm = f"; the first {plan.confirm} and the references confirmed on the test part" if plan.confirm else ""
    travel = "" if plan.check_phi is None else f"; the leading shares ranked again at φ {plan.check_phi:g}"
    return f"{confirm}{travel}"


def _candidates_table(plan: Plan, layout: Layout) -> Table:
    table = columns(
        "candidate", "points", "M macs", "growth", "M params", "proxy px", "growth", "d w r %", "searched", "reference"
    )
    for one in layout.candidates:
        proxy = one.proxy.network
        mark = "↑" if proxy.resolution > plan.data.side else ""
        trained = "yes" if one.id in layout.trained else "shared" if one.proxy_id in layout.trained else ""
        table.add_row(
            one.id + (" ×" if one.off_budget else ""),
            str(len(one.points)),
            f"{one.scaled.cost.macs / MILLION:,.0f}",
            f"{one.scaled.growth:.3f}",
            f"{one.scaled.cost.params / MILLION:.2f}",
            f"{mark}{proxy.resolution}",
            f"{one.proxy.growth:.3f}",
            _percent(one.shares),
            trained,
            " ".join(one.references),
        )
    return table


def scale(found: ScaledBase, measured: Cost | None, *, as_json: bool) -> None:
    """A network, stage by stage, with its cost."""
    if as_json:
        print_document(documents.scale_document(found, measured))
        return
    out = terminal(as_json)
    network = found.scaled.network
    if found.growth_asked is not None:
        out.print("level moves the numbers until the compute is right; --rounding paper keeps them")
    if found.asked is not None:
        target = "" if found.growth_asked is None else f", {found.growth_asked:.4g}x asked"
        effective = found.scaled.effective
        out.print(
            f"{found.base} by {found.policy} rounding{target}: {found.scaled.growth:.4g}x realised at depth "
            f"{effective.depth:.4g}, width {effective.width:.4g}, resolution {effective.resolution:.4g}"
        )
    out.print(_stages(found.base, network) if isinstance(network, Network) else _outline(network))
    _costs(out, network, found.scaled.cost, measured)


def _outline(network: Architecture) -> str:
    """A network in a line."""
    rows = ((key, value) for key, value in network.outline.items() if key != "resolution")
    parts = (f"{key} {_numbers(value) if isinstance(value, list) else format(value, 'g')}" for key, value in rows)
    return f"{network.resolution} px, {', '.join(parts)}"


def _stages(name: str, network: Network) -> Table:
    table = columns("stage", "block", "depth", "width", "kernel", "stride", title=f"{name}, {network.resolution} px")
    table.add_row("stem", "conv", "1", str(network.stem.width), str(network.stem.kernel), str(network.stem.stride))
    for index, stage in enumerate(network.stages, start=1):
        row = (stage.depth, stage.width, stage.kernel, stage.stride)
        table.add_row(str(index), f"{stage.block} x{stage.expansion:g}", *map(str, row))
    layers = ["conv"] * bool(network.head.width) + ["pool"] + ["linear"] * (1 + bool(network.head.hidden))
    table.add_row("head", ", ".join(layers), "1", str(network.head.width or network.widths[-1]), "1", "1")
    return table


def _costs(out: Console, network: Architecture, cost: Cost, measured: Cost | None) -> None:
    out.print(f"macs {cost.macs:,} · params {cost.params:,} · activations {cost.activations:,}")
    out.print(CONVENTION)
    if measured is not None and not isinstance(network, Network):
        out.print(f"fvcore agrees on the multiply-adds: convolutions {cost.conv:,}, other products {cost.linear:,}")
    elif measured is not None:
        out.print(f"fvcore agrees operator by operator: conv {measured.conv:,}, linear {measured.linear:,}")
        norms = f"batch norm {measured.batch_norm:,} and pooling {measured.adaptive_avg_pool2d:,}"
        out.print(f"fvcore's own total, with {norms}: {measured.fvcore_total:,}")


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
    from scalesearch.verdict import out_of_order  # brings scipy

    said = partial(_sentence, out)
    said(stamp(outcome.plan.evidence, outcome.plan.base.name))
    for sentence in documents.rank_document(outcome)["findings"]:
        said(f"• {sentence}", "  ")
    if outcome.confirmation is not None:
        out.print(_ranking_table(outcome.confirmation, outcome, title="confirmed on the test part"))
    out.print(_ranking_table(outcome.ranking, outcome, title="search, on the validation images"))
    untrained = sum(not row.seeds for row in outcome.ranking.rows)
    if untrained:
        said(f"{untrained} more candidates were not trained; ranking.json has the surface's estimates of them")
    said("" if _is_narrow() else SHARES)
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


def _sentence(out: Console, text: str, indent: str = "") -> None:
    for line in wrapped(text, indent):
        out.print(line)


def _is_narrow() -> bool:
    return (room() or NARROW) < NARROW


def _ranking_table(ranking: Ranking, outcome: Outcome, title: str) -> Table:
    rows = [_ranked(row, ranking, outcome) for row in ranking.rows if row.seeds]
    names = [name for name in next(iter(rows), {}) if name not in (LEFT_OUT if _is_narrow() else ())]
    table = columns(*names, title=title)
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table


def _ranked(row: Row, ranking: Ranking, outcome: Outcome) -> dict[str, str]:
    """A row of the table, by the names of its columns."""
    from scalesearch.verdict import chance  # brings scipy

    return {
        "candidate": row.id + (" ×" if row.off_budget else ""),
        "rank": str(row.rank),
        "estimate %" if ranking.rests_on_surface else "mean %": f"{row.estimate:.2f}",
        "95 % interval": "" if row.low is None else f"{row.low:.2f} – {row.high:.2f}",
        "seeds": str(row.seeds),
        "P(best)": "" if row.p_best is None else chance(row.p_best),
        "tied": "tied" if row.is_shown_tied else "",
        "d w r %": "" if row.id == ANCHOR else _percent(outcome.layout.candidate(row.id).shares),
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
        return _numbers(row["depths"]), _numbers(row["widths"]), f"{row['dropout']:g}"
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
    done = f"{found.trials} trials, {found.added} added, {found.changed} brought up"
    terminal(as_json).print(f"{lines}study {found.study} in {found.storage}: {done}")
    for path in found.aside:
        terminal(as_json).print(f"kept aside: {path}")
