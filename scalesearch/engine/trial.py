"""One trial inside a worker: build the network, train it epoch by epoch, checkpoint after each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import torch

from scalesearch.engine.work import Work
from scalesearch.nets.architecture import build
from scalesearch.nets.blocks import start_near_identity
from scalesearch.proxy.checkpoint import read_checkpoint, write_checkpoint
from scalesearch.proxy.device import DeviceImages, on_device
from scalesearch.proxy.images import Images, open_images
from scalesearch.proxy.train import train
from scalesearch.recipe import EpochResult


def train_trial(work: Work, device: torch.device) -> Iterator[EpochResult]:
    """Train from the last checkpoint, or from the start; yields every epoch of the trial, checkpointed ones first.

    Raises:
        TrialDivergedError: the loss is not finite.
        DataError: the prepared images are damaged.
    """
    module = build(work.network, seed=work.key.seed)
    if work.recipe.near_identity:
        start_near_identity(module)
    module.to(device)
    images = open_images(work.data)
    data = _on_device(images, work.network.resolution, device)
    training, epochs = train(module, data, work.recipe, epochs=work.key.rung, seed=work.key.seed)
    results: list[EpochResult] = []
    identity = _identity(work, images.fingerprint)
    stored = read_checkpoint(work.checkpoint, identity)
    if stored is not None:
        tensors, results = stored
        training.restore(tensors, len(results))
        yield from results
    for result in epochs:
        results = [*results, result]
        write_checkpoint(work.checkpoint, training.tensors(), results, identity)
        yield result


def _on_device(images: Images, resolution: int, device: torch.device) -> DeviceImages:
    return on_device(
        (torch.tensor(images.train_images), torch.tensor(images.train_labels)),
        (torch.tensor(images.validation_images), torch.tensor(images.validation_labels)),
        resolution=resolution,
        device=device,
    )


def _identity(work: Work, fingerprint: str) -> str:
    """Of a state: the trial, its network, its recipe, its images."""
    parts = [str(work.key), work.network.digest, json.dumps(work.recipe.to_dict(), sort_keys=True), fingerprint]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
