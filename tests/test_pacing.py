"""The pace of a plan: measured by real workers, kept in the plan, simplest way first."""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalesearch.engine.local import LocalExecutor
from scalesearch.engine.pacing import GAIN, _fastest, arranged, is_open, measured
from scalesearch.engine.slots import Slot
from scalesearch.engine.work import Probe
from scalesearch.errors import PlanError
from scalesearch.pace import Pace, grouped
from scalesearch.recipe import Recipe
from scalesearch.spec import Head, Network, Stage, Stem
from scalesearch.trials import TrialKey

SLOT = Slot(device="cpu", name="cpu")
NETWORK = Network(
    stem=Stem(width=8, stride=1),
    stages=(Stage(block="mbconv", depth=2, width=8, stride=2, expansion=2.0, se_ratio=0.25),),
    head=Head(width=16),
    resolution=10,
    num_classes=3,
)
PROBE = Probe(network=NETWORK, recipe=Recipe(batch_size=16), seconds=0.2)


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    found = LocalExecutor([SLOT, SLOT])
    yield found
    found.close()


def test_a_probe_counts_the_images_of_all_seeds(executor: LocalExecutor):
    for together in (1, 3):
        rate = executor.measure(replace(PROBE, together=together), [SLOT])
        assert 50 < rate < 1e6  # images per second, not steps and not images per batch


def test_what_cannot_be_run_is_not_fast_and_harms_no_worker(executor: LocalExecutor):
    random = replace(NETWORK, drop_path=0.2)  # a stack would draw other numbers than its networks
    assert executor.measure(replace(PROBE, network=random, together=2), [SLOT]) == 0.0
    huge = replace(PROBE, recipe=Recipe(batch_size=2**31))
    assert executor.measure(huge, [SLOT]) == 0.0
    assert executor.measure(PROBE, [SLOT, SLOT]) > 0


def test_probes_are_counted_while_all_of_them_run():
    """A worker that has just been spawned loads its libraries for a second; the other one waits for it."""
    late = Slot(device="cpu", name="late")
    executor = LocalExecutor([SLOT])
    try:
        alone = executor.measure(replace(PROBE, seconds=0.5), [SLOT])
        executor.arrange([SLOT, late])
        start = time.monotonic()
        both = executor.measure(replace(PROBE, seconds=0.5), [SLOT, late])
        assert time.monotonic() - start > 0.5
        assert both > alone / 2
        assert executor.measure(replace(PROBE, seconds=0.1), [SLOT]) > 0  # nothing is left in the pipes
    finally:
        executor.close()


def test_a_probe_that_cannot_be_run_ends_those_beside_it(executor: LocalExecutor):
    executor._workers[1].process.kill()
    assert executor.measure(PROBE, [SLOT, SLOT]) == 0.0
    assert executor.measure(PROBE, [SLOT, SLOT]) > 0


@pytest.mark.parametrize(
    "values", [{"threads": 0}, {"threads": "two"}, {"packed": -1}, {"together": True}, {"micro_batch": 1}]
)
def test_a_pace_that_is_none_is_refused_with_its_key(values: dict[str, Any]):
    with pytest.raises(PlanError, match=f"pace.{next(iter(values))} = "):
        Pace(**values)


def test_a_pace_has_threads_that_the_cores_have_and_seeds_that_are_due(executor: LocalExecutor):
    found = measured(executor, [SLOT, SLOT], PROBE, due=4, seeds=2)
    assert found.threads in (1, 2)
    assert found.together in (1, 2)
    assert (found.packed, found.micro_batch) == (1, None)


NOBODY = cast(LocalExecutor, None)


def test_what_the_user_says_is_not_measured():
    said = Pace(threads=3, together=2)
    assert measured(NOBODY, [SLOT] * 8, PROBE, due=4, seeds=3, threads=3, together=2) == said


def test_nothing_is_measured_where_there_is_nothing_to_choose():
    assert measured(NOBODY, [SLOT], PROBE, due=4, seeds=1) == Pace()


@pytest.mark.parametrize(
    ("cores", "seeds", "threads", "together", "expected"),
    [
        (1, 1, None, None, False),
        (8, 1, 3, None, False),
        (8, 3, 3, 2, False),
        (2, 1, None, None, True),
        (1, 2, 1, None, True),
    ],
)
def test_measuring_is_told_of_where_something_is_measured(
    cores: int, seeds: int, threads: int | None, together: int | None, expected: bool
):
    class Asked(Exception):
        """A worker was asked for."""

    class Nobody:
        def arrange(self, slots: Sequence[Slot]) -> None:
            raise Asked

    said = {"seeds": seeds, "threads": threads, "together": together}
    assert is_open([SLOT] * cores, **said) == expected
    with pytest.raises(Asked) if expected else nullcontext():
        measured(cast(LocalExecutor, Nobody()), [SLOT] * cores, PROBE, due=4, **said)


def test_workers_that_fit_are_kept_and_others_stopped():
    executor = LocalExecutor([SLOT])
    try:
        [kept] = executor._workers
        other = Slot(device="cpu", name="another")
        executor.arrange([other, SLOT])
        assert [worker.slot for worker in executor._workers] == [other, SLOT]
        assert executor._workers[1] is kept
        dropped = executor._workers[0].process
        executor.arrange([SLOT])
        assert not dropped.is_alive()
        assert kept.process.is_alive()
    finally:
        executor.close()


def test_a_way_is_taken_only_if_it_is_clearly_faster_than_a_simpler_one():
    assert _fastest({1: 100.0, 2: 100.0 * GAIN}) == 1
    assert _fastest({1: 100.0, 2: 101.0 * GAIN}) == 2
    assert _fastest({1: 100.0, 2: 120.0, 4: 125.0}) == 2
    assert _fastest({1: 0.0, 2: 0.0}) == 1


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=6, unique=True), st.integers(1, 5), st.integers(1, 6))
def test_groups_hold_every_trial_once_and_one_network_each(names: list[str], seeds: int, together: int):
    keys = [TrialKey(proxy=name, seed=seed, rung=2) for seed in range(seeds) for name in names]
    groups = grouped(keys, together)
    assert sorted(key for group in groups for key in group) == sorted(keys)
    assert all(len({key.proxy for key in group}) == 1 and len(group) <= together for group in groups)
    assert len(groups) == len(names) * -(-seeds // together)
    assert [group[0] for group in groups] == sorted((group[0] for group in groups), key=keys.index)


def test_trials_of_other_lengths_and_stages_are_no_group():
    key = TrialKey(proxy="a", seed=0, rung=2)
    keys = [key, replace(key, rung=4), replace(key, stage="confirm"), replace(key, seed=1)]
    assert [len(group) for group in grouped(keys, 4)] == [2, 1, 1]


@pytest.mark.parametrize(("cores", "threads", "slots"), [(8, 3, 2), (2, 8, 1), (4, 1, 4)])
def test_a_cpu_has_as_many_slots_as_its_cores_have_room(cores: int, threads: int, slots: int):
    assert len(arranged([SLOT] * cores, Pace(threads=threads))) == slots


GPU = Slot(device="cuda:0", name="a GPU")


class Gpu:
    """Stands for workers on a GPU that is not here: its memory in images in flight, its rate by trials beside it."""

    def __init__(self, memory: int, rates: dict[int, float]) -> None:
        self.memory, self.rates = memory, rates
        self.places = [GPU]

    def arrange(self, slots: Sequence[Slot]) -> None:
        self.places = list(slots)

    def measure(self, probe: Probe, slots: Sequence[Slot]) -> float:
        assert probe.sharing == len(slots)
        assert all(slots.count(slot) <= self.places.count(slot) for slot in slots)
        in_flight = len(slots) * probe.together * (probe.micro_batch or probe.recipe.batch_size)
        return self.rates[len(slots)] * probe.together if in_flight <= self.memory else 0.0


BATCH = PROBE.recipe.batch_size
PACKS = {1: 1.0, 2: 1.9, 4: 3.5}


@pytest.mark.parametrize(
    ("memory", "rates", "expected"),
    [
        (100 * BATCH, PACKS, Pace(packed=4)),
        (3 * BATCH, PACKS, Pace(packed=2)),
        (BATCH, PACKS, Pace()),
        (BATCH - 1, PACKS, Pace(micro_batch=BATCH // 2)),  # a half where a whole batch does not fit, and no packing
        (5, PACKS, Pace(packed=1, micro_batch=4)),
        (100 * BATCH, {1: 1.0, 2: 1.05, 4: 1.09}, Pace()),
        (100 * BATCH, {1: 1.0, 2: 1.5, 4: 1.6}, Pace(packed=2)),
    ],
)
def test_a_gpu_has_the_largest_micro_batch_that_fits_and_as_many_trials_as_pay(
    memory: int, rates: dict[int, float], expected: Pace
):
    gpu = cast(LocalExecutor, Gpu(memory, rates))
    assert measured(gpu, [GPU], PROBE, due=4, seeds=2, together=1) == expected


def test_seeds_are_stacked_on_a_gpu_only_within_the_memory_that_packed_trials_leave():
    for memory, together in ((8 * BATCH, 2), (7 * BATCH, 1)):
        gpu = cast(LocalExecutor, Gpu(memory, PACKS))
        assert measured(gpu, [GPU], PROBE, due=8, seeds=2) == Pace(packed=4, together=together)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device that torch can use")
def test_the_largest_micro_batch_that_fits_is_found_on_the_gpu():
    gpu = Slot(device="cuda:0", name=torch.cuda.get_device_name(0))
    executor = LocalExecutor([gpu])
    try:
        large = replace(PROBE, network=replace(NETWORK, resolution=256), recipe=Recipe(batch_size=2**15))
        found = measured(executor, [gpu], large, due=4, seeds=1, together=1)
        assert found.micro_batch is not None
        assert 2 <= found.micro_batch < 2**15
    finally:
        executor.close()
