"""What the page's explorer starts from: the base with its rounding, rules, and the members that were written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scalesearch.errors import ScaleSearchError
from scalesearch.levelling import DEPTH_STEPS, REACH, TOLERANCE, WIDTH_STEP
from scalesearch.outcome import Outcome
from scalesearch.report.again import base_word, is_file
from scalesearch.report.facts import Facts
from scalesearch.scalable import FULL_STEP
from scalesearch.scaling import PAPER, Coefficients
from scalesearch.space import REFERENCES
from scalesearch.spec import DEEPEST, LARGEST_SIDE, WIDEST, Network
from scalesearch.yamlfile import read_mapping

Document = dict[str, Any]
FARTHEST = 1.1
"""The slider of φ ends at this times the largest member's."""
ALONE = 3.0
"""End of that slider without a family."""


def explorer_document(facts: Facts) -> Document | None:
    """Plain values for the explorer; None for a base that only its builder can make."""
    plan = facts.run.plan
    network, rounding = plan.scalable.network, plan.base.rounding
    if not isinstance(network, Network) or rounding is None:
        return None
    name = plan.base.name
    first: Document = {"name": name, "label": name.upper() if len(name) < 4 else "base", "phi": 0.0}
    marks: list[Document] = [{**first, "network": network.to_dict()}, *_members(facts)]
    rules = list(_rules(facts.outcome, plan.space.budget))
    return {
        "base": name,
        "base_word": base_word(plan),
        "is_file": is_file(plan),
        "network": network.to_dict(),
        "rounding": asdict(rounding),
        "limits": _limits(),
        "rules": rules,
        "range": _range(rules, plan.space.budget),
        "marks": marks,
        "farthest": max(round(FARTHEST * max(float(mark["phi"]) for mark in marks), 2), ALONE),
    }


def _limits() -> Document:
    """What levelling keeps to; the page levels by the same numbers."""
    return {
        "step": FULL_STEP,
        "tolerance": TOLERANCE,
        "reach": REACH,
        "depth_steps": DEPTH_STEPS,
        "width_step": WIDTH_STEP,
        "widest": WIDEST,
        "deepest": DEEPEST,
        "largest_side": LARGEST_SIDE,
    }


def _rules(outcome: Outcome | None, budget: float) -> Iterator[Document]:
    """Rules to start from, the run's own first."""
    if outcome is not None and outcome.leader is not None:
        yield _rule("this run's", outcome.rule().coefficients)
        surface = outcome.ranking.surface
        if surface is not None and outcome.ranking.rests_on_surface:
            yield _rule("top of the surface", Coefficients.from_shares(surface.optimum.shares, budget))
    if budget > 1:
        yield _rule("the paper's", PAPER)
    yield _rule("equal shares", Coefficients.from_shares(REFERENCES["dwr"], budget))


def _range(rules: list[Document], budget: float) -> tuple[float, float]:
    """Ends of the sliders of alpha, beta and gamma: every rule lies between them, and no dimension moves backwards."""
    values = [float(rule[name]) for rule in rules for name in ("alpha", "beta", "gamma")]
    return (1.0, max(2.0, 1.1 * max(values))) if budget > 1 else (min(0.5, 0.9 * min(values)), 1.0)


def _rule(name: str, found: Coefficients) -> Document:
    return {"name": name, "alpha": found.alpha, "beta": found.beta, "gamma": found.gamma}


def _members(facts: Facts) -> Iterator[Document]:
    """The members of the run's own rule as they were written; those of a damaged file are left out."""
    for row in (facts.family or {}).get("members", []):
        network = _written(facts.run.folder / "family", str(row["name"]))
        if network is not None and row["phi"] is not None:
            label = str(row["name"]).removeprefix(f"{facts.run.plan.base.name}-")
            yield {"name": row["name"], "label": label, "phi": row["phi"], "network": network.to_dict()}


def _written(family: Path, name: str) -> Network | None:
    """A member of a family; None where its file is damaged, or lies elsewhere."""
    try:
        path = (family / name / "config.yaml").resolve()
        return Network.from_dict(read_mapping(path)["network"]) if path.is_relative_to(family.resolve()) else None
    except (ScaleSearchError, OSError, ValueError, KeyError, TypeError):
        return None
