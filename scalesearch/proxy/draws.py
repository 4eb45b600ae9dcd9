"""What chance decides in an epoch: drawn at once, on the CPU, so that all devices and ways see the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from scalesearch.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Draws:
    """The batches of one epoch, for several seeds beside each other."""

    order: Tensor
    """(steps, seeds, batch): index of the training image, int64 on the CPU."""
    shifts: Tensor
    """(steps, seeds, batch, 2): row and column of the crop in the padded image [px]."""
    mirrored: Tensor
    """(steps, seeds, batch): whether the image is flipped."""


def steps_per_epoch(images: int, recipe: Recipe) -> int:
    """Full batches of one epoch; a set smaller than a batch is one batch."""
    return max(1, images // recipe.batch_size)


def padding(recipe: Recipe, side: int) -> int:
    """Black that is let in on each side before the crop [px]."""
    return round(recipe.crop * side)


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of all random numbers of one epoch: a training resumed at it has the bits it would have had."""
    return seed * 1_000_003 + epoch


def draw(seeds: Sequence[int], epoch: int, *, images: int, side: int, recipe: Recipe) -> Draws:
    """The draws of an epoch; those of a seed do not depend on the seeds beside it.

    Args:
        seeds: of the trainings.
        epoch: epochs trained before.
        images: training images.
        side: of an image [px].
        recipe: batch size and augmentation.
    """
    each = [_drawn(epoch_seed(seed, epoch), images, 2 * padding(recipe, side), recipe) for seed in seeds]
    return Draws(*(torch.stack(parts, 1) for parts in zip(*each, strict=True)))


def _drawn(seed: int, images: int, most_shift: int, recipe: Recipe) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    steps = steps_per_epoch(images, recipe)
    order = torch.randperm(images, generator=generator)[: steps * recipe.batch_size].view(steps, -1)
    shifts = torch.randint(0, most_shift + 1, (*order.shape, 2), generator=generator)
    chance = 0.5 if recipe.flip else 0.0
    return order, shifts, torch.rand(order.shape, generator=generator) < chance


def augmented(images: Tensor, shifts: Tensor, mirrored: Tensor, recipe: Recipe) -> Tensor:
    """Images (count, channels, side, side) cropped by `shifts` (count, 2), flipped where `mirrored` (count,)."""
    pad = padding(recipe, images.shape[-1])
    if pad:
        images = _cropped(images, pad, shifts)
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images) if recipe.flip else images


def _cropped(images: Tensor, pad: int, shifts: Tensor) -> Tensor:
    count, _, side, _ = images.shape
    padded = functional.pad(images, (pad, pad, pad, pad))
    span = torch.arange(side, device=images.device)
    rows, columns = shifts[:, :1] + span, shifts[:, 1:] + span
    which = torch.arange(count, device=images.device).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[which, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)
