"""The report of a run: at the end of `run`, on request meanwhile, and by a command of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from scalesearch.cli.console import console, print_document, terminal
from scalesearch.cli.options import Json, RunFolder, a_path
from scalesearch.cli.plots import damage
from scalesearch.errors import SearchFailedError

if TYPE_CHECKING:
    from scalesearch.boards import Boards
    from scalesearch.engine.work import Event

PATIENCE = 5.0
"""Time for a browser to say that it cannot be opened [s]."""


class Heard(NamedTuple):
    """What is written beside a run."""

    decided: Callable[[], object] = lambda: None
    """Called after each decision."""
    happened: Callable[[Event], object] = lambda event: None
    """Called for each event of a trial."""


NOBODY = Heard()


@contextmanager
def reported(folder: Path, *, live: bool, log: str | None) -> Iterator[Heard]:
    """Write the report of what happens inside, also where all trials fail; of an interrupted run only with `live`.

    Args:
        folder: the run folder.
        live: whether the report is written again after each decision.
        log: `tensorboard`, for curves of each trial, or None.

    Raises:
        PlanError: TensorBoard is asked for and not installed.
    """
    from scalesearch.report import write_report
    from scalesearch.report.live import LiveReport

    try:
        with ExitStack() as stack:
            heard = NOBODY
            if live:
                heard = heard._replace(decided=stack.enter_context(LiveReport(folder)).renew)
            if log:
                heard = heard._replace(happened=stack.enter_context(_boards(folder)).happened)
            yield heard
    except SearchFailedError:
        with suppress(Exception):  # what failed is told, not what its page is short of
            write_report(folder)
        raise
    write_report(folder, told=console(stderr=True).print)


def _boards(folder: Path) -> Boards:
    from scalesearch.boards import Boards  # loaded where curves are wanted

    return Boards(folder)


def report(
    folder: RunFolder,
    open_it: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    figures: Annotated[
        Path | None, typer.Option("--figures", **a_path, help="Folder for each figure alone, as SVG.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", **a_path, help="The file; default: RUN/report.html.")] = None,
    as_json: Json = False,
) -> None:
    """Write the report of a run, finished or not: one HTML file that opens offline."""
    from scalesearch.documents import report_document
    from scalesearch.report import NAME, figures_folder, write_figures, write_page
    from scalesearch.report.facts import read_facts

    facts = read_facts(folder)
    place = figures_folder(figures) if figures else None  # refused before anything is written
    path = write_page(facts, out or folder / NAME)
    drawn = write_figures(facts, place) if place else []
    damage(facts.run)
    if as_json:
        print_document(report_document(path, drawn))
    else:
        told = terminal(as_json)
        told.print(f"report: {path}")
        for figure in drawn:
            told.print(f"figure: {figure}")
    if open_it:
        _show(path.resolve())


def _show(page: Path) -> None:
    """Show a page in the browser, which nothing is heard of; where none can be opened, say which file it is."""
    command, nothing = ["open" if sys.platform == "darwin" else "xdg-open", page.as_uri()], subprocess.DEVNULL
    try:
        opener = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
        is_open = opener.wait(PATIENCE) == 0
    except subprocess.TimeoutExpired:  # a browser that goes on in its place
        is_open = True
    except OSError:
        is_open = False
    if not is_open:
        console(stderr=True).print(f"no browser can be opened here; the page is {page}")
