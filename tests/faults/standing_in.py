"""The real program with its trainings stood in for: `python standing_in.py run …`.

Processes, pipes, signals, checkpoints, files and the study are what they are; only what is trained is a function of
proxy, seed and epoch. With `STUDY_REST=s` in the environment the study rests for so many seconds between two writes;
with `KEEP_FROM=n` a trial has no checkpoint before its n-th step; with `GPU_FULL_FOR=seed` there is no memory on a GPU
for the trials of a seed.
"""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

STEPS = 4
"""Of an epoch."""
SECONDS = float(os.environ.get("STEP_SECONDS", "0.03"))
"""Of a step [s]."""
KEEP_FROM = int(os.environ.get("KEEP_FROM", "1"))
GPU_FULL_FOR = os.environ.get("GPU_FULL_FOR", "")


def accuracy(proxy: str, seed: int, epoch: int) -> float:
    """Of the proxy's own between 70 and 76 %, half a point of noise from the seed, a point more by epoch."""
    own, noise = (hashlib.sha256(text.encode()).digest()[0] / 255 for text in (proxy, f"{proxy} {seed}"))
    return 70 + 6 * own + noise + epoch


def stand_in(
    work: Any, device: Any, stopping: Callable[[], bool] = lambda: False, images: Any = None, ranks: Any = None
) -> Iterator[list[Any]]:
    """In the place of `train_trials`: the same events, checkpoints at every step from one on, next to no work."""
    import torch

    from scalesearch.engine.work import Failed, Finished, Kept, Noticed, Progress
    from scalesearch.proxy.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
    from scalesearch.proxy.images import open_images
    from scalesearch.recipe import EpochResult

    identity = f"{work.keys} {(images or open_images(work.data)).fingerprint}"
    stored = read_checkpoint(work.checkpoint, identity)
    results, step = (list(stored.results), stored.step) if stored else ([], 0)
    assert stored is None or stored.tensors["steps"].item() == step
    for epoch in results:
        yield [Progress(key, result) for key, result in zip(work.keys, epoch, strict=True)]
    if GPU_FULL_FOR in [str(key.seed) for key in work.keys]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    while step < STEPS * work.keys[0].rung:
        time.sleep(SECONDS)
        step += 1
        events: list[Any] = []
        epoch, left = divmod(step, STEPS)
        if not left:
            found = [accuracy(key.proxy, key.seed, epoch) for key in work.keys]
            results.append([EpochResult(epoch=epoch, train_loss=1.0, accuracy=one, loss=1.0) for one in found])
            events += [Progress(key, result) for key, result in zip(work.keys, results[-1], strict=True)]
        is_stopped = stopping() and len(results) < work.keys[0].rung
        checkpoint = Checkpoint(tensors={"steps": torch.tensor(step)}, results=results, step=step)
        try:
            if step >= KEEP_FROM or is_stopped:
                write_checkpoint(work.checkpoint, checkpoint, identity)
                events += [Kept(key, step) for key in work.keys]
        except OSError as error:  # as `Keeper` has it
            events.append(Noticed(f"no checkpoint can be written: {error.strerror}"))
        if is_stopped:
            yield [*events, *(Failed(key, "stopped", final=False, counts=False) for key in work.keys)]
            return
        yield events
    yield [Finished(key) for key in work.keys]


if __name__ in ("__main__", "__mp_main__"):  # the second: as a spawned worker imports it
    from scalesearch.engine import trial

    trial.train_trials = stand_in

if __name__ == "__main__":
    from scalesearch import mirror
    from scalesearch.cli import main

    if "STUDY_REST" in os.environ:
        mirror.RESTS = (float(os.environ["STUDY_REST"]),) * 2
    main(sys.argv[1:])
