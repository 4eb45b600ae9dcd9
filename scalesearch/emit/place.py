"""The folder of a family: what may be written there, and what goes of an earlier family."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from scalesearch.emit.config import coefficients
from scalesearch.emit.weights import is_written
from scalesearch.errors import PlanError
from scalesearch.jsonfile import read_object
from scalesearch.members import Rule

MANIFEST = "manifest.json"
MEMBER_FILES = CONFIG, SOURCE, WEIGHTS = "config.yaml", "network.py", "model.safetensors"
ASIDE = "move it away, or choose another folder with --out"


def refuse_other(folder: Path, rule: Rule | None, base: str) -> None:
    """Refuse a place that is no folder or holds a family of another rule; the same rule's is there to be replaced.

    Raises:
        PlanError: it does.
    """
    mend = "choose another folder with --out"
    if folder.exists() and not folder.is_dir():
        raise PlanError(f"{folder} is no folder", mend=mend)
    earlier = _earlier(folder)
    there = {"base": earlier.get("base"), "rule": earlier.get("rule")}
    if earlier and there != {"base": base, "rule": coefficients(rule)["rule"]}:
        raise PlanError(f"{folder} holds the family of another rule", mend=mend)


def _earlier(folder: Path) -> dict[str, Any]:
    """The manifest of the family in a folder; nothing where none can be read."""
    try:
        return read_object(folder / MANIFEST)
    except (OSError, ValueError):
        return {}


def refuse_occupied(folder: Path, names: Iterable[str]) -> None:
    """Refuse a family's folder where a member's place is a link, which may lead anywhere, or no folder.

    Args:
        folder: of the family; may itself be reached by a link.
        names: of the members.

    Raises:
        PlanError: one is.
    """
    for place in (folder / name for name in names):
        if place.is_symlink() or not Path(os.path.realpath(place)).is_relative_to(os.path.realpath(folder)):
            raise PlanError(f"{place} is a link, through which no member is written", mend=ASIDE)
        if place.exists() and not place.is_dir():
            raise PlanError(f"{place} is no folder", mend=ASIDE)


def refuse_trained(folder: Path, names: Iterable[str]) -> None:
    """Refuse to write members' weights over such as are not as they were written: somebody may have trained them.

    Raises:
        PlanError: one's are not.
    """
    for file in (folder / name / WEIGHTS for name in names):
        if file.is_file() and not is_written(file):
            raise PlanError(f"{file} holds other weights than were written there", mend=ASIDE)


def _listed(folder: Path) -> list[Path] | None:
    """The files of the earlier family in a folder; None where no manifest names any."""
    try:
        files = [folder / str(file) for row in _earlier(folder)["members"] for file in row["files"]]
    except (KeyError, TypeError):
        return None
    return [file for file in files if file.resolve().is_relative_to(folder.resolve()) and file.name in MEMBER_FILES]


def clear(folder: Path) -> None:
    """Remove the files that an earlier manifest in a folder names, but for others' weights, and that manifest."""
    files = _listed(folder)
    if files is None:
        return
    (folder / MANIFEST).unlink()
    for file in files:
        if file.name != WEIGHTS or is_written(file):
            file.unlink(missing_ok=True)
        with suppress(OSError):  # other files live there too
            file.parent.rmdir()
