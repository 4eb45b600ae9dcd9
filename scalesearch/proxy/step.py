"""One step of a training on tensors that stay where they are, so that a GPU can be told once and repeats it alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional

from scalesearch.proxy.device import DeviceImages
from scalesearch.proxy.draws import augmented
from scalesearch.proxy.ranks import ALONE, Ranks
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

    def __init__(self, state: State, data: DeviceImages, *, batch: int, capture: bool, ranks: Ranks = ALONE) -> None:
        """Make room for a batch.

        Args:
            state: what is trained; the gradients of its micro-batches are summed.
            data: where the batches come from.
            batch: images of each seed.
            capture: whether a GPU may repeat the step from a graph: its module must do the same at every step.
            ranks: who trains on the other micro-batches.
        """
        _, channels, side = data.train.shape
        self._state, self._data, self._ranks = state, data, ranks
        self._parts = ranks.share(torch.arange(batch).tensor_split(-(-batch // (state.micro_batch or batch))))
        with data.device:
            self._pixels = torch.empty((state.seeds, batch, channels, side, side), dtype=torch.uint8)
            self._labels = torch.empty((state.seeds, batch), dtype=torch.int64)
            self._shifts = torch.empty((state.seeds, batch, 2), dtype=torch.int64)
            self._mirrored = torch.empty((state.seeds, batch), dtype=torch.bool)
            self.losses = torch.zeros(state.seeds)
            """(seeds,): sum over the steps since it was last set to zero."""
        # no reference back to the step: a cycle would keep images and graph alive until the next full collection
        is_captured = capture and data.device.type == "cuda" and ranks.count == 1
        self._graph = Graph(data.device) if is_captured else None

    def __call__(self, pixels: Tensor, labels: Tensor, shifts: Tensor, mirrored: Tensor) -> None:
        """Train on a batch: pixels (seeds * batch, channels, side, side), the others by (seeds, batch)."""
        self._pixels.copy_(pixels.view_as(self._pixels))
        self._labels.copy_(labels)
        self._shifts.copy_(shifts)
        self._mirrored.copy_(mirrored)
        if self._graph is None:
            self._work()
        else:
            self._graph.run(self._work)

    def _work(self) -> None:
        self._state.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros_like(self.losses)
        for part in self._parts:
            losses = self._forward(slice(int(part[0]), int(part[-1]) + 1))
            losses.sum().backward()
            sums += losses.detach()
        self._ranks.add_up(sums, self._state.module)
        self.losses += sums
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


class Graph:
    """Work on a GPU that is run kernel by kernel at first, then captured once and repeated."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        """Of the first runs and of the capture: they share its memory."""
        self._captured: torch.cuda.CUDAGraph | None = None
        self._runs = 0

    def run(self, work: Callable[[], None]) -> None:
        """Do the work once; it must be the same at every call."""
        if self._captured is None and self._runs == WARM_UP:
            self._captured = self._capture(work)
        if self._captured is not None:
            self._captured.replay()
            return
        self._runs += 1
        with self._beside(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*capturable.*", category=UserWarning)  # it will be captured
            work()

    def _capture(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # other threads of this process may pin memory meanwhile, for the batches to come
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            work()
        return graph

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """On the stream of the capture, as it asks of the runs before it."""
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
