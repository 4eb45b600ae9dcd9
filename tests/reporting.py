"""Runs for tests of the report: real plans, layouts and families; only what training would have found is made up."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scalesearch.agenda import agenda
from scalesearch.emit.config import coefficients, config, config_text
from scalesearch.members import Member, members
from scalesearch.outcome import conclude
from scalesearch.plan import ANCHOR, Layout, Plan
from scalesearch.recipe import EpochResult
from scalesearch.report.facts import Facts, facts_of
from scalesearch.request import Request, resolve
from scalesearch.stored import StoredRun
from scalesearch.trials import TrialKey, TrialResult, TrialState

Accuracy = Callable[[str, int, int], float]
"""Proxy, seed and epoch to an accuracy [%]."""
Results = Callable[[Plan, Layout], list[TrialResult]]
"""What a run has trained of its plan."""


def planned(**asked: Any) -> tuple[Plan, Layout]:
    """A plan for B0 on the embedded images."""
    return resolve(Request(**{"preset": "quick", "policy": "grid", "seeds": 2, "epochs": 3, "images": 1_000, **asked}))


def trained(plan: Plan, layout: Layout, accuracy: Accuracy) -> list[TrialResult]:
    """Every trial of a grid, the unscaled base's included."""
    keys = [
        TrialKey(proxy=name, seed=seed, rung=plan.epochs)
        for name in (ANCHOR, *layout.trained)
        for seed in range(plan.seeds)
    ]
    return [_complete(key, accuracy) for key in keys]


def _complete(key: TrialKey, accuracy: Accuracy) -> TrialResult:
    epochs = tuple(
        EpochResult(epoch=epoch, train_loss=1.0, accuracy=accuracy(key.proxy, key.seed, epoch), loss=0.9)
        for epoch in range(1, key.rung + 1)
    )
    return TrialResult(key=key, state=TrialState.COMPLETE, epochs=epochs, seconds=2.0)


def hilly(plan: Plan, layout: Layout, noise: float = 0.2) -> Accuracy:
    """Accuracies that peak inside the shares, with noise between seeds."""
    random = np.random.default_rng(0)

    def accuracy(proxy: str, seed: int, epoch: int) -> float:
        depth, width, side = (1 / 3, 1 / 3, 1 / 3) if proxy == ANCHOR else layout.candidate(proxy).shares
        height = 80 - 6 * ((depth - 0.2) ** 2 + (width - 0.3) ** 2 + (side - 0.5) ** 2)
        return float(height - 8 * (plan.epochs - epoch) / plan.epochs + random.normal(0, noise))

    return accuracy


def interrupted(plan: Plan, layout: Layout) -> list[TrialResult]:
    """The first dozen trials."""
    return trained(plan, layout, hilly(plan, layout))[:12]


def failed(plan: Plan, layout: Layout) -> list[TrialResult]:
    """Every trial, without a single accuracy."""
    keys = [result.key for result in trained(plan, layout, hilly(plan, layout))]
    return [TrialResult(key=key, state=TrialState.FAILED, reason="out of memory") for key in keys]


def alone(plan: Plan, layout: Layout) -> list[TrialResult]:
    """The trials of one candidate."""
    one = next(name for name in layout.trained if not layout.candidate(name).off_budget)
    return [result for result in trained(plan, layout, hilly(plan, layout)) if result.key.proxy == one]


def flat(plan: Plan, layout: Layout) -> list[TrialResult]:
    """Every trial at the same accuracy."""
    return trained(plan, layout, lambda proxy, seed, epoch: 80.0)


def stored(folder: Path, plan: Plan, layout: Layout, results: list[TrialResult]) -> Facts:
    """What a report is made from, of a run that nobody works on."""
    now = agenda(plan, layout, results)
    return facts_of(StoredRun(folder=folder, plan=plan, layout=layout, results=tuple(results), now=now, is_live=False))


def write_family(folder: Path, plan: Plan, layout: Layout, results: list[TrialResult]) -> None:
    """The family of a run, as far as a report reads it; `emit` writes the same files, and networks beside them."""
    rule = conclude(plan, layout, results).rule()
    found = members(rule, plan.base, plan.base.growths(rule.budget), classes=None, limits=plan.limits)
    rows: list[dict[str, Any]] = []
    for one in found:
        assert isinstance(one, Member)
        values = config(one, rule, plan.base.name, weights={})
        place = folder / "family" / one.name
        place.mkdir(parents=True)
        (place / "config.yaml").write_text(config_text(values))
        rows.append({**values, **one.network.outline})
    manifest = {**coefficients(rule), "members": rows, "unreached": []}
    (folder / "family" / "manifest.json").write_text(json.dumps(manifest))
