"""What the benchmarks of training steps share: rotating batches of real images, our step on them, seconds and bytes."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from measuring import Row
from torch import Tensor, nn

from scalesearch.cost import count
from scalesearch.dataset.embedded import embedded_file
from scalesearch.proxy.device import DeviceImages, on_device
from scalesearch.proxy.draws import draw
from scalesearch.proxy.images import Images
from scalesearch.proxy.state import State
from scalesearch.proxy.step import WARM_UP, Step
from scalesearch.recipe import Recipe
from scalesearch.spec import Network

BATCHES = 8
"""That are trained on in turn."""
READY = WARM_UP + 2
"""Steps after which ours is captured and has been repeated from the capture once."""
LEAST_PAIRS = 5
"""Repetitions from which the worst pair bounds the median: n of them all miss its lower side with chance 2^-n."""
PASSES = {"ours": 14.5, "compiled": 16.1, "eager": 24.4}
"""Elements read or written per output element of the convolutions: a model of a step, not a measurement.

Convolutions take 6 (input and output, forward and for both gradients), batch norm with its activation 3 forward and 5
backward. Eager writes and reads activation and squeeze-excite of their own; compiled is batch norm, activation and
pooling in one pass each, counted over the graph of B0.
"""
COPIED = {"cpu": 1 << 26, "cuda": 1 << 30}
"""Bytes of the tensor whose copying measures the bandwidth: beyond any cache."""
COPIES = 20


class Ours:
    """Our training step on rotating batches: calling it trains one."""

    def __init__(
        self, module: nn.Module, recipe: Recipe, data: DeviceImages, *, seeds: Sequence[int] = (0,), graph: bool = True
    ) -> None:
        """Set up the step of one network, or of as many stacked ones as there are seeds.

        Args:
            module: on the device of the images.
            recipe: hyper-parameters; its batch times `BATCHES` is how many images there are.
            data: the images.
            seeds: of order and augmentation, one of each network.
            graph: whether the step is captured on a GPU; otherwise every kernel is launched each time.
        """
        self.state = State(module.train(), recipe, seeds=len(seeds))
        self._step = Step(self.state, data, batch=recipe.batch_size, capture=graph)
        self._batches = batches(data, recipe, seeds)
        self._done = 0

    def rate(self, progress: float) -> None:
        """Set the learning rate to that of a point of the schedule; it is zero before."""
        self.state.advance(round(progress * 1000), 1000)

    def __call__(self) -> None:
        """Train on the next batch."""
        self._step(*self._batches[self._done % BATCHES])
        self._done += 1

    def losses(self) -> list[float]:
        """Of each network, the sum over the steps since it was last asked for; waits for the device."""
        sums = self._step.losses.tolist()
        self._step.losses.zero_()
        return sums


def batches(data: DeviceImages, recipe: Recipe, seeds: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """Pixels, labels, shifts and flips of `BATCHES` batches, as a `Step` takes them, on the device."""
    images, _, side = data.train.shape
    draws = draw(seeds, 0, images=images, side=side, recipe=recipe)
    labels = data.train_labels[draws.order.to(data.device)]
    pixels = data.train.feed(draws.order.flatten(1))
    return list(zip(pixels, labels, draws.shifts.to(data.device), draws.mirrored.to(data.device), strict=True))


def real_images(resolution: int, batch: int, device: torch.device) -> DeviceImages:
    """As many of the embedded images, enlarged, as `BATCHES` batches hold."""
    with embedded_file().open("rb") as file, np.load(file) as arrays:
        pixels, labels = arrays["train_images"][:, None], arrays["train_labels"].astype(np.int64)
    wanted = BATCHES * batch
    if wanted > len(labels):
        raise SystemExit(f"{BATCHES} batches of {batch} need {wanted} images, of {len(labels)}: take a smaller batch")
    images = Images(
        train_images=pixels[:wanted],
        train_labels=labels[:wanted],
        validation_images=pixels[:1],
        validation_labels=labels[:1],
        fingerprint="",
    )
    return on_device(images, resolution=resolution, device=device, memory=1 << 40)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long work takes until the device is done with it [s]."""
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def per_second(step: Callable[[], None], device: torch.device, *, steps: int, images: int) -> float:
    """Images trained per second over some steps of so many images."""

    def run() -> None:
        for _ in range(steps):
            step()

    return steps * images / seconds(run, device)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes read and written per second by copying a tensor that no cache holds: the median of some copies."""
    source = torch.ones(COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / statistics.median(seconds(lambda: target.copy_(source), device) for _ in range(COPIES))


def modelled_bytes(network: Network, way: str) -> float:
    """Bytes that a step moves per image by the model of `PASSES`, at 2 bytes per element."""
    return 2 * PASSES[way] * count(network).activations


def share(rate: Row, bytes_per_image: float, copy: Row) -> tuple[float, float]:
    """What images per second come to by a byte model: [TB/s], and as a share of the bandwidth of a copy."""
    moved = rate.median * bytes_per_image
    return moved / 1e12, moved / copy.median


@contextmanager
def peak(device: torch.device, found: list[float | None]) -> Iterator[None]:
    """Append the most memory that is taken inside, beyond what was taken before [GiB]; None on a CPU."""
    if device.type != "cuda":
        yield
        found.append(None)
        return
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    yield
    found.append((torch.cuda.max_memory_allocated(device) - before) / (1 << 30))


def gib(memory: float | None) -> str:
    """For people."""
    return "–" if memory is None else f"{memory:.3g}"


@contextmanager
def cold_caches() -> Iterator[None]:
    """Compilers keep what they make in folders that are empty at first: set-up is timed as on a machine's first run."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["TRITON_CACHE_DIR"] = str(Path(folder) / "triton")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder) / "inductor")
        yield


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options that all of these benchmarks have."""
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run (default cuda)")
    parser.add_argument("--out", type=Path, help="write every measurement to this JSON file too")


def device_of(name: str) -> torch.device:
    """The device, with the settings that every side gets."""
    if name == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "no CUDA device that torch can use: `--device cpu` makes a dry run, whose figures do not count"
        )
    torch.backends.cudnn.benchmark = True
    return torch.device(name)


def verdict(faults: Sequence[str], device: torch.device, *, met: str) -> int:
    """Say whether the requirement is met, and give the exit code; on a CPU it is not judged."""
    if device.type == "cpu":
        print("DRY RUN on a CPU: the gates hold, the figures do not count, and the requirement is not judged")
        return 0
    print("\n".join(faults) or f"requirement met: {met}")
    return 1 if faults else 0


def short_of(ratio: Row, least: float, what: str) -> Iterator[str]:
    """What a ratio lacks: every one of at least `LEAST_PAIRS` pairs has to reach the least."""
    if len(ratio.values) < LEAST_PAIRS:
        yield f"NOT MET: {what}: {len(ratio.values)} pairs are too few to tell, at least {LEAST_PAIRS}"
    elif not min(ratio.values) >= least:
        yield f"NOT MET: {what}: {ratio} times, not {least:g} in every pair"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
