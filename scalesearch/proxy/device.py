"""The images of one proxy where it is trained: whole on its device, or streamed there from disk in time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
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
KEPT = 4
"""Images of earlier trials take at most one in so many of the bytes that a trial's images may take."""
CHUNK_BYTES = 2**28
"""Memory of the images resized at a time, as floats [bytes]."""


class Pixels(Protocol):
    """uint8 images of one side, handed out in batches on one device."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(count, channels, resolution)."""
        ...

    def feed(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """For each batch of indices (n,) on the CPU, its images (n, channels, resolution, resolution)."""
        ...

    def every(self, step: int) -> Iterator[Tensor]:
        """Each `step`-th image, in order, some at a time: (n, channels, resolution, resolution)."""
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

    def every(self, step: int) -> Iterator[Tensor]:
        """See `Pixels`."""
        yield from self.images[::step].split(_chunk(*self.images.shape[1:3]))


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
        stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        used: deque[torch.cuda.Event] = deque()
        with ThreadPoolExecutor(AHEAD) as pool:
            for read in _ahead(pool, self._read, batches):
                yield self._moved(read, stream)
                if stream is not None:  # no more batches on the device than there are on the way to it
                    used.append(torch.cuda.Event())
                    used[-1].record(torch.cuda.current_stream(self.device))
                    if len(used) > AHEAD:
                        used.popleft().synchronize()

    def every(self, step: int) -> Iterator[Tensor]:
        """See `Pixels`."""
        return _chunks(self.source[::step], self.resolution, self.device)

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


def _ahead(pool: ThreadPoolExecutor, read: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """What is read of the batches, in order, some of them before they are asked for."""
    waiting: deque[Future[Tensor]] = deque()
    for batch in batches:
        waiting.append(pool.submit(read, batch))
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


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
        for chunk in images.split(_chunk(images.shape[1], max(resolution, images.shape[-1])))
    ]
    return torch.cat(chunks)


def _chunk(channels: int, side: int) -> int:
    """Images that are resized at a time."""
    return max(1, CHUNK_BYTES // (4 * channels * side**2))


def on_device(images: Images, *, resolution: int, device: torch.device, memory: int) -> DeviceImages:
    """The images of a study at a proxy's resolution, with the normalisation measured there.

    Args:
        images: memory maps, or arrays.
        resolution: of the proxy's input [px].
        device: where it is trained.
        memory: bytes that the images may take on the device; a larger set is streamed.
    """
    parts = images.train_images, images.validation_images
    taken = taken_by(images, resolution)
    train, validation = (
        _resident(part, resolution, device) if taken <= memory else Streamed(part, resolution, device) for part in parts
    )
    mean, deviation = _normalisation(train, device)
    return DeviceImages(
        train=train,
        train_labels=_moved(images.train_labels, device),
        validation=validation,
        validation_labels=_moved(images.validation_labels, device),
        mean=mean,
        deviation=deviation,
    )


def taken_by(images: Images, resolution: int) -> int:
    """Bytes that the images take at a resolution."""
    parts = images.train_images, images.validation_images
    return sum(len(part) * part.shape[1] for part in parts) * resolution**2


def _normalisation(pixels: Pixels, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, in whole numbers until the end: exact, however chunked."""
    count, channels, _ = pixels.shape
    found = torch.zeros(channels, 256, dtype=torch.int64, device=device)
    for chunk in pixels.every(math.ceil(count / NORMALISATION_IMAGES)):
        found += torch.stack(
            [torch.bincount(chunk[:, channel].flatten(), minlength=256) for channel in range(channels)]
        )
    values, seen = torch.arange(256, device=device), found[0].sum()
    mean, square = (found * values).sum(1).double() / seen, (found * values**2).sum(1).double() / seen
    variance = (square - mean**2).clamp_min(0) * seen / (seen - 1).clamp_min(1)
    return mean.float(), variance.sqrt().clamp_min(1.0).float()


def _resident(source: Array, resolution: int, device: torch.device) -> Resident:
    """All images at the resolution, moved in chunks: at no time twice on the device."""
    count, channels = source.shape[:2]
    images = torch.empty((count, channels, resolution, resolution), dtype=torch.uint8, device=device)
    start = 0
    for chunk in _chunks(source, resolution, device):
        images[start : start + len(chunk)] = chunk
        start += len(chunk)
    return Resident(images)


def _chunks(source: Array, resolution: int, device: torch.device) -> Iterator[Tensor]:
    """The images at the resolution, some at a time."""
    size = _chunk(source.shape[1], max(resolution, source.shape[-1]))
    for start in range(0, len(source), size):
        yield resized(_moved(source[start : start + size], device), resolution)


def _moved(array: Array, device: torch.device) -> Tensor:
    return torch.tensor(array).to(device)  # a copy: memory maps are read-only


class Shelf:
    """A device, and images that lie there for later trials of the same resolution."""

    def __init__(self, device: torch.device) -> None:
        """Empty."""
        self.device = device
        self._kept: dict[tuple[str, int, int], tuple[int, DeviceImages]] = {}

    @classmethod
    def opened(cls, name: str) -> Shelf:
        """On `cpu` or `cuda:<index>`, which is this process's own from now on.

        cuDNN tries its algorithms on every shape that it meets: those of a proxy's steps never change.
        """
        device = torch.device(name)
        if device.type == "cuda":
            torch.cuda.set_device(device)
            torch.backends.cudnn.benchmark = True
        return cls(device)

    def images(self, images: Images, *, resolution: int, memory: int) -> DeviceImages:
        """See `on_device`. What is kept for later takes at most a quarter of the memory; the oldest leaves first."""
        key = images.fingerprint, resolution, memory
        found = self._kept.pop(key, None)
        taken = taken_by(images, resolution)
        if found is None:
            while self._kept and taken + sum(size for size, _ in self._kept.values()) > memory // KEPT:
                del self._kept[next(iter(self._kept))]
            found = taken, on_device(images, resolution=resolution, device=self.device, memory=memory)
        if taken <= memory // KEPT:
            self._kept[key] = found
        return found[1]
