"""Images as uint8 tensors on the device: resized once per proxy, augmented and normalised in batches there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from scalesearch.recipe import Recipe

NORMALISATION_IMAGES = 4096
"""At most so many images, evenly spread over the set, measure its mean and deviation."""


@dataclass(frozen=True, slots=True)
class DeviceImages:
    """Training and validation images of one proxy, on its device.

    Images are uint8 of shape (count, channels, resolution, resolution) with 1 or 3 channels, labels int64 (count,).
    """

    train_images: Tensor
    train_labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor
    mean: Tensor
    """Per channel, of the training images [0..255]."""
    deviation: Tensor
    """Per channel, of the training images [0..255]."""

    def normalised(self, images: Tensor) -> Tensor:
        """Float images (batch, 3, resolution, resolution) in channels_last; grey images repeat their channel."""
        shape = (1, -1, 1, 1)
        values = (images.float() - self.mean.view(shape)) / self.deviation.view(shape)
        return values.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    def sample(self, count: int) -> Tensor:
        """Indices of at most `count` training images: a fixed random choice, however the set is sorted."""
        order = torch.randperm(len(self.train_labels), generator=torch.Generator().manual_seed(0))
        return order[:count].to(self.train_images.device)

    def augmented(self, batch: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
        """The training images of the indices `batch`, cropped, mirrored and normalised."""
        images = self.train_images[batch]
        pad = round(recipe.crop * images.shape[-1])
        if pad:
            images = _cropped(images, pad, generator)
        if recipe.flip:
            mirrored = torch.rand(len(images), generator=generator, device=images.device) < 0.5
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
        return self.normalised(images)


def _cropped(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    count, _, side, _ = images.shape
    padded = functional.pad(images, (pad, pad, pad, pad))
    offsets = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=generator, device=images.device)
    rows, columns = offsets + torch.arange(side, device=images.device)
    which = torch.arange(count, device=images.device).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[which, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)


def resized(images: Tensor, resolution: int) -> Tensor:
    """uint8 images of another side, bilinear with antialiasing; untouched where the side is right already."""
    if images.shape[-1] == resolution:
        return images
    side = (resolution, resolution)
    chunks = [
        functional.interpolate(chunk.float(), side, mode="bilinear", antialias=True).round_().clamp_(0, 255).byte()
        for chunk in images.split(4096)
    ]
    return torch.cat(chunks)


def on_device(
    train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], *, resolution: int, device: torch.device
) -> DeviceImages:
    """Move (images, labels) pairs to the device at a proxy's resolution and measure the normalisation there."""
    train_images = resized(train[0].to(device), resolution)
    pixels = train_images[:: math.ceil(len(train_images) / NORMALISATION_IMAGES)].float()
    return DeviceImages(
        train_images=train_images,
        train_labels=train[1].to(device),
        validation_images=resized(validation[0].to(device), resolution),
        validation_labels=validation[1].to(device),
        mean=pixels.mean((0, 2, 3)),
        deviation=pixels.std((0, 2, 3)).clamp_min(1.0),
    )
