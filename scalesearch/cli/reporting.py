"""The report of a run: at the end of `run`, on request meanwhile, and by a command of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from scalesearch.cli.console import print_document, terminal
from scalesearch.cli.options import Json, RunFolder
from scalesearch.documents import report_document
from scalesearch.errors import SearchFailedError


@contextmanager
def reported(folder: Path, *, live: bool) -> Iterator[Callable[[], None]]:
    """Write the report of what happens inside, also where all trials fail; with `live`, at interruptions too.

    Yields:
        To be called after each decision.
    """
    from scalesearch.report import write_report
    from scalesearch.report.live import LiveReport

    try:
        if live:
            with LiveReport(folder) as report:
                yield report.renew
        else:
            yield lambda: None
    except (SearchFailedError, KeyboardInterrupt) as error:
        if live or isinstance(error, SearchFailedError):
            write_report(folder)
        raise
    write_report(folder)


def report(
    folder: RunFolder,
    open_it: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    figures: Annotated[Path | None, typer.Option("--figures", help="Folder for each figure alone, as SVG.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The file; default: RUN/report.html.")] = None,
    as_json: Json = False,
) -> None:
    """Write the report of a run, finished or not: one HTML file that opens offline."""
    from scalesearch.report import write_figures, write_report

    path = write_report(folder, out)
    drawn = write_figures(folder, figures) if figures else []
    if as_json:
        print_document(report_document(path, drawn))
    else:
        told = terminal(as_json)
        told.print(f"report: {path}")
        for figure in drawn:
            told.print(f"figure: {figure}")
    if open_it:
        typer.launch(path.resolve().as_uri())
