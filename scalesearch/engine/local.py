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

from scalesearch.engine.work import Event, Failed, Finished, Progress, Work
from scalesearch.errors import DataError, StudyError, TrialDivergedError

SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A place where one trial at a time is trained."""

    device: str
    """`cpu` or `cuda:<index>`."""
    name: str
    """What the hardware calls itself."""
    threads: int
    """CPU threads of torch."""


def local_slots(threads: int, *, need_gpu: bool) -> list[Slot]:
    """A slot per GPU that torch can use, else as many CPU slots as this process has cores for.

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
        names = [torch.cuda.get_device_name(index) for index in range(gpus)]
        return [Slot(device=f"cuda:{index}", name=name, threads=threads) for index, name in enumerate(names)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    slot = Slot(device="cpu", name=processor_name(), threads=threads)
    return [slot] * max(1, cores // threads)


def processor_name() -> str:
    """What the system calls its processor."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    work: Work | None = None


class LocalExecutor:
    """Spawned workers, one per slot; a worker that dies is replaced and its trial reported as failed."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = list(slots)
        self._workers = [_spawn(slot) for slot in self._slots]

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
                    found.append(self._receive(index))
        return found

    def _receive(self, index: int) -> Event:
        worker = self._workers[index]
        assert worker.work is not None
        try:
            event: Event = worker.pipe.recv()
        except (EOFError, OSError):
            event = Failed(worker.work.key, self._bury(index), final=False)
        else:
            if isinstance(event, Finished | Failed):
                worker.work = None
        return event

    def _bury(self, index: int) -> str:
        """Replace a dead worker; returns what killed it."""
        worker = self._workers[index]
        worker.process.join()
        worker.pipe.close()
        self._workers[index] = _spawn(self._slots[index])
        code = worker.process.exitcode or 0
        return f"worker killed by {signal.Signals(-code).name}" if code < 0 else f"worker ended with exit code {code}"

    def close(self) -> None:
        """Stop every worker at once; checkpoints stay."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()


def _spawn(slot: Slot) -> _Worker:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_serve, args=(theirs, slot), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _serve(pipe: Connection, slot: Slot) -> None:
    """A worker's life: receive work, send events, until the coordinator is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the coordinator decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(slot.threads)
    device = torch.device(slot.device)
    while True:
        try:
            work: Work = pipe.recv()
        except EOFError:
            return
        _answer(pipe, work, device)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _answer(pipe: Connection, work: Work, device: object) -> None:
    from scalesearch.engine.trial import train_trial

    try:
        for result in train_trial(work, device):  # type: ignore[arg-type]
            pipe.send(Progress(work.key, result))
        pipe.send(Finished(work.key))
    except (TrialDivergedError, DataError) as error:
        pipe.send(Failed(work.key, str(error), final=True))
    except Exception as error:  # noqa: BLE001  the boundary of the process: whatever it is, the trial failed of it
        with work.log.open("a", encoding="utf-8") as file:
            file.write(traceback.format_exc())
        pipe.send(Failed(work.key, f"{type(error).__name__}: {' '.join(str(error).split())}", final=False))
