"""Everything that a report is about, read from a run folder: what is not there yet is None."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from scalesearch.outcome import Outcome
from scalesearch.stored import StoredRun, outcome_of, read_run
from scalesearch.terrain import Terrain, terrain

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A run as a report shows it."""

    run: StoredRun
    outcome: Outcome | None
    """None while no trial has an accuracy."""
    terrain: Terrain | None
    """None where the ranking rests on no surface."""
    family: Document | None
    """The family's manifest; None while it is not written."""
    environment: Document | None
    """Versions and hardware; None where the run has not begun to train."""
    written: str
    """When the report was made, in UTC."""


def read_facts(folder: Path) -> Facts:
    """What a run folder holds.

    Raises:
        StudyError: no run in that folder, or a damaged one.
    """
    return facts_of(read_run(folder))


def facts_of(run: StoredRun) -> Facts:
    """What is to be shown of a run that has been read, with what lies in its folder."""
    outcome = outcome_of(run) if run.is_ranked else None
    rests = outcome is not None and outcome.ranking.rests_on_surface
    return Facts(
        run=run,
        outcome=outcome,
        terrain=terrain(run.plan, run.layout, run.results) if rests else None,
        family=_document(run.folder / "family" / "manifest.json"),
        environment=_document(run.folder / "environment.json"),
        written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )


def _document(path: Path) -> Document | None:
    """A JSON object; None where there is none, or a damaged one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return cast("Document", found) if isinstance(found, dict) else None
