"""The engine of one machine: one spawned process per slot (each GPU, or CPU slots)."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from scalesearch.engine.memory import out_of_memory_kills
from scalesearch.engine.slots import Slot
from scalesearch.engine.tidings import Tidings
from scalesearch.engine.watch import SLOWLY, Looks, Watch
from scalesearch.engine.work import KILLS, UNBORN, Event, Failed, Finished, Noticed, Probe, Work
from scalesearch.engine.worker import Answer, serve
from scalesearch.errors import DataError, EngineError
from scalesearch.proxy.images import open_images
from scalesearch.stopping import deferring

SPAWN = multiprocessing.get_context("spawn")
SILENCE = 120.0
"""A worker that gives no sign of life for so long hangs, unless its steps take long [s]."""
TICK = 0.5
"""Between two looks at workers that say nothing [s]."""
EXIT = 10.0
"""Most time that a process takes to end when nobody listens to it any more [s]."""
REST = 20.0
"""Time that a slot has no work after a failure, as long as others are at work [s]; twice that after the next."""
DOUBLINGS = 5
"""Of that time, at most."""
KILLING = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1})
"""Signals that come from others, the kernel among them; those of a worker's own faults, such as SIGSEGV, do not."""


@dataclass(slots=True)
class _Worker:
    slot: Slot
    process: SpawnProcess
    pipe: Connection
    watch: Watch
    work: Work | None = None
    unborn: int = 0
    """Workers in its place before it, one after another, that took up no work."""
    why: str = ""
    """What it said before it ended."""
    failures: int = 0
    """Works that failed on its slot one after another, and not because somebody else ended them."""
    rests: float = 0.0
    """Until when works are for others, by the monotonic clock [s]."""

    def rest(self) -> None:
        """Have one more failure: it may be the slot's, whose memory somebody else fills."""
        self.failures += 1
        self.rests = time.monotonic() + REST * 2 ** min(self.failures - 1, DOUBLINGS)


class LocalExecutor:
    """Spawned workers, one per slot; one that dies or hangs is replaced, and its trials are reported as failed."""

    def __init__(self, slots: Sequence[Slot], *, silence: float = SILENCE) -> None:
        """Start the workers.

        Args:
            slots: one worker for each.
            silence: without a sign of life after which a worker hangs, unless its steps take long [s].
        """
        self._silence = silence
        self._workers: list[_Worker] = []
        self._found = Tidings()
        self._killed_for_memory = out_of_memory_kills()
        self._looks = Looks(2 * TICK)
        self._end: float | None = None
        """When workers that were told to stop are killed."""
        self.arrange(slots)

    def arrange(self, slots: Sequence[Slot]) -> None:
        """Have one worker per slot, all idle: those that fit are kept, others stopped, missing ones started."""
        before, self._workers = self._workers, []
        for slot in slots:
            fitting = next((worker for worker in before if worker.slot == slot), None)
            if fitting is not None:
                before.remove(fitting)
            self._workers.append(fitting or _spawn(slot, self._silence))
        _kill(before)

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
        with suppress(OSError):  # a worker that died: whoever waits for its answer finds the closed pipe
            self._workers[index].pipe.send(what)

    def _answer(self, index: int) -> Any:
        """What a worker says to a probe; None from one that died or hangs, which is replaced."""
        worker = self._workers[index]
        with suppress(EOFError, OSError):
            if worker.pipe.poll(SLOWLY * self._silence):
                answer = worker.pipe.recv()
                worker.unborn = 0
                return answer
            worker.process.kill()
        self._bury(index)
        return None

    @property
    def idle(self) -> int:
        """Slots that can take up a work."""
        return len(self._free())

    @property
    def busy(self) -> int:
        """Slots with work."""
        return sum(worker.work is not None for worker in self._workers)

    def _free(self) -> list[int]:
        """Slots without work, those first where the fewest have failed; those that rest only where no other can."""
        now = time.monotonic()
        free = [index for index, worker in enumerate(self._workers) if worker.work is None]
        rested = [index for index in free if now >= self._workers[index].rests]
        others_train = any(worker.work is not None and now >= worker.rests for worker in self._workers)
        return sorted(rested if rested or others_train else free, key=lambda index: self._workers[index].failures)

    def submit(self, work: Work) -> None:
        """Start a trial on an idle slot; not after `stop`."""
        self._hand(self._free()[0], work)

    def _hand(self, index: int, work: Work) -> None:
        self._workers[index].work = work
        self._workers[index].watch.begin()
        self._tell(index, work)

    def events(self) -> list[Event]:
        """See `Executor`."""
        if self.busy:
            ready = wait([worker.pipe for worker in self._workers if worker.work is not None], TICK)
            for index, worker in enumerate(self._workers):
                if worker.pipe in ready:
                    self._receive(index)
            self._look()
        return self._found.taken()

    def _receive(self, index: int) -> None:
        worker = self._workers[index]
        try:
            answer: Answer = worker.pipe.recv()
        except (EOFError, OSError):
            self._lose(index)
            return
        if isinstance(answer, str):
            worker.why = answer
        elif isinstance(answer, DataError):
            worker.work = None
            raise answer
        else:
            events, is_over, leaves = answer
            self._found.add(*events)
            if any(isinstance(event, Failed) and event.counts and not event.final for event in events):
                worker.rest()
            elif any(isinstance(event, Finished) for event in events):
                worker.failures = 0
            if is_over:  # with the last events: a slot that is free must not wait for those of another
                worker.work, worker.unborn = None, 0
            if leaves:
                self._bury(index)

    def _look(self) -> None:
        """Replace workers that hang, and those that were told to stop and have not in time."""
        passed = self._looks.passed()
        is_over = self._end is not None and time.monotonic() >= self._end
        for index, worker in enumerate(self._workers):
            if worker.work is None:
                continue
            if worker.watch.is_hanging(passed):
                reason = worker.watch.reason
                text = f"{reason} on {worker.slot.device}; replaced, its trials go on from their checkpoint"
                self._found.add(Noticed(text))
                worker.process.kill()
                self._lose(index, reason)
            elif is_over:
                worker.process.kill()
                self._lose(index, "stopped before a step was over")

    def _lose(self, index: int, reason: str = "") -> None:
        """Replace a worker that died or is to; its work has failed, unless it was never taken up.

        Raises:
            DataError: it died of images that the disk has no more.
            EngineError: workers end before they take up any work, again and again.
        """
        worker = self._workers[index]
        work = worker.work
        assert work is not None
        is_ours, died = bool(reason), self._bury(index)
        reason = reason or died
        number = 0 if is_ours else -(worker.process.exitcode or 0)
        is_kill = number in KILLING
        if number == signal.SIGBUS and self._end is None:
            open_images(work.data, verify=True)
        if worker.watch.has_begun or self._end is not None:
            counts = self._end is None
            if not is_kill:
                self._workers[index].rest()
            self._found.add(*(Failed(key, reason, final=False, counts=counts, is_kill=is_kill) for key in work.keys))
            return
        if self._workers[index].unborn >= (KILLS if is_kill else UNBORN):
            fault = f"workers on {worker.slot.device} end before they take up work: {reason}"
            raise EngineError(fault, mend="see whether `import torch` and this device work in a Python of its own")
        text = f"a worker on {worker.slot.device} ended before it took up work: {reason}; replaced"
        self._found.add(Noticed(text))
        self._hand(index, work)

    def _bury(self, index: int) -> str:
        """Replace a worker that has ended or is about to; returns what ended it."""
        worker = self._workers[index]
        worker.process.join(EXIT)
        _kill([worker])
        if self._end is None:
            unborn = 0 if worker.watch.has_begun else worker.unborn + 1
            self._workers[index] = _spawn(worker.slot, self._silence, unborn)
            self._workers[index].failures, self._workers[index].rests = worker.failures, worker.rests
        else:
            worker.work = None
        return worker.why or self._cause(worker.process.exitcode or 0)

    def _cause(self, code: int) -> str:
        """What ended a process that came to such a code."""
        if code == -signal.SIGKILL and out_of_memory_kills() > self._killed_for_memory:
            self._killed_for_memory = out_of_memory_kills()
            return "worker killed by the kernel: out of memory (host)"
        return f"worker killed by {signal.Signals(-code).name}" if code < 0 else f"worker ended with exit code {code}"

    def forget(self, work: Work) -> None:
        """See `Executor`; every checkpoint is in the run folder."""

    def stop(self, within: float) -> None:
        """See `Executor`."""
        self._end = time.monotonic() + within
        for worker in self._workers:
            if worker.work is not None:
                worker.process.terminate()

    def close(self) -> None:
        """Stop every worker at once; checkpoints stay."""
        _kill(self._workers)


def _kill(workers: Sequence[_Worker]) -> None:
    """End them at once; one that even SIGKILL does not reach, in a driver that hangs, is left to the system."""
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join(EXIT)
        worker.pipe.close()


def _spawn(slot: Slot, silence: float, unborn: int = 0) -> _Worker:
    ours, theirs = SPAWN.Pipe()
    signs = SPAWN.RawValue("Q")
    process = SPAWN.Process(target=serve, args=(theirs, slot.device, signs), daemon=True)
    resource_tracker.ensure_running()  # which would be started within, and lift the block
    with deferring():  # a worker that is started in half would say so
        # Ctrl-C reaches the whole group, and the coordinator decides: a worker is deaf to it from its first instant on
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return _Worker(slot, process, ours, Watch(signs, silence), unborn=unborn)
