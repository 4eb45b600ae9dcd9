"""The pace of a plan, measured: threads and processes, trials per GPU, seeds per network, micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scalesearch.engine.local import LocalExecutor
from scalesearch.engine.slots import Slot
from scalesearch.engine.work import Probe
from scalesearch.pace import Pace

MOST_PACKED = 4
"""Trials tried beside each other on one GPU."""
GAIN = 1.1
"""What a way has to be faster by than a simpler one: measured rates vary by a few percent."""


def measured(
    executor: LocalExecutor,
    slots: Sequence[Slot],
    probe: Probe,
    *,
    due: int,
    seeds: int,
    threads: int | None = None,
    together: int | None = None,
) -> Pace:
    """Measure how trials are trained fastest, each way with as many of them at once as it would have.

    A simpler way is kept unless another is clearly faster. What cannot be run counts as not fast at all; if that is
    everything, the trials themselves will tell why.

    Args:
        executor: its workers are arranged as the ways ask for.
        slots: one per GPU, or one per core.
        probe: the network that needs the most memory.
        due: trials that the search asks for at a time.
        seeds: most trials of one network among them.
        threads: per trial, where the user says so.
        together: seeds per network, where the user says so.
    """
    is_gpu = slots[0].device != "cpu"
    pace = (
        _on_gpu(executor, slots, replace(probe, threads=threads or 1))
        if is_gpu
        else _on_cpu(executor, slots, probe, due, threads)
    )
    if together is None:
        probe = replace(probe, threads=pace.threads, micro_batch=pace.micro_batch, sharing=pace.packed)
        together = _together(executor, arranged(slots, pace), probe, due, seeds)
    return replace(pace, together=together)


def is_open(slots: Sequence[Slot], *, seeds: int, threads: int | None, together: int | None) -> bool:
    """Whether there is more than one way, so that `measured` measures."""
    if slots[0].device != "cpu":
        return True
    return len(_counts(len(slots), threads)) > 1 or (together is None and seeds > 1)


def arranged(slots: Sequence[Slot], pace: Pace) -> list[Slot]:
    """The slots of a pace: GPUs several times over where trials are packed, as many on a CPU as its cores have room."""
    if slots[0].device == "cpu":
        return list(slots[: max(1, len(slots) // pace.threads)])
    return [slot for _ in range(pace.packed) for slot in slots]  # works go to the first idle ones: to every GPU in turn


def _counts(cores: int, threads: int | None) -> list[int]:
    """Threads that a trial may have, the fewest first."""
    return [threads] if threads else [count for count in (1, 2, 4, 8, 16, 32) if count == 1 or count <= cores]


def _on_cpu(executor: LocalExecutor, slots: Sequence[Slot], probe: Probe, due: int, threads: int | None) -> Pace:
    """Few processes of many threads, or many of few."""
    cores = len(slots)
    counts = _counts(cores, threads)
    if len(counts) == 1:
        return Pace(threads=counts[0])
    executor.arrange(slots[:due])
    rates = {
        count: executor.measure(replace(probe, threads=count), slots[: min(due, max(1, cores // count))])
        for count in counts
    }
    return Pace(threads=_fastest(rates))


def _on_gpu(executor: LocalExecutor, slots: Sequence[Slot], probe: Probe) -> Pace:
    """The largest micro-batch that fits, then as many trials beside each other as pay, tried on the first GPU."""
    batch = probe.recipe.batch_size
    sizes = [batch, *(batch >> halvings for halvings in range(1, batch.bit_length() - 1))]
    fits = (size for size in sizes if executor.measure(replace(probe, micro_batch=size), slots[:1]))
    size = next(fits, batch)
    probe = replace(probe, micro_batch=size)
    rates = {}
    for packed in (1, 2, MOST_PACKED):
        beside = [slots[0]] * packed
        executor.arrange([*beside, *slots[1:]])
        rates[packed] = executor.measure(replace(probe, sharing=packed), beside)
    return Pace(threads=probe.threads, packed=_fastest(rates), micro_batch=None if size == batch else size)


def _together(executor: LocalExecutor, slots: Sequence[Slot], probe: Probe, due: int, seeds: int) -> int:
    """All seeds of a network as one, or each alone."""
    if seeds == 1:
        return 1
    beside = {count: slots[: max(1, due // count)] for count in (1, seeds)}
    executor.arrange(beside[1])
    return _fastest({count: executor.measure(replace(probe, together=count), beside[count]) for count in beside})


def _fastest(rates: dict[int, float]) -> int:
    """The way with the highest rate, where it is clearly higher than that of a simpler one; simpler ones come first."""
    best = next(iter(rates))
    for way, rate in rates.items():
        if rate > GAIN * rates[best]:
            best = way
    return best
