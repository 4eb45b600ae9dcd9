"""Trials inside a worker: build the network of each seed, train them epoch by epoch, checkpoint as often as pays."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple

import torch
from torch import nn

from scalesearch.blueprint import Architecture
from scalesearch.engine.work import Event, Failed, Finished, Progress, Work
from scalesearch.errors import TrialDivergedError
from scalesearch.nets.architecture import build
from scalesearch.nets.blocks import start_near_identity
from scalesearch.nets.fused import fuse
from scalesearch.nets.lean import slim
from scalesearch.nets.stacked import stack
from scalesearch.proxy.checkpoint import Results, read_checkpoint, write_checkpoint
from scalesearch.proxy.device import on_device
from scalesearch.proxy.images import Images, open_images
from scalesearch.proxy.train import Training, finite
from scalesearch.recipe import EpochResult, Recipe
from scalesearch.spec import Network

CHECKPOINTS = 0.05
"""Most of the time that is spent on checkpoints: epochs that are over sooner have none, the first and last apart."""


def train_trials(work: Work, device: torch.device, images: Images | None = None) -> Iterator[list[Event]]:
    """Train from the last checkpoint, or from the start; yields the events of every epoch, those of before first.

    A trial whose loss is no longer finite has failed; the others go on beside it.

    Raises:
        DataError: the prepared images are damaged.
    """
    failed: set[int] = set()
    for results in _epochs(work, device, images or open_images(work.data)):
        events: list[Event] = []
        for index, (key, result) in enumerate(zip(work.keys, results, strict=True)):
            if index in failed:
                continue
            try:
                events.append(Progress(key, finite(result)))
            except TrialDivergedError as error:
                failed.add(index)
                events.append(Failed(key, str(error), final=True))
        yield events
        if len(failed) == len(work.keys):
            return
    yield [Finished(key) for index, key in enumerate(work.keys) if index not in failed]


def _epochs(work: Work, device: torch.device, images: Images) -> Iterator[list[EpochResult]]:
    torch.set_num_threads(work.threads)
    seeds = [key.seed for key in work.keys]
    module = module_of(work.network, work.recipe, seeds, device)
    memory = memory_of(device) // work.sharing
    data = on_device(images, resolution=work.network.resolution, device=device, memory=memory)
    epochs = work.keys[0].rung
    training = Training(
        module,
        data,
        work.recipe,
        epochs=epochs,
        seeds=seeds,
        micro_batch=work.micro_batch,
        capture=isinstance(work.network, Network),  # what a user's module does may differ from step to step
    )
    results: Results = []
    identity = _identity(work, images.fingerprint)
    stored = read_checkpoint(work.checkpoint, identity)
    if stored is not None:
        tensors, results = stored
        training.restore(tensors, len(results))
        yield from results
    due = 0.0
    for found in training.results():
        results = [*results, found]
        start = time.monotonic()
        if start >= due or len(results) == epochs:
            write_checkpoint(work.checkpoint, training.state.tensors(), results, identity)
            due = time.monotonic() + (time.monotonic() - start) / CHECKPOINTS
        yield found


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


def _identity(work: Work, fingerprint: str) -> str:
    """Of a state: the trials, their network, their recipe, their images, and the ways of training that change bits."""
    recipe = json.dumps(work.recipe.to_dict(), sort_keys=True)
    ways = [str(work.threads), str(work.micro_batch)]
    parts = [*map(str, map(astuple, work.keys)), work.network.digest, recipe, fingerprint, *ways]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
