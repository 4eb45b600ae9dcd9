"""Signals that end a job: Ctrl-C, and SIGTERM or SIGUSR1 as batch systems and machines on loan send them.

A signal that is ignored when the program starts stays ignored, as `nohup` and a shell's `&` in scripts ask for.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class CtrlCError(KeyboardInterrupt):
    """SIGINT. A bare KeyboardInterrupt that leaves an `exec` of text has Python kill itself, though it was caught.

    Args:
        heard: when, by the monotonic clock [s]; None = now.
    """

    def __init__(self, heard: float | None = None) -> None:
        super().__init__()
        self.end = (time.monotonic() if heard is None else heard) + 5
        """When the program should have ended, by the same clock [s]: somebody waits at a terminal."""


class TerminatedError(BaseException):
    """SIGTERM or SIGUSR1; like KeyboardInterrupt nothing that a program should go on after.

    Args:
        heard: when, by the monotonic clock [s]; None = now.
    """

    def __init__(self, heard: float | None = None) -> None:
        super().__init__()
        self.end = (time.monotonic() if heard is None else heard) + 25
        """When the program should have ended, by the same clock [s]: batch systems kill half a minute later."""


RAISED = (CtrlCError, TerminatedError)


@dataclass(slots=True)
class Asked:
    """Whether a signal has asked for an end."""

    number: int | None = None
    heard: float = field(default_factory=time.monotonic)
    """When, by the monotonic clock [s]."""

    def __bool__(self) -> bool:
        """Whether one has."""
        return self.number is not None

    @property
    def grace(self) -> float:
        """Time that it leaves [s]: somebody waits at a terminal, batch systems kill half a minute later."""
        return 3.0 if self.number == signal.SIGINT else 20.0

    def check(self) -> None:
        """Raise what was asked for, if it was: for a wait that nothing else ends."""
        if self.number is not None:
            raise (CtrlCError if self.number == signal.SIGINT else TerminatedError)(self.heard)


@contextmanager
def raising() -> Iterator[None]:
    """Inside, such a signal raises wherever it meets the program: CtrlCError, or TerminatedError.

    One that meets the import of torch is heard behind it. What is raised where it gets lost, as in a destructor, whose
    exceptions Python prints and forgets, or in a library that catches everything, is raised again.
    """
    striking, told = _Striking(), sys.unraisablehook
    before = _handled(striking.strike)
    sys.unraisablehook = lambda lost: None if isinstance(lost.exc_value, RAISED) else told(lost)
    try:
        yield
    finally:
        striking.end()
        sys.unraisablehook = told
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is signal.default_int_handler else handler)


class _Striking:
    """What raises for signals, and looks a while later whether the program is about to end."""

    def __init__(self) -> None:
        self._ended = False
        self._lock = threading.Lock()
        self._first: float | None = None
        """When the first signal came, by the monotonic clock [s]."""
        self._is_echo = False
        """Whether the next signal is one of ours."""

    def strike(self, number: int, frame: FrameType | None) -> None:
        """Hear a signal."""
        is_echo, self._is_echo = self._is_echo, False
        self._first = self._first or time.monotonic()
        if _loads_torch(frame):
            self._echo(number, 0.05)
        elif is_echo and _is_leaving():
            self._echo(number, 0.5)
        else:
            self._echo(number, 0.5)
            Asked(number, self._first).check()

    def _echo(self, number: int, within: float) -> None:
        """Send a signal again."""

        def send() -> None:
            with self._lock:
                if not self._ended:
                    self._is_echo = True
                    signal.pthread_kill(main, number)

        main = threading.get_ident()  # where handlers run
        again = threading.Timer(within, send)
        again.daemon = True
        again.start()

    def end(self) -> None:
        """Send none any more."""
        with self._lock:
            self._ended = True


def end_with(code: int) -> None:
    """From here on such a signal ends the program at once, with the code that its work has come to.

    While Python takes its modules apart, where no handler runs any more, signals are ignored. That is short: it would
    look through a million objects of libraries for circles, which took seconds behind the last word of a program.
    """
    heard = _handled(lambda *_: os._exit(code))

    def leave() -> None:
        for number in heard:
            signal.signal(number, signal.SIG_IGN)
        gc.freeze()

    atexit.register(leave)


@contextmanager
def noting(asked: Asked) -> Iterator[None]:
    """Inside, the first such signal is only noted, and raised at the end; the second raises at once."""

    def note(number: int, _: object) -> None:
        asked.check()
        asked.number, asked.heard = number, time.monotonic()

    before = _handled(note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    asked.check()


@contextmanager
def deferring() -> Iterator[None]:
    """Inside, such signals wait: what is begun is done whole. They are heard behind it."""
    waiting: list[int] = []
    before = _handled(lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in waiting:
            signal.raise_signal(number)


def _loads_torch(frame: FrameType | None) -> bool:
    """Whether a module of torch is being imported: its C++ calls Python then, and aborts where Python raises."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__", "").partition(".")[0] == "torch":
            return True
        frame = frame.f_back
    return False


def _is_leaving() -> bool:
    """Whether what a signal has raised is on its way out of the program, through all that is done at its end."""
    error = sys.exception()
    while error is not None and not isinstance(error, RAISED):
        error = error.__context__
    return error is not None


def _handled(handler: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    """Handle the signals; returns who did before. Nothing happens outside the main thread, which alone hears them."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {number: signal.getsignal(number) for number in ENDING}
    heard = {number: who for number, who in before.items() if who not in (signal.SIG_IGN, None)}
    for number in heard:
        signal.signal(number, handler)
    return heard
