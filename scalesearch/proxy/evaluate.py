"""Accuracy and loss on the validation images, with batch-norm statistics measured first."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalesearch.proxy.device import DeviceImages
from scalesearch.proxy.state import State
from scalesearch.proxy.step import by_seed, numerics

BATCH = {"cpu": 50, "cuda": 1000}
"""Most images of all seeds per step of an evaluation: maps that a CPU's caches hold (250 images take twice the time of
50, each), more of them where a step costs launches."""
NORM_BATCH = {"cpu": 50, "cuda": 250}
"""Most images of each seed whose batch-norm statistics are taken together, however many seeds are stacked: what is
measured of a seed must not depend on those beside it, and few images understate a variance."""
WITHOUT_GRADIENTS = 4
"""Times the images of a micro-batch that surely fit where nothing is kept for a backward pass."""


def batch_of(state: State, device: torch.device) -> int:
    """Images of each seed per step without gradients."""
    return _fitting(BATCH[device.type] // state.seeds, state)


def _fitting(most: int, state: State) -> int:
    return most if state.micro_batch is None else max(2, min(most, WITHOUT_GRADIENTS * state.micro_batch))


Measured = tuple[list[float], list[float]]
"""Of each seed, accuracy [%] and cross-entropy [nats]."""


def evaluate(state: State, data: DeviceImages) -> Measured:
    """Accuracy and cross-entropy on the validation images."""
    batches = evaluating(state, data)
    while True:
        try:
            next(batches)
        except StopIteration as end:
            return end.value


@torch.no_grad()
def evaluating(state: State, data: DeviceImages) -> Generator[None, None, Measured]:
    """As `evaluate`, batch by batch; one that is not gone through to the end changes no training."""
    module, device = state.evaluated, data.device
    yield from _estimating_norms(module, data, state)
    module.eval()
    correct = torch.zeros(state.seeds, dtype=torch.int64, device=device)
    loss = torch.zeros(state.seeds, dtype=torch.float64, device=device)
    parts = torch.arange(len(data.validation_labels)).split(batch_of(state, device))
    for part, pixels in zip(parts, data.validation.feed(parts), strict=True):
        labels = data.validation_labels[part[0] : part[-1] + 1].expand(state.seeds, -1)
        with numerics(device):
            logits = by_seed(module(_repeated(data.normalised(pixels), state.seeds)), state.seeds)
        correct += (logits.argmax(2) == labels).sum(1)
        each = functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="none")
        loss += each.view(labels.shape).sum(1)
        yield
    total = len(data.validation_labels)
    return [100 * count / total for count in correct.tolist()], [value / total for value in loss.tolist()]


def _repeated(images: Tensor, seeds: int) -> Tensor:
    """The same images for every seed: (batch, 3, side, side) -> (batch, seeds * 3, side, side), in channels_last."""
    return images if seeds == 1 else images.repeat(1, seeds, 1, 1).contiguous(memory_format=torch.channels_last)


def _estimating_norms(module: nn.Module, data: DeviceImages, state: State) -> Generator[None, None, None]:
    """Running statistics as the plain mean over batches of `norm_images` training images, the same at every call."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    for batches, images in enumerate(norm_batches(data, state)):
        for norm in norms:
            norm.momentum = 1 / (batches + 1)  # a plain mean; torch's own way to it asks the device for its count
        with numerics(images.device):
            module(_repeated(images, state.seeds))
        yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def norm_batches(data: DeviceImages, state: State) -> Iterator[Tensor]:
    """The normalised images that batch-norm statistics are measured on, in batches that differ by one image at most."""
    chosen = data.sample(state.recipe.norm_images)
    parts = chosen.tensor_split(math.ceil(len(chosen) / _fitting(NORM_BATCH[data.device.type], state)))
    return map(data.normalised, data.train.feed(parts))
