"""Everything that a report is about, read from a run folder: what is not there yet is None."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from scalesearch.jsonfile import read_object
from scalesearch.outcome import Outcome
from scalesearch.stored import StoredRun, outcome_of, read_run
from scalesearch.terrain import Terrain, terrain

Document = dict[str, Any]
MOST = 2**63
"""No number of a manifest is larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A run as a report shows it."""

    run: StoredRun
    outcome: Outcome | None
    """None while no trial has an accuracy."""
    terrain: Terrain | None
    """None where the ranking rests on no surface."""
    family: Document | None
    """The family's manifest; None while it is not written, or where it is damaged."""
    environment: Document | None
    """Versions and hardware; None where the run has not begun to train, or where they are damaged."""
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
        family=_document(run.folder / "family" / "manifest.json", _is_manifest),
        environment=_document(run.folder / "environment.json", _is_environment),
        written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )


def _document(path: Path, fits: Callable[[Document], bool]) -> Document | None:
    """A JSON object; None where there is none, or a damaged one."""
    try:
        found = read_object(path)
    except (OSError, ValueError):
        return None
    return found if fits(found) else None


def _is_environment(found: Document) -> bool:
    return (
        found.keys() >= {"platform", "python", "processors"}
        and isinstance(found.get("versions"), dict)
        and all(row.keys() >= {"device", "name"} for row in _rows(found, "slots"))
    )


def _is_manifest(found: Document) -> bool:
    return all(row.keys() >= {"name", "reason"} for row in _rows(found, "unreached")) and all(
        map(_is_member, _rows(found, "members"))
    )


def _is_member(row: Document) -> bool:
    shape = [row.get("depths"), row.get("widths")]
    is_shaped = all(isinstance(one, list) for one in shape) or _are_sizes(row.get("depth"), row.get("width"))
    costs = [row.get(name) for name in ("realised_growth", "resolution", "macs", "params", "activations")]
    phi = row.get("phi", "")
    return isinstance(row.get("name"), str) and (phi is None or _is_number(phi)) and is_shaped and _are_sizes(*costs)


def _rows(found: Document, name: str) -> list[Document]:
    """A list of objects; where it is none, an object that has no key."""
    rows = found.get(name)
    if isinstance(rows, list) and all(isinstance(row, dict) for row in cast("list[object]", rows)):
        return cast("list[Document]", rows)
    return [{}]


def _are_sizes(*values: object) -> bool:
    return all(_is_number(value) and cast("float", value) > 0 for value in values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < MOST
