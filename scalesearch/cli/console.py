"""The terminal and stdout: where text for people goes, tables, a document."""

from __future__ import annotations

import json
import os
import re
import shutil
import textwrap
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console
    from rich.table import Table

ROOM = 1_000
"""Width that tables are laid out in [characters], so that none is crushed: files have it, terminals wrap."""
NARROW = 100
"""Terminals below that leave out columns of tables [characters]."""
MILLION = 1e6

STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move a terminal's cursor, end a line, turn the direction of text, or belong to no text."""


def plain(text: str) -> str:
    r"""A text of one line that can only be read: what would steer a terminal is spelt out.

    >>> print(plain("red \x1b[31m\n"))
    red \x1b[31m\n
    """
    return STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def console(*, stderr: bool, quiet: bool = False, is_optional: bool = False) -> Console:
    """A place for text as it is: names in it are no markup, no emoji and no escape codes.

    Where text is optional, what cannot be written (a full disk, a reader that has gone) is lost and ends nothing.
    """
    from rich.console import Console  # a document does without
    from rich.text import Text

    class Plain(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(plain(text), **options)

        def print(self, *objects: Any, **options: Any) -> None:
            with suppress(*([OSError] if is_optional else [])):
                super().print(*objects, **options)

        def on_broken_pipe(self) -> None:
            if not is_optional:
                super().on_broken_pipe()
            silence(self.file)

    return Plain(stderr=stderr, quiet=quiet, highlight=False, soft_wrap=True, markup=False, emoji=False)


def silence(file: IO[str]) -> None:
    """Have what is still written to a file go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def terminal(as_json: bool) -> Console:
    """Where text for people goes: stdout, or stderr when stdout carries a document."""
    place = console(stderr=as_json)
    place.size = ROOM, place.height  # both, or rich takes a dumb terminal's
    return place


def room() -> int | None:
    """Characters across the terminal, or as many as COLUMNS says; None where lines have no end, as in a file."""
    return shutil.get_terminal_size((0, 0)).columns or None


def wrapped(text: str, indent: str = "") -> list[str]:
    """A sentence as lines that end between words, where there is a terminal; those after the first are indented."""
    width = room()
    if width is None or not text:
        return [text] if text else []
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def sentence(out: Console, text: str, indent: str = "") -> None:
    """A sentence, see `wrapped`."""
    for line in wrapped(text, indent):
        out.print(line)


def is_narrow() -> bool:
    """Whether tables leave out columns."""
    return (room() or NARROW) < NARROW


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


def table_of(rows: Sequence[Mapping[str, str]], *, left_out: Sequence[str], title: str = "") -> Table:
    """A table of rows by the names of its columns, without some of them on a narrow terminal."""
    names = [name for name in next(iter(rows), {}) if not (is_narrow() and name in left_out)]
    table = columns(*names, title=title)
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table


def numbers(values: Iterable[object]) -> str:
    """Values with blanks between them."""
    return " ".join(map(str, values))


def percent(shares: Iterable[float]) -> str:
    """Shares in per cent, as a column has them."""
    return " ".join(f"{100 * share:3.0f}" for share in shares)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
