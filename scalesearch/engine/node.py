"""What runs on a node of a cluster: one work at a time, asked for from afar. Knows nothing of Ray."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch.engine.afar import Afar
from scalesearch.engine.ferry import Ferry
from scalesearch.engine.memory import give_back, keep_freed_memory
from scalesearch.engine.work import Event, Failed, Work
from scalesearch.engine.worker import answers
from scalesearch.errors import DataError
from scalesearch.files import generations
from scalesearch.proxy.images import Images, open_images

if TYPE_CHECKING:
    from scalesearch.proxy.device import Shelf
    from scalesearch.proxy.ranks import (
        Ranks,
        TCPStore,  # pyright: ignore[reportPrivateImportUsage]
    )

BITS = ("scalesearch", "torch", "numpy")
"""Libraries that decide bits, and must be the same everywhere."""
MOMENT = 0.5
"""An answer comes at least so often while steps are trained [s]."""


def versions() -> dict[str, str]:
    """What must be the same on every node."""
    return {"Python": ".".join(platform.python_version_tuple()[:2])} | {name: version(name) for name in BITS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a trainer runs."""

    host: str
    device: str
    """`cpu` or `cuda:0`: of several GPUs it sees its own alone."""
    name: str
    """What the hardware calls itself."""
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What happened since the last one."""

    events: list[Event]
    is_over: bool = False
    """Whether nothing more is to come of the work."""
    trace: str = ""
    """Traceback of an unforeseen failure."""


class Trainer:
    """Trains the works that it is handed, one after another."""

    def __init__(self, *, uses_gpu: bool, afar: Afar | None = None) -> None:
        keep_freed_memory()
        self._device = "cuda:0" if uses_gpu else "cpu"
        self._afar = afar
        self._shelf: Shelf | None = None
        self._store: TCPStore | None = None
        self._ranks: Ranks | None = None
        self._stopping = threading.Event()
        self._reports: Iterator[Report] = iter(())
        self._own = _place_of_its_own()
        self._folder = Path(self._own.name)

    def place(self) -> Place:
        """Where this is."""
        from scalesearch.engine.slots import processor_name

        name = processor_name()
        if self._device != "cpu":
            import torch

            name = torch.cuda.get_device_name(self._device)
        return Place(host=socket.gethostname(), device=self._device, name=name, versions=versions())

    def open(self, host: str, count: int) -> str:
        """Open a place on this host where so many trainers meet; returns its address."""
        from scalesearch.proxy.ranks import opened

        self._store, address = opened(host, count)
        return address

    def meet(self, address: str, rank: int, count: int) -> Place:
        """Meet the others, with whom this trains every work from now on; returns where this is."""
        from scalesearch.proxy.ranks import met

        place = self.place()
        self._ranks = met(address, rank, count, self._store)
        return place

    def follow(self, work: Work, fingerprint: str, images: Images | None = None) -> bool:
        """Train beside the first trainer, to the end of a work; see `begin`."""
        from scalesearch.engine.trial import follow_trials

        assert self._ranks is not None
        if images is None and not _is_here(work.data, fingerprint):
            return False
        follow_trials(work, self._bench(), self._ranks, images)
        give_back(self._bench().device)
        return True

    def begin(self, work: Work, fingerprint: str, images: Images | None = None) -> bool:
        """Take up a work, whose images lie in its folder here too, or are given.

        Returns:
            Whether they are there; if not, nothing is begun.
        """
        if images is None and not _is_here(work.data, fingerprint):
            return False
        self._reports = self._train(work, images)
        return True

    def advance(self) -> Report | None:
        """Train until there is something to tell, or a moment is over; None when nothing is left to train."""
        end = time.monotonic() + MOMENT
        for report in self._reports:
            if report.events or report.is_over or time.monotonic() >= end:
                return report
        return None

    def halt(self) -> None:
        """Have the work end behind its next step, with a checkpoint."""
        self._stopping.set()

    def _train(self, work: Work, images: Images | None) -> Iterator[Report]:
        """The last report comes when the memory of the training is free again."""
        log = self._folder / "trace.txt"
        log.unlink(missing_ok=True)
        work = replace(work, log=log, checkpoint=self._checkpoint(work))
        found: list[Event] = []
        for found, is_over in self._carried(work, images):
            if not is_over:
                yield Report(events=found)
        trace = log.read_text(encoding="utf-8") if log.exists() else ""
        give_back(self._bench().device)
        yield Report(events=found, is_over=True, trace=trace)

    def _carried(self, work: Work, images: Images | None) -> Iterator[tuple[list[Event], bool]]:
        """What happens behind each step of a work, its checkpoints carried to where they are kept; whether it is over.

        Raises:
            DataError: the prepared images are damaged.
        """
        ferry = Ferry(self._afar, work.checkpoint) if self._afar else None
        for events in ferry.fetched() if ferry else ():
            yield events, False
        for answer in answers(work, self._bench(), self._stopping.is_set, images, self._ranks):
            if isinstance(answer, DataError):
                raise answer
            events, is_over = answer
            events = ferry.told(events) if ferry else events
            if not is_over:
                yield events, False
                continue
            is_spent = not any(isinstance(event, Failed) and not event.final for event in events)
            for landed in ferry.landed(is_spent=is_spent) if ferry else ():
                yield landed, False
            if is_spent:
                self._forget(work.checkpoint)
            yield events, True

    def _bench(self) -> Shelf:
        from scalesearch.proxy.device import Shelf

        self._shelf = self._shelf or Shelf.opened(self._device)
        return self._shelf

    def _checkpoint(self, work: Work) -> Path:
        """In the run folder, where it is seen from here and no other place is wanted."""
        is_here = work.checkpoint.parent.is_dir() and self._afar is None
        return work.checkpoint if is_here else self._folder / work.checkpoint.name

    def _forget(self, checkpoint: Path) -> None:
        """Remove a copy of our own; one in the run folder is the coordinator's."""
        if checkpoint.parent == self._folder:
            for generation in generations(checkpoint):
                generation.unlink(missing_ok=True)


def _place_of_its_own() -> tempfile.TemporaryDirectory[str]:
    """A new folder of this process. Those of others on this host that were killed are removed."""
    ours = f"scalesearch-{socket.gethostname()}-"  # containers may share a folder, and each counts from 1
    for path in Path(tempfile.gettempdir()).iterdir():
        owner = re.fullmatch(rf"{re.escape(ours)}(\d+)-\w+", path.name)
        if owner and not _lives(int(owner[1])):
            shutil.rmtree(path, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"{ours}{os.getpid()}-", ignore_cleanup_errors=True)


def _lives(process: int) -> bool:
    with suppress(PermissionError):  # somebody else's
        try:
            os.kill(process, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True


def _is_here(folder: Path, fingerprint: str) -> bool:
    try:
        return open_images(folder).fingerprint == fingerprint
    except DataError:
        return False
