"""Learning curves for TensorBoard: one run of it for every trial, written while a search goes on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from scalesearch.engine.work import Event, Failed, Finished, Progress
from scalesearch.errors import PlanError
from scalesearch.recipe import EpochResult
from scalesearch.trials import TrialKey

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"


class Boards:
    """Curves under a run folder; a trial that is taken up again goes on in the same place."""

    def __init__(self, folder: Path) -> None:
        """Prepare to write under `folder`.

        Raises:
            PlanError: TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            mend = "install it with `pip install scalesearch[tensorboard]`, or leave --log out"
            raise PlanError("--log tensorboard: TensorBoard is not installed", mend=mend) from None
        self._open = SummaryWriter
        self._folder = folder / FOLDER
        self._writers: dict[TrialKey, SummaryWriter] = {}

    def __enter__(self) -> Boards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for key in list(self._writers):
            self._close(key)

    def happened(self, event: Event) -> None:
        """Write an epoch: accuracy [%], and the losses [nats] on validation and training images.

        A curve is a copy: what finds no room on the disk is left out.
        """
        if isinstance(event, Progress):
            try:
                self._write(event.key, event.result)
            except OSError:
                self._writers.pop(event.key, None)  # it takes nothing more
        elif isinstance(event, Finished | Failed):
            self._close(event.key)

    def _write(self, key: TrialKey, found: EpochResult) -> None:
        if key not in self._writers:  # a trial that goes on tells its epochs again: those written before give way
            self._writers[key] = self._open(str(self._folder / str(key)), purge_step=found.epoch)
        for name in ("accuracy", "loss", "train_loss"):
            self._writers[key].add_scalar(name, getattr(found, name), found.epoch)
        self._writers[key].flush()

    def _close(self, key: TrialKey) -> None:
        if key in self._writers:
            with suppress(OSError):
                self._writers.pop(key).close()
