"""How fast a network is trained in one way: a few steps on made-up images, inside a worker."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from scalesearch.engine.trial import memory_of, module_of
from scalesearch.engine.work import Probe
from scalesearch.proxy.device import DeviceImages, on_device
from scalesearch.proxy.draws import draw
from scalesearch.proxy.evaluate import evaluate
from scalesearch.proxy.images import Images
from scalesearch.proxy.state import State
from scalesearch.proxy.step import WARM_UP, Step
from scalesearch.spec import Network


def images_per_second(probe: Probe, device: torch.device, all_ready: Callable[[], bool]) -> float:
    """Images of all seeds trained per second, in the memory that a trial would have.

    Args:
        probe: what to train.
        device: where.
        all_ready: waits for the probes beside this one when it is warm; false if one of them cannot be run.
    """
    torch.set_num_threads(probe.threads)
    state, data, step = _training(probe, device)
    taken = min(probe.images * data.train.shape[1] * probe.network.resolution**2, memory_of(device) // probe.sharing)
    _beside_it = torch.empty(taken if device.type == "cuda" else 0, dtype=torch.uint8, device=device)
    run = _steps(probe, state, data, step)
    run(WARM_UP + 1)
    evaluate(state, data)
    state.module.train()
    count = max(1, round(probe.seconds / run(1)))
    if not all_ready():
        return 0.0
    return count * probe.recipe.batch_size * probe.together / run(count)


def _training(probe: Probe, device: torch.device) -> tuple[State, DeviceImages, Step]:
    seeds, batch = range(probe.together), probe.recipe.batch_size
    data = _made_up(max(batch, probe.recipe.norm_images), probe.network.resolution, device)
    module = module_of(probe.network, probe.recipe, seeds, device).train()
    state = State(module, probe.recipe, seeds=len(seeds), micro_batch=probe.micro_batch)
    return state, data, Step(state, data, batch=batch, capture=isinstance(probe.network, Network))


def _steps(probe: Probe, state: State, data: DeviceImages, step: Step) -> Callable[[int], float]:
    """Trains so many steps, all on the same batch; returns the seconds until the device is done."""
    seeds, batch, side = range(probe.together), probe.recipe.batch_size, probe.network.resolution
    draws = draw(seeds, 0, images=batch, side=side, recipe=probe.recipe)
    [pixels] = data.train.feed(draws.order.flatten(1))
    labels = data.train_labels[draws.order[0].to(data.device)]
    shifts, mirrored = draws.shifts[0].to(data.device), draws.mirrored[0].to(data.device)

    def run(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            state.advance(0, 1)
            step(pixels, labels, shifts, mirrored)
        step.losses.tolist()  # waits for the device
        return time.perf_counter() - start

    return run


def _made_up(count: int, side: int, device: torch.device) -> DeviceImages:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, side, side), np.uint8)
    labels = np.arange(count, dtype=np.int64) % 2
    images = Images(
        train_images=pixels,
        train_labels=labels,
        validation_images=pixels,
        validation_labels=labels,
        fingerprint="",
    )
    return on_device(images, resolution=side, device=device, memory=pixels.nbytes * 2)
