"""The terminal and stdout: where text for people goes, tables, a document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NARROWEST = 120
"""Least width that tables are laid out for [characters]; files and narrow terminals wrap."""


def terminal(as_json: bool) -> Console:
    """Where text for people goes: stdout, or stderr when stdout carries a document."""
    from rich.console import Console  # a document does without

    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    console.width = max(console.width, NARROWEST)
    return console


def print_document(values: dict[str, Any]) -> None:
    """One JSON document on stdout."""
    print(json.dumps(values, indent=1))


def columns(*names: str, title: str = "") -> Table:
    """An empty table: the first column to the left, the others to the right."""
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(names):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    return table


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
