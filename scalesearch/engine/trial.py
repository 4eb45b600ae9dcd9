"""Trials inside a worker: build the network of each seed, train them step by step, checkpoint as often as pays."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple

import torch
from torch import nn

from scalesearch.blueprint import Architecture
from scalesearch.engine.work import Event, Failed, Finished, Kept, Noticed, Progress, Work
from scalesearch.errors import TrialDivergedError
from scalesearch.nets.architecture import build
from scalesearch.nets.blocks import start_near_identity
from scalesearch.nets.fused import fuse
from scalesearch.nets.lean import slim
from scalesearch.nets.stacked import stack
from scalesearch.proxy.checkpoint import Checkpoint, Results, damaged, read_checkpoint, write_checkpoint
from scalesearch.proxy.device import Shelf
from scalesearch.proxy.images import Images, open_images
from scalesearch.proxy.ranks import ALONE, Ranks
from scalesearch.proxy.train import Training, finite
from scalesearch.recipe import EpochResult, Recipe
from scalesearch.spec import Network
from scalesearch.trials import TrialKey

CHECKPOINTS = 0.01
"""Most of the time that is spent on checkpoints."""
SOONEST = 5.0
"""Least time from the start of a training to its first checkpoint, and between checkpoints [s]."""
WRITTEN = 2e8
"""Bytes that are written per second, until it is known."""


def train_trials(
    work: Work,
    shelf: Shelf,
    stopping: Callable[[], bool] = lambda: False,
    images: Images | None = None,
    ranks: Ranks | None = None,
) -> Iterator[list[Event]]:
    """Train from the last checkpoint, or from the start; yields what happened, often nothing, behind every step.

    A trial whose loss is no longer finite has failed; the others go on beside it.

    Args:
        work: what to train.
        shelf: where, and the images that are there.
        stopping: whether to write a checkpoint behind this step and end there.
        images: those of the work's folder, where it cannot be seen from here.
        ranks: processes that train it together, of which this is the first; the others follow. None = it alone.

    Raises:
        DataError: the prepared images are damaged.
    """
    training, identity = _started(work, shelf, images, ranks or ALONE)
    keeper = Keeper(work, training, identity)
    failed: set[TrialKey] = set()
    if broken := damaged(work.checkpoint):
        where = " and ".join(map(str, broken))
        yield [Noticed(f"{where} is damaged; the training goes on from what was kept before, or from its beginning")]
    for results in keeper.restored():
        yield _told(work, results, failed)
    training.share()
    events: list[Event] = []
    for results in training.steps():
        events = []
        if results is not None:
            keeper.results.append(results)
            events += _told(work, results, failed)
            if failed.issuperset(work.keys):
                training.end()
                yield events
                return
        if training.epoch == work.keys[0].rung:
            break
        is_stopped = stopping()
        if is_stopped or keeper.is_due:
            events += keeper.keep()
        if is_stopped:
            training.end()
            reason = f"stopped behind step {training.step}"
            yield [*events, *(Failed(key, reason, final=False, counts=False) for key in work.keys if key not in failed)]
            return
        yield events
    training.end()
    yield [*events, *(Finished(key) for key in work.keys if key not in failed)]


def follow_trials(work: Work, shelf: Shelf, ranks: Ranks, images: Images | None = None) -> None:
    """Train beside the first of the ranks, which decides, measures and writes, until it ends."""
    training, _ = _started(work, shelf, images, ranks)
    training.follow()


def _told(work: Work, results: Sequence[EpochResult], failed: set[TrialKey]) -> list[Event]:
    """What an epoch came to; trials that fail in it are added to those that have."""
    events: list[Event] = []
    for key, result in zip(work.keys, results, strict=True):
        if key in failed:
            continue
        try:
            events.append(Progress(key, finite(result)))
        except TrialDivergedError as error:
            failed.add(key)
            events.append(Failed(key, str(error), final=True))
    return events


def _started(work: Work, shelf: Shelf, images: Images | None, ranks: Ranks) -> tuple[Training, str]:
    """The training from its beginning, and what its checkpoints belong to."""
    images = images or open_images(work.data)
    torch.set_num_threads(work.threads)
    seeds = [key.seed for key in work.keys]
    module = module_of(work.network, work.recipe, seeds, shelf.device)
    memory = memory_of(shelf.device) // work.sharing
    data = shelf.images(images, resolution=work.network.resolution, memory=memory)
    training = Training(
        module,
        data,
        work.recipe,
        epochs=work.keys[0].rung,
        seeds=seeds,
        micro_batch=work.micro_batch,
        capture=isinstance(work.network, Network),  # what a user's module does may differ from step to step
        ranks=ranks,
    )
    return training, identity_of(work, images.fingerprint)


class Keeper:
    """The checkpoints of a training: written when it pays, and when one is asked for."""

    def __init__(self, work: Work, training: Training, identity: str) -> None:
        """Begin; `identity` is what the checkpoints belong to."""
        self.results: Results = []
        """Of the epochs that are trained."""
        self._work, self._training, self._identity = work, training, identity
        self._seconds = training.state.size / WRITTEN
        self._put_off()

    def restored(self) -> Results:
        """Put the training where its last checkpoint was; returns the results of the epochs before."""
        stored = read_checkpoint(self._work.checkpoint, self._identity)
        if stored is not None and self._training.fits(stored.tensors):  # a module's code may be another by now
            self._training.restore(stored.tensors, epoch=len(stored.results), step=stored.step)
            self.results += stored.results
        return list(self.results)

    @property
    def is_due(self) -> bool:
        """Whether to write one now; never asks a GPU anything."""
        return time.monotonic() >= self._due

    def keep(self) -> list[Event]:
        """Write one, or tell why it is done without."""
        start, step = time.monotonic(), self._training.step
        checkpoint = Checkpoint(tensors=self._training.tensors(), results=self.results, step=step)
        try:
            write_checkpoint(self._work.checkpoint, checkpoint, self._identity)
        except OSError as error:
            fault = f"no checkpoint can be written to {self._work.checkpoint.parent}: {error.strerror or error}"
            return [Noticed(f"{fault}; training goes on without")]
        finally:
            self._seconds = time.monotonic() - start
            self._put_off()
        return [Kept(key, step) for key in self._work.keys]

    def _put_off(self) -> None:
        self._due = time.monotonic() + max(SOONEST, self._seconds / CHECKPOINTS)


def module_of(network: Architecture, recipe: Recipe, seeds: Sequence[int], device: torch.device) -> nn.Module:
    """The network as the recipe starts it from a seed, several seeds stacked, in the form for the device."""
    each = [build(network, seed=seed) for seed in seeds]
    if recipe.near_identity:
        for module in each:
            start_near_identity(module)
    module = each[0] if len(each) == 1 else stack(each)
    return (fuse if device.type == "cuda" else slim)(module).to(device)


def memory_of(device: torch.device) -> int:
    """Bytes that the images of all trials on a device may take: a half of a GPU's memory, a quarter of the host's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1] // 2
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def identity_of(work: Work, fingerprint: str) -> str:
    """What a checkpoint belongs to: trials, network, recipe, images, and the ways of training that change bits."""
    recipe = json.dumps(work.recipe.to_dict(), sort_keys=True)
    ways = [str(work.threads), str(work.micro_batch)]
    parts = [*map(str, map(astuple, work.keys)), work.network.digest, recipe, fingerprint, *ways]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
