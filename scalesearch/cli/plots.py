"""What a terminal shows of a run's standing: intervals as text, progress as a bar."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from scalesearch import documents
from scalesearch.cli.console import duration, print_document, terminal

if TYPE_CHECKING:
    from rich.columns import Columns

    from scalesearch.ranking import Ranking, Row
    from scalesearch.stored import StoredRun

WIDTH = 60
"""Of a plot [characters]."""
MOST = 12
"""Rows of a plot: the first, and the references behind them."""


def intervals(ranking: Ranking) -> Iterator[str]:
    """The first trained candidates and the references, each as a dot in its 95 % interval.

    What cannot be told apart from the first is drawn with heavy lines; nothing is drawn where there are no intervals.
    """
    rows = [row for row in ranking.rows if row.seeds and row.low is not None]
    rows = [row for place, row in enumerate(rows) if place < MOST or row.references]
    if len(rows) < 2:
        return
    low, high = min(row.low or 0.0 for row in rows), max(row.high or 0.0 for row in rows)
    name = max(len(row.id) for row in rows)
    yield f"{'':{name}}  {f'{low:.2f} %':<{WIDTH // 2}}{f'{high:.2f} %':>{WIDTH - WIDTH // 2}}"
    for row in rows:
        yield f"{row.id:{name}}  {_interval(row, low, high)}  {' '.join(row.references)}".rstrip()
    yield f"{'':{name}}  ● estimate, ━ 95 % interval of what cannot be told apart from the first, ─ of what can"


def _interval(row: Row, low: float, high: float) -> str:
    """One row of the plot."""

    def column(value: float | None) -> int:
        return round((WIDTH - 1) * ((value or 0.0) - low) / (high - low)) if high > low else 0

    line = "━" if row.tied_with_best else "─"
    first, dot, last = column(row.low), column(row.estimate), column(row.high)
    return "".join("●" if at == dot else line if first <= at <= last else " " for at in range(WIDTH))


def status(stored: StoredRun, *, as_json: bool) -> None:
    """How far a run is."""
    if as_json:
        print_document(documents.status_document(stored))
        return
    left = "" if not stored.eta else f", {stored.at_most or 'about '}{duration(stored.eta)} left"
    terminal(as_json).print(f"{stored.standing}{left}")
    terminal(as_json).print(_bar(stored))
    if stored.state == "finished" and not (stored.folder / "family" / "manifest.json").is_file():
        terminal(as_json).print("the family is not written yet: run the same command")


def _bar(stored: StoredRun) -> Columns:
    """How far a run is, failed trials included."""
    from rich.columns import Columns
    from rich.progress_bar import ProgressBar

    bar = ProgressBar(total=max(1, stored.total), completed=stored.ended, width=WIDTH)
    return Columns([bar])  # a line of its own
