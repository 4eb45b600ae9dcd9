"""One step of a training on tensors that stay where they are, so that a GPU can be told once and repeats it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional

from scalesearch.proxy.device import DeviceImages
from scalesearch.proxy.draws import augmented
from scalesearch.proxy.state import State

WARM_UP = 3
"""Steps that are trained kernel by kernel before one is captured: libraries choose their algorithms in them."""


def numerics(device: torch.device) -> AbstractContextManager[object]:
    """bf16 where matrix products are on a GPU, fp32 on a CPU."""
    if device.type != "cuda":
        return nullcontext()
    return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)  # a cache would outlive the captured step


class Step:
    """Forward, backward, optimizer and average over one batch of each seed."""

    def __init__(self, state: State, data: DeviceImages, *, batch: int, micro_batch: int) -> None:
        """Make room for a batch.

        Args:
            state: what is trained.
            data: where the batches come from.
            batch: images of each seed.
            micro_batch: images of each seed that are in flight at a time; their gradients are summed.
        """
        _, channels, side = data.train.shape
        self._state, self._data = state, data
        self._spans = [slice(start, start + micro_batch) for start in range(0, batch, micro_batch)]
        with data.device:
            self._pixels = torch.empty((state.seeds, batch, channels, side, side), dtype=torch.uint8)
            self._labels = torch.empty((state.seeds, batch), dtype=torch.int64)
            self._shifts = torch.empty((state.seeds, batch, 2), dtype=torch.int64)
            self._mirrored = torch.empty((state.seeds, batch), dtype=torch.bool)
            self.losses = torch.zeros(state.seeds)
            """(seeds,): sum over the steps since it was last set to zero."""
        self._run = _Captured(self._work, data.device) if data.device.type == "cuda" else self._work

    def __call__(self, pixels: Tensor, labels: Tensor, shifts: Tensor, mirrored: Tensor) -> None:
        """Train on a batch: pixels (seeds * batch, channels, side, side), the others by (seeds, batch)."""
        self._pixels.copy_(pixels.view_as(self._pixels))
        self._labels.copy_(labels)
        self._shifts.copy_(shifts)
        self._mirrored.copy_(mirrored)
        self._run()

    def _work(self) -> None:
        self._state.optimizer.zero_grad(set_to_none=True)
        for span in self._spans:
            losses = self._forward(span)
            losses.sum().backward()
            self.losses += losses.detach()
        self._state.optimizer.step()
        self._state.average()

    def _forward(self, span: slice) -> Tensor:
        """(seeds,): what the images of a span add to the mean loss of the batch."""
        labels, recipe = self._labels[:, span], self._state.recipe
        images = augmented(
            self._pixels[:, span].flatten(0, 1),
            self._shifts[:, span].flatten(0, 1),
            self._mirrored[:, span].flatten(),
            recipe,
        )
        with numerics(self._data.device):
            logits = self._state.module(beside(self._data.normalised(images), self._state.seeds))
            each = functional.cross_entropy(
                by_seed(logits, self._state.seeds).flatten(0, 1),
                labels.flatten(),
                reduction="none",
                label_smoothing=recipe.label_smoothing,
            )
        return each.view(labels.shape).sum(1) / self._labels.shape[1]


def beside(images: Tensor, seeds: int) -> Tensor:
    """What stacked networks take: (seeds * batch, 3, side, side) -> (batch, seeds * 3, side, side), channels_last."""
    if seeds == 1:
        return images
    _, channels, *side = images.shape
    apart = images.view(seeds, -1, channels, *side).transpose(0, 1)
    return apart.reshape(-1, seeds * channels, *side).contiguous(memory_format=torch.channels_last)


def by_seed(logits: Tensor, seeds: int) -> Tensor:
    """Logits as (seeds, batch, classes), of one network (batch, classes) or of stacked ones (batch, seeds, classes)."""
    return logits.unsqueeze(0) if seeds == 1 else logits.transpose(0, 1)


class _Captured:
    """Work that is run kernel by kernel at first, then captured as a CUDA graph and repeated from it."""

    def __init__(self, work: Callable[[], None], device: torch.device) -> None:
        self._work = work
        self._device = device
        self._graph: torch.cuda.CUDAGraph | None = None
        self._runs = 0

    def __call__(self) -> None:
        if self._graph is None and self._runs == WARM_UP:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._work()
        if self._graph is not None:
            self._graph.replay()
            return
        self._runs += 1
        with _aside(self._device):
            self._work()


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """A side stream, as a capture asks of the runs before it."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)
