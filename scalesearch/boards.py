"""Learning curves for TensorBoard: one run of it for every trial, written while a search goes on."""

from __future__ import annotations

import io
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from scalesearch.engine.work import Event, Failed, Finished, Progress
from scalesearch.errors import PlanError
from scalesearch.recipe import EpochResult
from scalesearch.trials import TrialKey

FOLDER = "tensorboard"
FILE = "events.out.tfevents"
"""How names of files begin that TensorBoard reads, those of a run in the order of their names."""
VERSION = "brain.Event:2"
"""Of the files, which begin with it."""


class Boards:
    """Curves under a run folder; a trial that is taken up again goes on in the same place."""

    def __init__(self, folder: Path) -> None:
        """Prepare to write under `folder`.

        Raises:
            PlanError: TensorBoard is not installed.
        """
        try:
            import tensorboard.summary.writer.record_writer  # noqa: F401  known before anything is trained
        except ImportError:
            mend = "install it with `pip install scalesearch[tensorboard]`, or leave --log out"
            raise PlanError("--log tensorboard: TensorBoard is not installed", mend=mend) from None
        self._folder = folder / FOLDER
        self._curves: dict[TrialKey, _Curves] = {}

    def __enter__(self) -> Boards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for key in list(self._curves):
            self._close(key)

    def happened(self, event: Event) -> None:
        """Write an epoch: accuracy [%], and the losses [nats] on validation and training images.

        A curve is a copy: an epoch that finds no room on the disk is left out, and the next one is tried again.
        """
        if isinstance(event, Progress):
            with suppress(OSError):
                self._of(event.key).add(event.result)
        elif isinstance(event, Finished | Failed):
            self._close(event.key)

    def _of(self, key: TrialKey) -> _Curves:
        if key not in self._curves:
            self._curves[key] = _Curves(self._folder / str(key))
        return self._curves[key]

    def _close(self, key: TrialKey) -> None:
        if key in self._curves:
            with suppress(OSError):
                self._curves.pop(key).close()


class _Curves:
    """A new file behind those that a trial has; an epoch stands in it whole or not at all."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = _next(folder).open("xb", buffering=0)
        self._size = 0

    def add(self, found: EpochResult) -> None:
        """Write an epoch behind the others.

        Raises:
            OSError: it cannot be written, and the file is what it was.
        """
        content = _epoch(found) if self._size else _beginning(found.epoch) + _epoch(found)
        done = 0
        try:
            while done < len(content):
                done += os.pwrite(self._file.fileno(), content[done:], self._size + done)
        except OSError:
            with suppress(OSError):  # a torn end is written over by the next epoch
                self._file.truncate(self._size)
            raise
        self._size += done

    def close(self) -> None:
        """Write nothing more."""
        self._file.close()


def _next(folder: Path) -> Path:
    """A name behind those of the files that a folder has, also where the clock was set back."""
    now, last = f"{FILE}.{time.time_ns()}", max((path.name for path in folder.glob(f"{FILE}*")), default="")
    return folder / (now if now > last else f"{last}.1")


def _beginning(epoch: int) -> bytes:
    """A trial that goes on tells its epochs again: those written before give way, from this one on."""
    start = {"step": epoch, "session_log": {"status": "START"}}
    return _record(file_version=VERSION) + _record(**start)


def _epoch(found: EpochResult) -> bytes:
    values = {"accuracy": found.accuracy, "loss": found.loss, "train_loss": found.train_loss}
    summary = {"value": [{"tag": name, "simple_value": value} for name, value in values.items()]}
    return _record(step=found.epoch, summary=summary)


def _record(**fields: Any) -> bytes:
    """An event as it stands in a file, its checksums included."""
    from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]  made at import
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    RecordWriter(content).write(Event(wall_time=time.time(), **fields).SerializeToString())
    return content.getvalue()
