"""The engine of one machine: one spawned process per slot (each GPU, or CPU slots)."""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalesearch.engine.memory import keep_freed_memory
from scalesearch.engine.work import Event, Failed, Finished, Probe, Work
from scalesearch.errors import DataError, StudyError

if TYPE_CHECKING:
    import torch

SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A place where one trial at a time is trained."""

    device: str
    """`cpu` or `cuda:<index>`."""
    name: str
    """What the hardware calls itself."""


def local_slots(*, need_gpu: bool) -> list[Slot]:
    """A slot per GPU that torch can use, else one per core that this process may use.

    Raises:
        StudyError: a GPU is needed (the plan counts on one) and torch cannot use it.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if need_gpu and not gpus:
        raise StudyError(
            "the driver lists a GPU, but torch cannot use it",
            mend="install the CUDA build of torch that fits the driver, or give --preset quick",
        )
    if gpus:
        return [Slot(device=f"cuda:{index}", name=torch.cuda.get_device_name(index)) for index in range(gpus)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [Slot(device="cpu", name=processor_name())] * cores


def processor_name() -> str:
    """What the system calls its processor."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


@dataclass(slots=True)
class _Worker:
    slot: Slot
    process: SpawnProcess
    pipe: Connection
    work: Work | None = None


class LocalExecutor:
    """Spawned workers, one per slot; a worker that dies is replaced and its trials reported as failed."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._workers: list[_Worker] = []
        self.arrange(slots)

    def arrange(self, slots: Sequence[Slot]) -> None:
        """Have one worker per slot, all idle: those that fit are kept, others stopped, missing ones started."""
        before, self._workers = self._workers, []
        for slot in slots:
            fitting = next((worker for worker in before if worker.slot == slot), None)
            if fitting is not None:
                before.remove(fitting)
            self._workers.append(fitting or _spawn(slot))
        _stop(before)

    def measure(self, probe: Probe, slots: Sequence[Slot]) -> float:
        """Images per second [1/s] of so many probes, one on each slot, counted while all of them are running.

        0 where one of them cannot be run.
        """
        asked: list[int] = []
        for slot in slots:
            free = (index for index, worker in enumerate(self._workers) if worker.slot == slot and index not in asked)
            asked.append(next(free))
        for index in asked:
            self._tell(index, probe)
        are_ready = [self._answer(index) is True for index in asked]
        waiting = [index for index, is_ready in zip(asked, are_ready, strict=True) if is_ready]
        for index in waiting:
            self._tell(index, all(are_ready))
        rates = [float(self._answer(index) or 0) for index in waiting]
        return sum(rates) if all(are_ready) and all(rates) else 0.0

    def _tell(self, index: int, what: object) -> None:
        with suppress(OSError):  # a worker that died: its answer finds the closed pipe
            self._workers[index].pipe.send(what)

    def _answer(self, index: int) -> Any:
        """What a worker says to a probe; None from one that died, which is replaced."""
        try:
            return self._workers[index].pipe.recv()
        except (EOFError, OSError):
            self._bury(index)
            return None

    @property
    def idle(self) -> int:
        """Slots without work."""
        return sum(worker.work is None for worker in self._workers)

    @property
    def busy(self) -> int:
        """Slots with work."""
        return len(self._workers) - self.idle

    def submit(self, work: Work) -> None:
        """Start a trial on an idle slot."""
        worker = next(worker for worker in self._workers if worker.work is None)
        worker.work = work
        with suppress(OSError):  # a worker that died between trials: `events` finds the closed pipe
            worker.pipe.send(work)

    def events(self) -> list[Event]:
        """What happened since the last call, waiting for at least one event while any slot is busy."""
        found: list[Event] = []
        while self.busy and not found:
            ready = wait([worker.pipe for worker in self._workers if worker.work is not None])
            for index, worker in enumerate(self._workers):
                if worker.pipe in ready:
                    found += self._receive(index)
        return found

    def _receive(self, index: int) -> list[Event]:
        worker = self._workers[index]
        assert worker.work is not None
        try:
            events, is_over = worker.pipe.recv()
        except (EOFError, OSError):
            reason = self._bury(index)
            return [Failed(key, reason, final=False) for key in worker.work.keys]
        if is_over:  # with the last events: a slot that is free must not wait for those of another
            worker.work = None
        return events

    def _bury(self, index: int) -> str:
        """Replace a dead worker; returns what killed it."""
        worker = self._workers[index]
        worker.process.join()
        worker.pipe.close()
        self._workers[index] = _spawn(worker.slot)
        code = worker.process.exitcode or 0
        return f"worker killed by {signal.Signals(-code).name}" if code < 0 else f"worker ended with exit code {code}"

    def close(self) -> None:
        """Stop every worker at once; checkpoints stay."""
        _stop(self._workers)


def _stop(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join()
        worker.pipe.close()


def _spawn(slot: Slot) -> _Worker:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_serve, args=(theirs, slot), daemon=True)
    process.start()
    theirs.close()
    return _Worker(slot, process, ours)


def _serve(pipe: Connection, slot: Slot) -> None:
    """A worker's life: receive works and probes, send what comes of them, until the coordinator is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the coordinator decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    keep_freed_memory()
    import torch

    device = torch.device(slot.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    while True:
        try:
            asked: Work | Probe = pipe.recv()
        except EOFError:
            return
        if isinstance(asked, Probe):
            _probe(pipe, asked, device)
        else:
            _train(pipe, asked, device)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what others on this GPU may need


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


def _train(pipe: Connection, work: Work, device: torch.device) -> None:
    """Send pairs: events, and whether they are the last of this work."""
    from scalesearch.engine.trial import train_trials

    left = set(work.keys)
    try:
        for events in train_trials(work, device):
            left -= {event.key for event in events if isinstance(event, Finished | Failed)}
            pipe.send((events, not left))
    except DataError as error:
        pipe.send((_failed(work, str(error), final=True), True))
    except Exception as error:  # noqa: BLE001  the boundary of the process: whatever it is, the trials failed of it
        with work.log.open("a", encoding="utf-8") as file:
            file.write(traceback.format_exc())
        pipe.send((_failed(work, f"{type(error).__name__}: {' '.join(str(error).split())}", final=False), True))


def _failed(work: Work, reason: str, *, final: bool) -> list[Event]:
    return [Failed(key, reason, final) for key in work.keys]
