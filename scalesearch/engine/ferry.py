"""Checkpoints on their way to a store and back, in threads: one that is slow holds up no training."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from scalesearch.engine.afar import Afar
from scalesearch.engine.work import Event, Kept, Noticed
from scalesearch.files import generations

MOMENT = 0.2
"""Between looks at what is on its way [s]."""
SILENT = 60.0
"""Time after which people are told that a store has not answered, and that a work waits for it at its end [s]."""
LATEST = 300.0
"""Time after which a work begins anew whose checkpoint a store has not brought [s]."""
PATIENCE = 10.0
"""Most time that a coordinator waits for a store, at the start of a run and at its end [s]."""

Errand = Callable[[], Noticed | None]
"""What a store is asked for; returns what it could not do."""


class _Going(threading.Thread):
    """An errand under way; one that never ends is left behind with the program."""

    def __init__(self, errand: Errand) -> None:
        super().__init__(daemon=True)
        self.fault: Noticed | None = None
        self._errand = errand
        self.start()

    def run(self) -> None:
        """See `Thread`."""
        self.fault = self._errand()


class Errands:
    """What a store is asked for, one after another. Belongs to one thread, which never waits but in `wait`."""

    def __init__(self) -> None:
        self._waiting: deque[Errand] = deque()
        self._going: _Going | None = None

    def add(self, errand: Errand) -> None:
        """Have one done, behind those before."""
        self._waiting.append(errand)
        if self._going is None:
            self._begin()

    @property
    def are_done(self) -> bool:
        """Whether none is left; to be asked behind `heard`."""
        return self._going is None

    def heard(self) -> list[Noticed]:
        """What those that have ended since could not do."""
        faults: list[Noticed] = []
        while self._going is not None and not self._going.is_alive():
            faults += [self._going.fault] if self._going.fault else []
            self._begin()
        return faults

    def wait(self, within: float) -> list[Noticed]:
        """The same, once all are done, or the time [s] is over."""
        faults, end = self.heard(), time.monotonic() + within
        while self._going is not None and (left := end - time.monotonic()) > 0:
            self._going.join(left)
            faults += self.heard()
        return faults

    def _begin(self) -> None:
        self._going = _Going(self._waiting.popleft()) if self._waiting else None


class Store:
    """Where the checkpoints of a run are kept, as its coordinator sees it; nothing is done where that is no URL."""

    def __init__(self, url: str | None) -> None:
        self.afar = Afar(url) if url else None
        self._errands = Errands()

    def swept(self) -> list[Noticed]:
        """Have removed what killed senders left, before others send; what could not be done."""
        if self.afar is None:
            return []
        self._errands.add(self.afar.sweep)
        return self._errands.wait(PATIENCE)

    def drop(self, name: str) -> None:
        """Have the generations of a file removed."""
        if self.afar is not None:
            self._errands.add(partial(self.afar.drop, name))

    def heard(self) -> list[Noticed]:
        """What could not be done of late."""
        return self._errands.heard()

    def leave(self) -> None:
        """Remove the folder, if it is empty."""
        if self.afar is not None:
            self._errands.add(self.afar.leave)
            self._errands.wait(PATIENCE)


class Ferry:
    """The checkpoints of one work, taken to a store while it is trained; of those that come meanwhile, the last one."""

    def __init__(self, afar: Afar, checkpoint: Path) -> None:
        """Have none on its way; `checkpoint` is the file on this machine."""
        self._afar, self._checkpoint, self._errands = afar, checkpoint, Errands()
        self._aboard: list[Event] = []
        """What is told when the checkpoint that is on its way has come."""
        self._ashore: list[Event] = []
        """The same of a newer one, which is to follow."""
        self._is_silent = False
        """Whether the store has been waited for in vain, and has not answered since."""

    def fetched(self) -> Iterator[list[Event]]:
        """Bring the generations of the checkpoint here, where there are any; often nothing to tell, until they are.

        What comes too late arrives apart from what is trained by then, and is removed.
        """
        arriving = self._checkpoint.parent / f"arriving-{secrets.token_hex(4)}" / self._checkpoint.name
        is_late = threading.Event()
        self._errands.add(partial(self._bring, arriving, is_late))
        begun, is_told = time.monotonic(), False
        while not self._errands.are_done:
            faults, waited = self._errands.wait(MOMENT), time.monotonic() - begun
            if waited > LATEST and not self._errands.are_done:
                self._is_silent = True
                is_late.set()
                yield [*faults, self._afar.silence(LATEST, "beginning anew")]
                return
            if waited > SILENT and not is_told:
                faults, is_told = [*faults, self._afar.silence(SILENT, "waiting for it")], True
            yield [*faults]
        for here, there in zip(generations(self._checkpoint), generations(arriving), strict=True):
            with suppress(FileNotFoundError, NotADirectoryError):  # none came
                there.rename(here)
        shutil.rmtree(arriving.parent, ignore_errors=True)

    def _bring(self, arriving: Path, is_late: threading.Event) -> Noticed | None:
        fault = self._afar.fetch(arriving)
        if is_late.is_set():
            shutil.rmtree(arriving.parent, ignore_errors=True)
        return fault

    def told(self, events: list[Event]) -> list[Event]:
        """Events of a training: that a checkpoint is kept is told once it has come, in other words if it could not."""
        self._ashore = [event for event in events if isinstance(event, Kept)] or self._ashore
        return [*self._moved(), *(event for event in events if not isinstance(event, Kept))]

    def landed(self, *, is_spent: bool) -> Iterator[list[Event]]:
        """Wait for what is on its way, for a while at most; what comes of it, often nothing.

        Args:
            is_spent: whether the checkpoint is needed no more. Nothing follows then; what came later than its removal
                would stay there.
        """
        if is_spent:
            self._ashore = []
        end = time.monotonic() + (0 if self._is_silent else SILENT)
        while self._aboard or self._ashore:
            if time.monotonic() > end:
                yield [self._afar.silence(SILENT, "going on without")]
                return
            time.sleep(MOMENT)
            yield self._moved()

    def _moved(self) -> list[Event]:
        """What came of the one on its way, if it has ended; the next one leaves."""
        found: list[Event] = [*self._errands.heard()]
        if not self._errands.are_done:
            return found
        found, self._aboard, self._is_silent = found or self._aboard, [], False
        if self._ashore:
            with suppress(OSError):  # a copy that somebody has removed
                content = self._checkpoint.read_bytes()  # here, where it is written too
                self._errands.add(partial(self._afar.send, self._checkpoint.name, content))
                self._aboard = self._ashore
            self._ashore = []
        return found
