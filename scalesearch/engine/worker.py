"""A worker's life: it receives works and probes, and sends what comes of them, until it is stopped or left alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from scalesearch.engine.memory import give_back, keep_freed_memory
from scalesearch.engine.watch import Signs
from scalesearch.engine.work import Event, Failed, Finished, Probe, Work
from scalesearch.errors import DataError
from scalesearch.files import append

if TYPE_CHECKING:
    import torch

    from scalesearch.proxy.device import Shelf
    from scalesearch.proxy.images import Images
    from scalesearch.proxy.ranks import Ranks

Answer = tuple[list[Event], bool, bool] | DataError | str
"""What is sent of a work: events, whether they are the last, and whether the worker leaves with them; that its images
are damaged; or, of no work, why the worker cannot begin."""


@dataclass(slots=True)
class _Stop:
    """What a worker that is told to end does: at once where it waits, behind the next step where it trains.

    Also behind the loading of torch, whose C++ aborts the process where Python raises.
    """

    is_asked: bool = False
    is_busy: bool = True

    def __call__(self, *_: object) -> None:
        is_first, self.is_asked = not self.is_asked, True
        if is_first and not self.is_busy:  # a second one may meet a process that is ending
            raise SystemExit(0)


def serve(pipe: Connection, device_name: str, signs: Signs) -> None:
    """Live.

    Args:
        pipe: to the coordinator.
        device_name: `cpu` or `cuda:<index>`.
        signs: grows when a work is taken up, and behind each of its steps.
    """
    stop = _Stop()
    for number in (signal.SIGTERM, signal.SIGUSR1):  # which may reach the whole group too
        signal.signal(number, stop)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        shelf = _opened(device_name)
    except Exception as error:  # noqa: BLE001  the boundary of the process: whatever it is, nothing can be trained here
        pipe.send(_in_one_line(error))
        return
    stop.is_busy = False
    with suppress(EOFError, ConnectionError):  # the coordinator is gone, perhaps with answers that it had not read
        _serve(pipe, shelf, signs, stop)


def _serve(pipe: Connection, shelf: Shelf, signs: Signs, stop: _Stop) -> None:
    """Do what is asked for, until an end is."""
    while not stop.is_asked:
        asked: Work | Probe = pipe.recv()
        if isinstance(asked, Probe):
            _probe(pipe, asked, shelf.device)
        else:
            stop.is_busy = True
            leaves = _train(pipe, asked, shelf, signs, lambda: stop.is_asked)
            stop.is_busy = False
            if leaves:
                return
        give_back(shelf.device)


def _opened(device_name: str) -> Shelf:
    keep_freed_memory()
    from scalesearch.proxy.device import Shelf

    return Shelf.opened(device_name)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _probe(pipe: Connection, probe: Probe, device: torch.device) -> None:
    """Send whether the probe is warm and then, once all are, its images per second; 0 where it cannot be run."""
    from scalesearch.engine.probe import images_per_second

    def all_ready() -> bool:
        pipe.send(True)
        return pipe.recv()

    try:
        rate = images_per_second(probe, device, all_ready)
    except Exception:  # noqa: BLE001  out of memory, or a network that cannot be stacked; a trial would tell
        rate = 0.0
    pipe.send(rate)


def _train(pipe: Connection, work: Work, shelf: Shelf, signs: Signs, stopping: Callable[[], bool]) -> bool:
    """Send the answers to a work; returns whether the worker leaves.

    It does after an unforeseen failure on a GPU: what broke the trial may have broken the context, which ends with the
    process.
    """
    signs.value += 1
    leaves = False
    for answer in answers(work, shelf, stopping):
        signs.value += 1
        if isinstance(answer, DataError):
            pipe.send(answer)
        elif answer != ([], False):
            is_broken = any(isinstance(event, Failed) and event.counts and not event.final for event in answer[0])
            leaves = is_broken and shelf.device.type == "cuda"
            pipe.send((*answer, leaves))
    return leaves


def answers(
    work: Work,
    shelf: Shelf,
    stopping: Callable[[], bool],
    images: Images | None = None,
    ranks: Ranks | None = None,
) -> Iterator[tuple[list[Event], bool] | DataError]:
    """What is to be sent of a work, behind each of its steps; often no event. See `train_trials`."""
    from scalesearch.engine.trial import train_trials

    left = set(work.keys)
    try:
        for events in train_trials(work, shelf, stopping, images, ranks):
            left -= {event.key for event in events if isinstance(event, Finished | Failed)}
            yield events, not left
    except DataError as error:
        yield error
    except Exception as error:  # noqa: BLE001  the boundary of the process: whatever it is, the trials failed of it
        append(work.log, traceback.format_exc())
        yield [Failed(key, _reason(error), final=False) for key in work.keys], True


def _reason(error: Exception) -> str:
    import torch

    mend = "free memory of the GPU, or take smaller proxies (--proxy-resolution), and run into a new folder"
    return f"{_in_one_line(error)}; {mend}" if isinstance(error, torch.OutOfMemoryError) else _in_one_line(error)


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
