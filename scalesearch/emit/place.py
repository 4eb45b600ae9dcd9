"""The folder of a family: what may be written there, and what goes of an earlier family."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from scalesearch.emit.config import SCHEMA, coefficients
from scalesearch.emit.source import WRITTEN
from scalesearch.emit.weights import is_written
from scalesearch.errors import PlanError
from scalesearch.jsonfile import LARGEST_FILE, read_object
from scalesearch.members import Rule

MANIFEST = "manifest.json"
MEMBER_FILES = CONFIG, SOURCE, WEIGHTS = "config.yaml", "network.py", "model.safetensors"
OPENING = b'{\n "schema_version": '
"""How a manifest begins."""
CONFIG_OPENING = f"schema: {SCHEMA}\nname: ".encode()
"""How a member's config does."""
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
    """The manifest of the family in a folder; nothing where there is none, or one that a loss of power has torn.

    Raises:
        PlanError: it is somebody else's file of that name.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return {}
    try:
        found = read_object(path)
    except (OSError, ValueError):
        content = _content(path)
        if content is not None and (content.startswith(OPENING) or OPENING.startswith(content)):
            return {}
        found = {}
    if not isinstance(found.get("members"), list):
        raise PlanError(f"{path} is no manifest of a family", mend=ASIDE)
    return found


def _content(file: Path) -> bytes | None:
    """What a file holds, without the zeros that a loss of power may leave behind it; None where it cannot be read."""
    try:
        if not file.is_file() or file.stat().st_size > LARGEST_FILE:  # a pipe would be waited for
            return None
        return file.read_bytes().rstrip(b"\0")
    except OSError:
        return None


def _is_ours(file: Path) -> bool:
    """Whether a member's config or source was written here, by how it begins; a loss of power may have torn it."""
    content = _content(file)
    if content is None:
        return False
    if file.name == CONFIG:
        return CONFIG_OPENING.startswith(content) or content.startswith(CONFIG_OPENING)
    opening = f'"""{file.parent.name}: '.encode()
    docstring, is_closed, _ = content.removeprefix(b'"""').partition(b'"""')
    is_whole = content.startswith(opening) and (not is_closed or WRITTEN.encode() in docstring)
    return is_whole or opening.startswith(content)


def refuse_occupied(folder: Path, names: Iterable[str]) -> None:
    """Refuse a family's folder that holds somebody else's files where the family's go, or leads a member elsewhere.

    Args:
        folder: of the family; may itself be reached by a link.
        names: of the members.

    Raises:
        PlanError: the manifest is none of a family, a member's place is a link or no folder, a file of one is a folder,
            or one that no manifest names does not begin as a member's do.
    """
    named, places = set(_named(folder) or ()), [folder / name for name in names]
    for place in places:
        if place.is_symlink() or not Path(os.path.realpath(place)).is_relative_to(os.path.realpath(folder)):
            raise PlanError(f"{place} is a link, through which no member is written", mend=ASIDE)
        if place.exists() and not place.is_dir():
            raise PlanError(f"{place} is no folder", mend=ASIDE)
        for file in (place / CONFIG, place / SOURCE):
            if os.path.lexists(file) and file not in named and not _is_ours(file):
                raise PlanError(f"{file} was not written by scalesearch", mend=ASIDE)
    for file in (*(_listed(folder) or ()), *(place / name for place in places for name in MEMBER_FILES)):
        if file.is_dir() and not file.is_symlink():
            raise PlanError(f"{file} is a folder", mend=ASIDE)


def refuse_trained(folder: Path, names: Iterable[str]) -> None:
    """Refuse to write members' weights over such as are not as they were written: somebody may have trained them.

    Raises:
        PlanError: one's are not.
    """
    for file in (folder / name / WEIGHTS for name in names):
        if file.is_file() and not is_written(file):
            raise PlanError(f"{file} holds other weights than were written there", mend=ASIDE)


def _named(folder: Path) -> list[Path] | None:
    """The files that the manifest in a folder names; None where there is none that does."""
    try:
        return [folder / str(file) for row in _earlier(folder)["members"] for file in row["files"]]
    except (KeyError, TypeError):
        return None


def _listed(folder: Path) -> list[Path] | None:
    """The files of the earlier family in a folder; None where no manifest names any."""
    files = _named(folder)
    if files is None:
        return None
    return [file for file in files if file.resolve().is_relative_to(folder.resolve()) and file.name in MEMBER_FILES]


def clear(folder: Path) -> None:
    """Remove the files that an earlier manifest in a folder names, but for others' weights, and that manifest."""
    files = _listed(folder)
    if files is None:
        return
    (folder / MANIFEST).unlink(missing_ok=True)
    for file in files:
        if file.name != WEIGHTS or is_written(file):
            file.unlink(missing_ok=True)
        with suppress(OSError):  # other files live there too
            file.parent.rmdir()
