"""Values as the JSON documents that others build on: one function per command, every document with its schema."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalesearch.blueprint import Architecture
from scalesearch.candidates import Candidate
from scalesearch.cost import OPERATORS, Cost
from scalesearch.errors import PlanError, ScaleSearchError
from scalesearch.members import Rule
from scalesearch.plan import ANCHOR, Layout, Plan
from scalesearch.scaling import Coefficients
from scalesearch.spec import Network
from scalesearch.trials import TrialState

if TYPE_CHECKING:
    from scalesearch.direct import ScaledBase
    from scalesearch.outcome import Outcome, Travel
    from scalesearch.repair import Repaired
    from scalesearch.stored import StoredRun

VERSION = {"schema_version": 2}
Document = dict[str, Any]


def point(coefficients: Coefficients) -> Document:
    """alpha, beta, gamma."""
    return {"alpha": coefficients.alpha, "beta": coefficients.beta, "gamma": coefficients.gamma}


def shape(network: Architecture, cost: Cost) -> Document:
    """What a network looks like and costs."""
    return {
        **network.outline,
        "macs": cost.macs,
        "params": cost.params,
        "activations": cost.activations,
    }


def plan_document(plan: Plan, layout: Layout) -> Document:
    """Of `plan`: the base, the proxy base, and every candidate with the proxy that stands for it."""
    small = plan.proxy_base
    return {
        **VERSION,
        "base": _base(plan),
        "proxy_base": {
            **shape(small.network, small.cost),
            "halvings": plan.halvings,
            "num_classes": small.network.num_classes,
        },
        "budget": plan.space.budget,
        "rounding": plan.space.policy,
        "preset": plan.preset,
        "evidence": plan.evidence,
        "data": plan.data.to_dict(),
        "policy": plan.policy,
        "margin": plan.margin,
        "confirm": plan.confirm,
        "check_phi": plan.check_phi,
        "seeds": plan.seeds,
        "epochs": plan.epochs,
        "most_epochs": plan.anchor_epochs + plan.search_epochs(len(layout.trained)),
        "images": plan.images,
        "validation_images": plan.validation_images,
        "image_passes": plan.images * (plan.anchor_epochs + plan.search_epochs(len(layout.trained))),
        "limits": asdict(plan.limits),
        "digest": plan.digest,
        "nominal_points": layout.nominal_points,
        "remarks": [*plan.base.remarks(), *layout.remarks],
        "candidates": [candidate_document(one, plan, layout) for one in layout.candidates],
        "excluded": [
            {**point(one.coefficients), "reference": one.reference, "reason": one.reason} for one in layout.excluded
        ],
    }


def _base(plan: Plan) -> Document:
    cost = plan.scalable.cost
    kept = {"macs": cost.macs, "params": cost.params, "activations": cost.activations}
    return {"name": plan.base.name, **kept, "resolution": plan.scalable.network.resolution}


def candidate_document(one: Candidate, plan: Plan, layout: Layout) -> Document:
    """A candidate with its points, references, network, and proxy."""
    return {
        "id": one.id,
        **point(one.coefficients),
        "points": [[at.alpha, at.beta, at.gamma] for at in one.points],
        "references": list(one.references),
        "off_budget": one.off_budget,
        "effective": asdict(one.scaled.effective),
        "shares": list(one.shares),
        "nominal_growth": one.coefficients.nominal,
        "realised_growth": one.scaled.growth,
        **shape(one.scaled.network, one.scaled.cost),
        "trained": one.proxy_id in layout.trained,
        "proxy": _proxy(one, plan),
    }


def _proxy(one: Candidate, plan: Plan) -> Document:
    network = one.proxy.network
    return {
        "id": one.proxy_id,
        "macs": one.proxy.cost.macs,
        "growth": one.proxy.growth,
        "effective": asdict(one.proxy.effective),
        **{key: value for key, value in network.outline.items() if key not in ("stem", "head")},
        "upsampled": network.resolution > plan.data.side,
    }


def scale_document(found: ScaledBase, measured: Cost | None) -> Document:
    """Of `scale`: a base, or a network made from it; `measured` is fvcore's count."""
    scaled = found.scaled
    document = {
        **VERSION,
        "base": found.base,
        "rounding": found.policy,
        "asked": asdict(found.asked) if found.asked else None,
        "growth_asked": found.growth_asked,
        "realised_growth": scaled.growth,
        "effective": asdict(scaled.effective),
        **shape(scaled.network, scaled.cost),
    }
    if measured is not None:
        document["measured"] = {"macs": measured.macs, **_by_operator(scaled.network, measured)}
    return document


def _by_operator(network: Architecture, measured: Cost) -> Document:
    """Fvcore's count of each operator; of a builder's network only its multiply-adds are compared."""
    if not isinstance(network, Network):
        return {}
    by_operator = {name: getattr(measured, name) for name in OPERATORS}
    return {"by_operator": by_operator, "total": measured.fvcore_total}


def rule_document(rule: Rule) -> Document:
    """A rule: coefficients and shares."""
    return {**point(rule.coefficients), "shares": list(rule.coefficients.shares)}


def rank_document(outcome: Outcome) -> Document:
    """Of `rank`, and `ranking.json`: no times, paths or order of arrival, so that equal results give equal bytes."""
    from scalesearch.findings import findings  # brings numpy, which `plan` does without
    from scalesearch.verdict import verdict

    ranking = outcome.ranking.to_dict()
    rows = _rows(ranking.pop("candidates"), outcome)
    chosen = None
    if outcome.leader is not None:
        chosen = {"id": outcome.leader.id, **rule_document(outcome.rule())}
    return {
        **VERSION,
        "evidence": outcome.plan.evidence,
        "findings": findings(outcome),
        "verdict": verdict(outcome.final),
        "verdict_kind": outcome.final.verdict_kind.value,
        "chosen": chosen,
        "search": _search(outcome),
        "fidelity": outcome.fidelity.to_dict(),
        "confirmation": outcome.confirmation.to_dict() if outcome.confirmation else None,
        "travel": _travel(outcome.travel) if outcome.travel else None,
        **ranking,
        "unranked": ranking["failed"],
        "anchor": {"id": ANCHOR, "accuracies": list(outcome.anchor)},
        "failed": [str(trial.key) for trial in outcome.failed],
        "candidates": rows,
    }


def _rows(rows: list[Document], outcome: Outcome) -> list[Document]:
    """Ranked proxies with their shares and with the candidates that stand on them."""
    for row in rows:
        row["same_proxy"] = [one.id for one in outcome.layout.twins(row["id"])[1:]]
        row["shares"] = [round(share, 4) for share in outcome.layout.candidate(row["id"]).shares]
    return rows


def _search(outcome: Outcome) -> Document:
    """How the search went."""
    plan, search = outcome.plan, outcome.search
    return {
        "policy": plan.policy,
        "unfinished": outcome.stage,
        "ending": search.ending.value if search.ending else None,
        "epochs": sum(key.rung for key in search.ended),
        "most_epochs": plan.search_epochs(len(outcome.layout.trained)),
        "left": [asdict(leave) for leave in search.leaves],
    }


def _travel(travel: Travel) -> Document:
    """The shares at another budget; its fidelity compares the search (rung 1) with that budget (rung 2)."""
    return {
        "phi": travel.phi,
        "growth": round(travel.growth, 4),
        "ranking": travel.ranking.to_dict(),
        "fidelity": travel.fidelity.to_dict(),
    }


def repair_document(folder: Path, found: Repaired) -> Document:
    """Of `repair`: what was damaged, and what the study has got."""
    return {
        **VERSION,
        "folder": str(folder),
        "storage": found.storage,
        "study": found.study,
        "damaged_lines": list(found.damaged),
        "is_torn": found.is_torn,
        "trials": found.trials,
        "added": found.added,
        "changed": found.changed,
        "ended": found.ended,
        "waiting": found.waiting,
        "begun": list(map(str, found.begun)),
        "lost_ends": list(map(str, found.lost)),
        "ahead": list(found.ahead),
        "kept_aside": [str(path) for path in found.aside],
    }


def status_document(stored: StoredRun) -> Document:
    """Of `status`: how far a run is; `eta_s` is the time left [s], None while nothing is known of it."""
    return {
        **VERSION,
        "state": stored.state,
        "stage": stored.now.stage,
        "done": stored.done,
        "running": stored.running,
        "failed": stored.count(TrialState.FAILED),
        "total": stored.total,
        "eta_s": None if stored.eta is None else round(stored.eta, 1),
    }


def run_document(folder: Path, outcome: Outcome, manifest: Document) -> Document:
    """Of `run`: the folder with its ranking and its family."""
    return {**VERSION, "folder": str(folder), "ranking": rank_document(outcome), "manifest": manifest}


def report_document(path: Path, figures: list[Path]) -> Document:
    """Of `report`: the files that were written."""
    return {**VERSION, "report": str(path), "figures": [str(figure) for figure in figures]}


def error_document(error: ScaleSearchError) -> Document:
    """Of any command that fails."""
    found: Document = {"kind": type(error).__name__, "message": error.message, "mend": error.mend}
    if isinstance(error, PlanError):
        found["faults"] = error.faults
    return {**VERSION, "error": found}
