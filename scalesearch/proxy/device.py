"""The images of one proxy where it is trained: whole on its device, or streamed there from disk in time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from scalesearch.proxy.images import Array, Images

NORMALISATION_IMAGES = 4096
"""At most so many images, evenly spread over the set, measure its mean and deviation."""
AHEAD = 4
"""Batches that are read before they are needed."""
CHUNK = 4096
"""Images resized at a time."""


class Pixels(Protocol):
    """uint8 images of one side, handed out in batches on one device."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(count, channels, resolution)."""
        ...

    def feed(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """For each batch of indices (n,) on the CPU, its images (n, channels, resolution, resolution)."""
        ...


@dataclass(frozen=True, slots=True)
class Resident:
    """Images that lie on the device as a whole."""

    images: Tensor
    """uint8 (count, channels, resolution, resolution)."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(count, channels, resolution)."""
        count, channels, _, side = self.images.shape
        return count, channels, side

    def feed(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """See `Pixels`."""
        for batch in batches:
            yield self.images[batch.to(self.images.device, non_blocking=True)]


@dataclass(frozen=True, slots=True)
class Streamed:
    """Images that are read from a memory map and resized on the device, some batches ahead of their use."""

    source: Array
    """uint8 (count, channels, side, side), a memory map."""
    resolution: int
    device: torch.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """(count, channels, resolution)."""
        return len(self.source), self.source.shape[1], self.resolution

    def feed(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """See `Pixels`; threads read while the device works on what it has."""
        coming = iter(batches)
        stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        with ThreadPoolExecutor(AHEAD) as pool:
            waiting: deque[Future[Tensor]] = deque()
            for batch in coming:
                waiting.append(pool.submit(self._read, batch))
                if len(waiting) > AHEAD:
                    yield self._moved(waiting.popleft().result(), stream)
            while waiting:
                yield self._moved(waiting.popleft().result(), stream)

    def _read(self, batch: Tensor) -> Tensor:
        read = torch.from_numpy(self.source[batch.numpy()])
        return read.pin_memory() if self.device.type == "cuda" else read

    def _moved(self, images: Tensor, stream: torch.cuda.Stream | None) -> Tensor:
        if stream is None:
            return resized(images, self.resolution)
        with torch.cuda.stream(stream):  # copies run beside the training
            moved = images.to(self.device, non_blocking=True)
        now = torch.cuda.current_stream(self.device)
        now.wait_stream(stream)
        moved.record_stream(now)
        return resized(moved, self.resolution)


@dataclass(frozen=True, slots=True)
class DeviceImages:
    """Training and validation images of one proxy, for its device. Labels are int64 of shape (count,)."""

    train: Pixels
    train_labels: Tensor
    validation: Pixels
    validation_labels: Tensor
    mean: Tensor
    """Per channel, of the training images [0..255]."""
    deviation: Tensor
    """Per channel, of the training images [0..255]."""

    @property
    def device(self) -> torch.device:
        """Where the images are handed out."""
        return self.mean.device

    def normalised(self, images: Tensor) -> Tensor:
        """Float images (batch, 3, resolution, resolution) in channels_last; grey images repeat their channel."""
        shape = (1, -1, 1, 1)
        values = (images.float() - self.mean.view(shape)) / self.deviation.view(shape)
        return values.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    def sample(self, count: int) -> Tensor:
        """Indices of at most `count` training images: a fixed random choice, however the set is sorted."""
        return torch.randperm(len(self.train_labels), generator=torch.Generator().manual_seed(0))[:count]


def resized(images: Tensor, resolution: int) -> Tensor:
    """uint8 images of another side, bilinear with antialiasing; untouched where the side is right already."""
    if images.shape[-1] == resolution:
        return images
    side = (resolution, resolution)
    chunks = [
        functional.interpolate(chunk.float(), side, mode="bilinear", antialias=True).round_().clamp_(0, 255).byte()
        for chunk in images.split(CHUNK)
    ]
    return torch.cat(chunks)


def on_device(images: Images, *, resolution: int, device: torch.device, memory: int) -> DeviceImages:
    """The images of a study at a proxy's resolution, with the normalisation measured there.

    Args:
        images: memory maps, or arrays.
        resolution: of the proxy's input [px].
        device: where it is trained.
        memory: bytes that the images may take on the device; a larger set is streamed.
    """
    evenly = images.train_images[:: math.ceil(len(images.train_images) / NORMALISATION_IMAGES)]
    pixels = resized(_moved(evenly, device), resolution).float()
    parts = images.train_images, images.validation_images
    taken = sum(len(part) * part.shape[1] for part in parts) * resolution**2
    train, validation = (
        _resident(part, resolution, device) if taken <= memory else Streamed(part, resolution, device) for part in parts
    )
    return DeviceImages(
        train=train,
        train_labels=_moved(images.train_labels, device),
        validation=validation,
        validation_labels=_moved(images.validation_labels, device),
        mean=pixels.mean((0, 2, 3)),
        deviation=pixels.std((0, 2, 3)).clamp_min(1.0),
    )


def _resident(source: Array, resolution: int, device: torch.device) -> Resident:
    """All images at the resolution, moved in chunks: at no time twice on the device."""
    count, channels = source.shape[:2]
    images = torch.empty((count, channels, resolution, resolution), dtype=torch.uint8, device=device)
    for start in range(0, count, CHUNK):
        images[start : start + CHUNK] = resized(_moved(source[start : start + CHUNK], device), resolution)
    return Resident(images)


def _moved(array: Array, device: torch.device) -> Tensor:
    return torch.tensor(array).to(device)  # a copy: memory maps are read-only
