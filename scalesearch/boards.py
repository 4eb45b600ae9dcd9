"""Learning curves for TensorBoard: one run of it for every trial, written while a search goes on."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from scalesearch.engine.work import Event, Failed, Finished, Progress
from scalesearch.errors import PlanError
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
        for writer in self._writers.values():
            writer.close()

    def happened(self, event: Event) -> None:
        """Write an epoch: accuracy [%], and the losses [nats] on validation and training images."""
        if isinstance(event, Progress):
            if event.key not in self._writers:
                self._writers[event.key] = self._open(str(self._folder / str(event.key)))
            writer, found = self._writers[event.key], event.result
            for name in ("accuracy", "loss", "train_loss"):
                writer.add_scalar(name, getattr(found, name), found.epoch)
            writer.flush()
        elif isinstance(event, Finished) or (isinstance(event, Failed) and event.final):
            writer = self._writers.pop(event.key, None)
            if writer is not None:
                writer.close()
