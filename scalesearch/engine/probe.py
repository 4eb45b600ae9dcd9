"""How fast a network is trained in one way: a few steps on made-up images, inside a worker."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from scalesearch.engine.trial import module_of
from scalesearch.engine.work import Probe
from scalesearch.proxy.device import DeviceImages, on_device
from scalesearch.proxy.draws import draw
from scalesearch.proxy.images import Images
from scalesearch.proxy.state import State
from scalesearch.proxy.step import WARM_UP, Step


def images_per_second(probe: Probe, device: torch.device) -> float:
    """Images of all seeds trained per second, after a warm-up."""
    torch.set_num_threads(probe.threads)
    run = _steps(probe, device)
    for _ in range(WARM_UP + 1):
        run()
    done, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < probe.seconds:
        run()
        done += 1
    return done * probe.recipe.batch_size * probe.together / passed


def _steps(probe: Probe, device: torch.device) -> Callable[[], None]:
    """A step of the network on one batch of made-up images, again and again; returns when the device is done."""
    seeds, batch, side = list(range(probe.together)), probe.recipe.batch_size, probe.network.resolution
    data = _made_up(batch, side, device)
    module = module_of(probe.network, probe.recipe, seeds, device).train()
    state = State(module, probe.recipe, seeds=len(seeds))
    step = Step(state, data, batch=batch, micro_batch=probe.micro_batch or batch)
    draws = draw(seeds, 0, images=batch, side=side, recipe=probe.recipe)
    [pixels] = data.train.feed(draws.order.flatten(1))
    labels, shifts, mirrored = data.train_labels[draws.order[0].to(device)], draws.shifts[0], draws.mirrored[0]

    def run() -> None:
        state.advance(0, 1)
        step(pixels, labels, shifts, mirrored)
        step.losses.tolist()

    return run


def _made_up(count: int, side: int, device: torch.device) -> DeviceImages:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, side, side), np.uint8)
    labels = np.arange(count, dtype=np.int64) % 2
    images = Images(
        train_images=pixels,
        train_labels=labels,
        validation_images=pixels[:1],
        validation_labels=labels[:1],
        fingerprint="",
    )
    return on_device(images, resolution=side, device=device, memory=pixels.nbytes * 2)
