"""How far counting is, where a base has to be built to be counted. Loads rich only when there is something to tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status


class Counting:
    """One line on a terminal, renewed with every count; nothing elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.status: Status | None = None

    def __enter__(self) -> Callable[[str], None]:
        return self.told

    def told(self, text: str) -> None:
        """Show the newest line."""
        if self.quiet:
            return
        if self.status is None:
            from rich.console import Console

            self.status = Console(stderr=True).status(text)
            self.status.start()
        self.status.update(text)

    def __exit__(self, *_: object) -> None:
        if self.status is not None:
            self.status.stop()
