"""What a run folder holds as CSV: one row per candidate, one row per trial."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas

from scalesearch.documents import candidate_document
from scalesearch.plan import Layout, Plan
from scalesearch.trials import TrialResult


def candidates_table(plan: Plan, layout: Layout) -> str:
    """The candidates of a plan with their cost and proxies; the columns are those of `plan --json`, dotted."""
    return _csv(_flat(candidate_document(one, plan, layout)) for one in layout.candidates)


def trials_table(results: Sequence[TrialResult]) -> str:
    """The trials of a study with their last epoch: accuracy [%], losses [nats]."""
    return _csv(_row(result) for result in results)


def _row(result: TrialResult) -> dict[str, Any]:
    last = result.epochs[-1] if result.epochs else None
    return {
        "proxy": result.key.proxy,
        "seed": result.key.seed,
        "epochs": result.key.rung,
        "stage": result.key.stage,
        "state": result.state.value,
        "accuracy": result.accuracy,
        "loss": last.loss if last else None,
        "train_loss": last.train_loss if last else None,
        "reason": result.reason,
    }


def _csv(rows: Iterable[dict[str, Any]]) -> str:
    return pandas.DataFrame(list(rows)).to_csv(index=False)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Nested documents as dotted columns, lists as text."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            found |= {f"{key}.{inner}": item for inner, item in _flat(value).items()}
        else:
            found[key] = " ".join(map(_cell, value)) if isinstance(value, list) else value
    return found


def _cell(value: Any) -> str:
    return "/".join(f"{item:g}" for item in value) if isinstance(value, list) else str(value)
