"""A report that is written again and again while a run goes on, beside it: a run waits for none of them."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from threading import Condition, Thread
from types import TracebackType

from scalesearch.report import write_report
from scalesearch.stopping import CtrlCError, TerminatedError

LEAST = 0.5
"""Time for the last page of an interrupted run, however long its trials took to stop [s]."""


class LiveReport:
    """Writes a run's report in a thread of its own, at most one at a time and never an outdated one.

    A report that cannot be written, as the run's files change under it, is left to the next one. An interruption has a
    last one written, of the run as it then stands, where that takes no longer than the signal leaves time for; behind
    every other ending whoever ended the run writes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._asked = Condition()
        self._is_due = self._is_over = False
        self._thread = Thread(target=self._write, daemon=True)

    def __enter__(self) -> LiveReport:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._asked:
            self._is_over, self._is_due = True, error is not None and not isinstance(error, Exception)
            self._asked.notify()
        is_stopped = isinstance(error, CtrlCError | TerminatedError)
        self._thread.join(max(LEAST, error.end - time.monotonic()) if is_stopped else None)

    def renew(self) -> None:
        """Have the report written again, soon."""
        with self._asked:
            self._is_due = True
            self._asked.notify()

    def _write(self) -> None:
        while True:
            with self._asked:
                self._asked.wait_for(lambda: self._is_due or self._is_over)
                if not self._is_due:
                    return
                self._is_due = False
            with suppress(Exception):  # the last report, which the run writes, tells what is wrong
                write_report(self._folder)
