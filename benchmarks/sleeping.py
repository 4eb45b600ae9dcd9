"""A worker's trial with everything but the training: it sleeps for each epoch instead."""

from __future__ import annotations

import json
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch

from scalesearch.engine import trial
from scalesearch.engine.work import Event, Finished, Progress, Work
from scalesearch.proxy.device import Shelf
from scalesearch.proxy.images import Images, open_images
from scalesearch.proxy.ranks import Ranks
from scalesearch.proxy.train import Training
from scalesearch.recipe import EpochResult
from scalesearch.trials import TrialKey

NOISE = 0.5
"""Standard deviation of an accuracy between seeds [points]."""
TRUTH = "truth.json"
"""File in the run folder with the true accuracy of every proxy [%]."""
SECONDS = "SCALESEARCH_SECONDS"
"""Environment variable with the seconds of an epoch."""
SET_UP = ("network", "state")
"""Setting up what is trained."""
TRAINED = ("training", *SET_UP)
"""What is training, because any plain loop pays it too."""
IN_WORKERS = ("images", "checkpoint")
"""What a worker does for a trial besides."""


class Laps:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        """Start the clock."""
        self.found: dict[str, float] = defaultdict(float)
        self._mark = time.perf_counter()

    def lap(self, name: str) -> None:
        """Count the time since the last lap for something."""
        now = time.perf_counter()
        self.found[name] += now - self._mark
        self._mark = now


def sleep_instead(
    work: Work, shelf: Shelf, stopping: Callable[[], bool], images: Images | None = None, ranks: Ranks | None = None
) -> Iterator[list[Event]]:
    """In the place of `trial.train_trials`, with everything it does but the steps and the evaluation.

    Where the time went [s] is written beside the log of the trial.
    """
    torch.set_num_threads(work.threads)
    laps, [key] = Laps(), work.keys
    module = trial.module_of(work.network, work.recipe, [key.seed], shelf.device)
    laps.lap("network")
    images = images or open_images(work.data)
    memory = trial.memory_of(shelf.device) // work.sharing
    data = shelf.images(images, resolution=work.network.resolution, memory=memory)
    laps.lap("images")
    training = Training(module, data, work.recipe, epochs=key.rung, seeds=[key.seed])
    _fill_optimizer(training)
    laps.lap("state")
    keeper = trial.Keeper(work, training, str(key))
    keeper.restored()
    laps.lap("checkpoint")
    for epoch in range(1, key.rung + 1):
        time.sleep(float(os.environ[SECONDS]))
        keeper.results.append([_drawn(work, key, epoch)])
        laps.lap("training")
        kept = keeper.keep() if stopping() or keeper.is_due else []
        laps.lap("checkpoint")
        events = [Progress(key, keeper.results[-1][0]), *kept]
        if epoch < key.rung:
            yield events
            laps.lap("told")
    work.log.with_suffix(".json").write_text(json.dumps(laps.found), encoding="utf-8")
    yield [*events, Finished(key)]


def _fill_optimizer(training: Training) -> None:
    """A step without gradients: a checkpoint holds the optimizer's state too."""
    for weight in training.state.module.parameters():
        weight.grad = torch.zeros_like(weight)
    training.state.optimizer.step()


def _drawn(work: Work, key: TrialKey, epoch: int) -> EpochResult:
    truth = json.loads((work.data.parent / TRUTH).read_text(encoding="utf-8"))
    accuracy = random.Random(f"{key} {epoch}").gauss(truth[key.proxy], NOISE)
    return EpochResult(epoch=epoch, train_loss=1.0, accuracy=accuracy, loss=1.0)
