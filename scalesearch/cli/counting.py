"""How far counting is, where a base has to be built to be counted. Loads rich only when there is something to tell."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from scalesearch.cli.console import console, plain

if TYPE_CHECKING:
    from rich.status import Status

SECONDS = 10.0
"""Between lines where there is no terminal."""


class Counting:
    """One line on a terminal, renewed with every count; elsewhere a line now and then, on stderr."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.status: Status | None = None
        self.next_line = time.monotonic() + SECONDS

    def __enter__(self) -> Callable[[str], None]:
        return self.told

    def told(self, text: str) -> None:
        """Show the newest line."""
        if self.quiet:
            return
        from rich.text import Text

        if self.status is None:
            self.console = console(stderr=True)
            self.status = self.console.status("")
            self.status.start()
        if not self.console.is_interactive and time.monotonic() >= self.next_line:
            self.console.print(text)
            self.next_line = time.monotonic() + SECONDS
        self.status.update(Text(plain(text)))

    def __exit__(self, *_: object) -> None:
        if self.status is not None:
            self.status.stop()
