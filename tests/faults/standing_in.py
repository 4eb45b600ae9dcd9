"""The real program with its trainings stood in for: `python standing_in.py run …`.

Processes, pipes, signals, checkpoints, files and the study are what they are; only what is trained is a function of
proxy, seed and epoch. With `DIE_AT=n` in the environment the coordinator is killed inside its n-th file operation, with
`FULL_AT=n` the disk is full in that one and some behind it; with `COUNT_IN=FILE` it writes there how many it made.
With `STUDY_REST=s` the study rests for so many seconds between two writes; with `KEEP_FROM=n` a trial has no checkpoint
before its n-th step; with `GPU_FULL_FOR=seed` there is no memory on a GPU for the trials of a seed.
"""

import atexit
import errno
import hashlib
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
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


OPERATIONS = ("write", "fsync", "replace", "mkdir", "unlink")
FULL = 3
"""Operations for which the disk stays full."""


def kill_here(name: str, real: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Half of the bytes written, the rest not begun."""
    if name == "write" and len(arguments[1]) > 1:
        real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def be_full(name: str, real: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """No room for what needs some: files alone, not the pipes to workers."""
    is_file = name != "write" or stat.S_ISREG(os.fstat(arguments[0]).st_mode)
    if name != "unlink" and is_file:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def disturb(fault: Callable[..., None], at: range, counted: Path | None) -> None:
    """Have a fault in some file operations of this process, counted from 1."""
    made = 0

    def disturbed(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **named: Any) -> Any:
            nonlocal made
            made += 1
            if made in at:
                fault(name, real, arguments)
            return real(*arguments, **named)

        return operation

    for name in OPERATIONS:
        setattr(os, name, disturbed(name, getattr(os, name)))
    if counted is not None:
        atexit.register(lambda: counted.write_text(str(made)))


if __name__ in ("__main__", "__mp_main__"):  # the second: as a spawned worker imports it
    from scalesearch.engine import trial

    trial.train_trials = stand_in

if __name__ == "__main__":
    from scalesearch import mirror
    from scalesearch.cli import main

    if "STUDY_REST" in os.environ:
        mirror.RESTS = (float(os.environ["STUDY_REST"]),) * 2
    if "DIE_AT" in os.environ:
        disturb(kill_here, range(int(os.environ["DIE_AT"]), sys.maxsize), None)
    elif "FULL_AT" in os.environ:
        disturb(be_full, range(int(os.environ["FULL_AT"]), int(os.environ["FULL_AT"]) + FULL), None)
    elif "COUNT_IN" in os.environ:
        disturb(be_full, range(0), Path(os.environ["COUNT_IN"]))
    main(sys.argv[1:])
