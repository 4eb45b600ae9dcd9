"""The report of a run: one HTML file that opens offline, and its figures alone. Brings jinja2 and plotly."""

from __future__ import annotations

from pathlib import Path

from scalesearch.errors import StudyError
from scalesearch.files import Told, write_whole
from scalesearch.report.facts import read_facts
from scalesearch.report.figure import Figure
from scalesearch.report.page import WIDE, figures, page
from scalesearch.report.svg import svg

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
    path = out or folder / NAME
    _write(path, page(read_facts(folder)), told)
    return path


def write_figures(folder: Path, place: Path) -> list[Path]:
    """Write each figure of a run's report as an SVG file that needs nothing else; those that are missing are not.

    Raises:
        StudyError: no run in that folder, a damaged one, or a place that cannot be written.
    """
    drawn = [one for group in figures(read_facts(folder)).values() for one in group if isinstance(one, Figure)]
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"{place}: {error.strerror}", mend="choose another folder with --figures") from None
    paths = [place / f"{one.id}.svg" for one in drawn]
    for path, one in zip(paths, drawn, strict=True):
        _write(path, svg(one, WIDE, alone=True) + "\n")
    return paths


def _write(path: Path, text: str, told: Told | None = None) -> None:
    try:
        write_whole(path, text.encode(errors="replace"), told)  # names read from a file may be no Unicode
    except OSError as error:
        raise StudyError(f"{path}: {error.strerror}", mend="choose another place with --out") from None
