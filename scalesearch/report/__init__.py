"""The report of a run: one HTML file that opens offline, and its figures alone. Brings jinja2 and plotly."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from scalesearch.errors import StudyError
from scalesearch.files import Told, make_folder, write_whole
from scalesearch.report.facts import Facts, read_facts
from scalesearch.report.figure import Figure
from scalesearch.report.page import WIDE, figures, page
from scalesearch.report.svg import HEAD, svg

NAME = "report.html"


def write_report(folder: Path, out: Path | None = None, told: Told | None = None) -> Path:
    """Write the report of a run folder, whole or not at all.

    Args:
        folder: the run folder, at any time from its first plan on.
        out: the file; None = `report.html` in the run folder.
        told: where given, a full disk is waited for and told of; else it is a fault.

    Raises:
        StudyError: no run in that folder, a damaged one, or a file that cannot be written.
    """
    return write_page(read_facts(folder), out or folder / NAME, told)


def write_page(facts: Facts, path: Path, told: Told | None = None) -> Path:
    """Write the report of what has been read of a run, whole or not at all.

    Raises:
        StudyError: the file cannot be written.
    """
    _write(path, page(facts), told)
    return path


def figures_folder(place: Path) -> Path:
    """A folder that figures can be written into, made where there is none.

    Raises:
        StudyError: it cannot be written.
    """
    try:
        make_folder(place)
        if not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise StudyError(f"{place}: {error.strerror}", mend="choose another folder with --figures") from None
    return place


def write_figures(facts: Facts, place: Path) -> list[Path]:
    """Write each figure of a report as an SVG file that needs nothing else; an older file of one that is missing goes.

    Raises:
        StudyError: the place cannot be written.
    """
    paths: list[Path] = []
    for one in (one for group in figures(facts).values() for one in group):
        path = place / f"{one.id}.svg"
        if isinstance(one, Figure):
            _write(path, svg(one, WIDE, alone=True) + "\n")
            paths.append(path)
        else:
            _remove(path)
    return paths


def _remove(path: Path) -> None:
    """Remove a figure that we have drawn; what somebody else has drawn stays."""
    with suppress(OSError):
        if path.is_file() and path.read_text(encoding="utf-8", errors="replace").startswith(HEAD):
            path.unlink()


def _write(path: Path, text: str, told: Told | None = None) -> None:
    try:
        write_whole(path, text.encode(errors="replace"), told)  # names read from a file may be no Unicode
    except OSError as error:
        raise StudyError(f"{path}: {error.strerror}", mend="choose another place with --out") from None
