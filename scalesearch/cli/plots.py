"""What a terminal shows of a run's standing: intervals as text, progress as a bar."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch import documents
from scalesearch.cli.console import console, duration, print_document, room, terminal

if TYPE_CHECKING:
    from scalesearch.outcome import Outcome
    from scalesearch.ranking import Ranking, Row
    from scalesearch.stored import StoredRun

WIDTH = 60
"""Of a plot, where the terminal has room for it [characters]."""
LEAST = 20
"""Of a plot, whatever the terminal [characters]."""
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
    width = _width(beside=name + 4 + max(len(" ".join(row.references)) for row in rows))
    yield f"{'':{name}}  {f'{low:.2f} %':<{width // 2}}{f'{high:.2f} %':>{width - width // 2}}"
    for row in rows:
        yield f"{row.id:{name}}  {_interval(row, low, high, width)}  {' '.join(row.references)}".rstrip()
    yield "● estimate, ━ 95 % interval of what cannot be told apart from the first,"
    yield "─ of what can" + (", ┄ of what is off budget" if any(row.off_budget for row in rows) else "")


def _width(beside: int = 0) -> int:
    """Of a plot that has so many characters beside it."""
    across = room()
    return WIDTH if across is None else max(LEAST, min(WIDTH, across - beside))


def _interval(row: Row, low: float, high: float, width: int) -> str:
    """One row of the plot."""

    def column(value: float | None) -> int:
        return round((width - 1) * ((value or 0.0) - low) / (high - low)) if high > low else 0

    line = "┄" if row.off_budget else "━" if row.tied_with_best else "─"
    first, dot, last = column(row.low), column(row.estimate), column(row.high)
    return "".join("●" if at == dot else line if first <= at <= last else " " for at in range(width))


def damage(stored: StoredRun) -> None:
    """What of a run's journal is not believed, on stderr."""
    if stored.damage:
        console(stderr=True).print(f"{stored.damage}; `scalesearch repair {stored.folder}` mends the file")


def outcome(folder: Path) -> Outcome:
    """The ranking of a run so far; tells what of its journal is not believed."""
    from scalesearch.stored import ranked, read_run

    stored = read_run(folder)
    found = ranked(stored)
    damage(stored)  # not beside a refusal, which is one line
    return found


def status(stored: StoredRun, *, as_json: bool) -> None:
    """How far a run is."""
    damage(stored)
    if as_json:
        print_document(documents.status_document(stored))
        return
    left = "" if not stored.eta else f", {stored.at_most or 'about '}{duration(stored.eta)} left"
    terminal(as_json).print(f"{stored.standing}{left}")
    terminal(as_json).print(_bar(stored.share, is_finished=stored.state == "finished"))
    if stored.state == "finished" and not (stored.folder / "family" / "manifest.json").is_file():
        terminal(as_json).print("the family is not written yet: run the same command")


def _bar(share: float, *, is_finished: bool) -> str:
    """How far a run is, failed trials included. Only that of a finished one is full."""
    text = f" {min(round(100 * share), 100 if is_finished else 99)} %"
    width = _width(beside=len(text))
    trained = min(round(width * share), width if is_finished else width - 1)
    return f"{'━' * trained}{'─' * (width - trained)}{text}"
