"""What people see of networks that are not trained: the candidates of a plan; a base, as it is or scaled."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from scalesearch import documents
from scalesearch.blueprint import Architecture
from scalesearch.candidates import Candidate
from scalesearch.cli.console import (
    MILLION,
    columns,
    numbers,
    percent,
    print_document,
    sentence,
    table_of,
    terminal,
)
from scalesearch.cli.show import stamp
from scalesearch.cost import Cost
from scalesearch.plan import Layout, Plan
from scalesearch.spec import Network

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from scalesearch.direct import ScaledBase

CONVENTION = "macs: multiply-adds of convolutions and linear layers, what the paper calls FLOPs"
LEFT_OUT = ("points", "M macs", "M params", "its growth")
"""Columns of the candidates that narrow terminals do without."""


def plan(plan: Plan, layout: Layout, *, as_json: bool) -> None:
    """Candidates, proxies and what training them will take."""
    if as_json:
        print_document(documents.plan_document(plan, layout))
        return
    out = terminal(as_json)
    said = partial(sentence, out)
    small = plan.proxy_base
    epochs = plan.anchor_epochs + plan.search_epochs(len(layout.trained))
    said(stamp(plan.evidence, plan.base.name))
    said(
        f"{plan.base.name} at {plan.budget}: {layout.nominal_points} grid points, {len(layout.candidates)} networks "
        f"({sum(not one.points for one in layout.candidates)} of them references only), "
        f"{len({one.proxy_id for one in layout.candidates})} distinct proxies, "
        f"{len(layout.trained)} of them in the search"
    )
    said(
        f"proxy base: {_outline(small.network)}, {small.cost.macs / MILLION:.1f} M macs, "
        f"{small.network.num_classes} classes for {plan.data.name}"
    )
    said(
        f"{plan.preset} preset, policy {plan.policy}: {plan.at_most}{epochs} epochs of {plan.images:,} images "
        f"({plan.images * epochs:,} image passes) in trainings of {plan.epochs}, {plan.validation_images:,} "
        f"validation images{_stages_after(plan)}"
    )
    for remark in [*plan.base.remarks(), *layout.remarks]:
        said(f"note: {remark}")
    out.print(_candidates_table(plan, layout))
    for one in layout.excluded:
        said(f"excluded {one.reference or one.coefficients.text}: {one.reason}")
    if any(one.proxy.network.resolution > plan.data.side for one in layout.candidates):
        said(f"↑ above the images' {plan.data.side} px: interpolation adds no information")
    said("d w r %: shares of log compute of the proxy · shared: its proxy stands for another candidate")
    said(f"× off budget: it or its proxy more than 3 % from {plan.budget}, never tied with the best · {CONVENTION}")


def _stages_after(plan: Plan) -> str:
    """What follows the search."""
    confirm = f"; the first {plan.confirm} and the references confirmed on the test part" if plan.confirm else ""
    travel = "" if plan.check_phi is None else f"; the leading shares ranked again at φ {plan.check_phi:g}"
    return f"{confirm}{travel}"


def _candidates_table(plan: Plan, layout: Layout) -> Table:
    return table_of([_candidate(one, plan, layout) for one in layout.candidates], left_out=LEFT_OUT)


def _candidate(one: Candidate, plan: Plan, layout: Layout) -> dict[str, str]:
    """A row of the table, by the names of its columns."""
    side = one.proxy.network.resolution
    return {
        "candidate": one.id + (" ×" if one.off_budget else ""),
        "points": str(len(one.points)),
        "M macs": f"{one.scaled.cost.macs / MILLION:,.0f}",
        "growth": f"{one.scaled.growth:.3f}",
        "M params": f"{one.scaled.cost.params / MILLION:.2f}",
        "proxy px": f"{'↑' if side > plan.data.side else ''}{side}",
        "its growth": f"{one.proxy.growth:.3f}",
        "d w r %": percent(one.shares),
        "searched": "yes" if one.id in layout.trained else "shared" if one.proxy_id in layout.trained else "",
        "reference": " ".join(one.references),
    }


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
        target = "" if found.growth_asked is None else f", aiming at {found.growth_asked:.4g}x"
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
    parts = (f"{key} {numbers(value) if isinstance(value, list) else format(value, 'g')}" for key, value in rows)
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
