"""The engine of one machine, with real spawned workers: order, bits, kills, failures."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from preparing import follow, save
from safetensors.torch import load

from scalesearch.engine.local import LocalExecutor
from scalesearch.engine.pacing import arranged
from scalesearch.engine.slots import Slot, local_slots
from scalesearch.engine.work import UNBORN, Event, Failed, Finished, Kept, Noticed, Progress, Work
from scalesearch.errors import DataError, EngineError, StudyError
from scalesearch.pace import Pace
from scalesearch.proxy.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from scalesearch.proxy.images import Images
from scalesearch.recipe import EpochResult, Recipe
from scalesearch.spec import Head, Network, Stage, Stem
from scalesearch.trials import TrialKey

SLOT = Slot(device="cpu", name="cpu")
NETWORK = Network(
    stem=Stem(width=8, stride=1),
    stages=(
        Stage(block="mbconv", depth=1, width=8, stride=2),
        Stage(block="mbconv", depth=2, width=12, expansion=2.0, se_ratio=0.25),
    ),
    head=Head(width=16, dropout=0.1),
    resolution=10,
    num_classes=3,
)
RECIPE = Recipe(batch_size=16, norm_images=32, crop=0.1, flip=True)


def striped(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % 3
    images = np.random.default_rng(seed).integers(0, 128, (count, 1, 10, 10), np.uint8)
    for label in range(3):
        images[labels == label, :, label::3] += 100
    return images, labels.astype(np.int64)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine") / "data"
    (images, labels), (held, held_labels) = striped(64, 0), striped(30, 1)
    save(
        Images(
            train_images=images,
            train_labels=labels,
            validation_images=held,
            validation_labels=held_labels,
            fingerprint="tiny",
        ),
        folder,
    )
    return folder


@pytest.fixture(scope="module")
def one_slot() -> Iterator[LocalExecutor]:
    executor = LocalExecutor([SLOT])
    yield executor
    executor.close()


def work(data: Path, folder: Path, *, seed: int = 0, epochs: int = 2) -> Work:
    key = TrialKey(proxy="tiny", seed=seed, rung=epochs)
    folder.mkdir(exist_ok=True)
    return Work(
        keys=(key,),
        network=NETWORK,
        recipe=RECIPE,
        data=data,
        checkpoint=folder / f"{key}.safetensors",
        log=folder / f"{key}.log",
    )


def carried_out(executor: LocalExecutor, works: Sequence[Work]) -> list[Event]:
    """Everything that happens until all works have ended."""
    waiting, found = list(works), list[Event]()
    while waiting or executor.busy:
        while waiting and executor.idle:
            executor.submit(waiting.pop(0))
        found += executor.events()
    return found


def results(events: Sequence[Event], key: TrialKey) -> list[EpochResult]:
    return [event.result for event in events if isinstance(event, Progress) and event.key == key]


def stored(path: Path) -> Checkpoint:
    """What the newest checkpoint holds, whoever it belongs to."""
    found = read_checkpoint(path, identity_of(path))
    assert found is not None
    return found


def begun(executor: LocalExecutor, work: Work) -> list[Event]:
    """Everything that happens until an epoch of a work is trained."""
    executor.submit(work)
    found: list[Event] = []
    while not any(isinstance(event, Progress) for event in found):
        found += executor.events()
    return found


def stopped(executor: LocalExecutor, work: Work) -> list[Event]:
    """Everything that happens until a work has been stopped, behind its first epoch at the soonest."""
    found = begun(executor, work)
    executor.stop(within=60)
    while executor.busy:
        found += executor.events()
    return found


def identity_of(path: Path) -> str:
    """What a checkpoint belongs to."""
    packed = load(path.read_bytes().partition(b"\n")[2])
    return json.loads(packed["about"].numpy().tobytes())["identity"]


def new_workers(before: set[BaseProcess]) -> list[BaseProcess]:
    return sorted(set(multiprocessing.active_children()) - before, key=lambda one: one.pid or 0)


# ---- events and bits


def test_a_trial_reports_each_epoch_in_order_and_then_its_end(one_slot: LocalExecutor, data: Path, tmp_path: Path):
    one = work(data, tmp_path, epochs=3)
    *epochs, last = carried_out(one_slot, [one])
    assert [type(event) for event in epochs] == [Progress] * 3
    assert [result.epoch for result in results(epochs, one.keys[0])] == [1, 2, 3]
    assert last == Finished(one.keys[0])
    assert (one_slot.idle, one_slot.busy) == (1, 0)


def test_an_executor_without_work_has_nothing_to_tell_and_does_not_wait(one_slot: LocalExecutor):
    assert one_slot.events() == []


def test_a_trial_of_a_few_seconds_writes_no_checkpoint(one_slot: LocalExecutor, data: Path, tmp_path: Path):
    one = work(data, tmp_path)
    first = carried_out(one_slot, [one])
    assert not one.checkpoint.exists()
    assert carried_out(one_slot, [one]) == first


def test_bits_depend_on_the_seed_but_not_on_the_executor_or_its_slots(
    one_slot: LocalExecutor, data: Path, tmp_path: Path
):
    ones = [work(data, tmp_path / "one", seed=seed) for seed in range(4)]
    twos = [work(data, tmp_path / "two", seed=seed) for seed in range(4)]
    two_slots = LocalExecutor([SLOT, SLOT])
    try:
        in_one, in_two = carried_out(one_slot, ones), carried_out(two_slots, twos[::-1])
    finally:
        two_slots.close()
    for left in ones:
        assert results(in_one, left.keys[0]) == results(in_two, left.keys[0])
    assert results(in_one, ones[0].keys[0]) != results(in_one, ones[1].keys[0])


# ---- kills


def test_seeds_trained_together_come_to_what_each_comes_to_alone(data: Path, tmp_path: Path, one_slot: LocalExecutor):
    network = replace(NETWORK, head=Head(width=16))  # a stack draws no random numbers
    alone = [replace(work(data, tmp_path / "alone", seed=seed), network=network) for seed in (3, 5)]
    keys = tuple(one.keys[0] for one in alone)
    together = replace(alone[0], keys=keys, checkpoint=tmp_path / "together.safetensors")
    expected, found = carried_out(one_slot, alone), carried_out(one_slot, [together])
    assert [event for event in found if isinstance(event, Finished)] == [Finished(key) for key in keys]
    for key in keys:
        for one, other in zip(results(found, key), results(expected, key), strict=True):
            assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
            assert one.loss == pytest.approx(other.loss, rel=1e-3)
            assert one.accuracy == pytest.approx(other.accuracy, abs=3.4)  # one image in 30


def test_a_slot_is_free_as_soon_as_its_trial_has_ended(data: Path, tmp_path: Path):
    executor = LocalExecutor([SLOT, SLOT])
    try:
        short, long = work(data, tmp_path / "short", epochs=1), work(data, tmp_path / "long", seed=1, epochs=400)
        executor.submit(long)
        executor.submit(short)
        while Finished(short.keys[0]) not in executor.events():
            pass
        assert (executor.idle, executor.busy) == (1, 1)
    finally:
        executor.close()


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_stopped_trial_goes_on_behind_the_step_it_was_stopped_at(
    one_slot: LocalExecutor, data: Path, tmp_path: Path, seeds: int
):
    first = work(data, tmp_path / "stopped", epochs=60)
    network = replace(NETWORK, head=Head(width=16)) if seeds > 1 else NETWORK
    keys = tuple(replace(first.keys[0], seed=seed) for seed in range(seeds))
    one = replace(first, network=network, keys=keys)
    expected = carried_out(one_slot, [replace(one, checkpoint=tmp_path / "undisturbed")])
    executor = LocalExecutor([SLOT])
    try:
        told = stopped(executor, one)
    finally:
        executor.close()
    checkpoint = stored(one.checkpoint)
    assert told[-2 * seeds :] == [
        *(Kept(key, checkpoint.step) for key in keys),
        *(Failed(key, f"stopped behind step {checkpoint.step}", final=False, counts=False) for key in keys),
    ]
    epochs = len(checkpoint.results)
    assert 4 * epochs <= checkpoint.step <= 4 * epochs + 4  # 64 images in batches of 16
    marked = [[replace(result, accuracy=-1.0) for result in epoch] for epoch in checkpoint.results]
    rewritten = replace(checkpoint, results=marked)
    write_checkpoint(one.checkpoint, rewritten, identity_of(one.checkpoint))
    events = carried_out(one_slot, [one])
    for index, key in enumerate(keys):
        found = results(events, key)
        assert [result.accuracy for result in found[:epochs]] == [-1.0] * epochs  # taken up, not trained again
        assert found[epochs:] == results(expected, key)[epochs:]
        assert events[index - seeds] == Finished(key)


def test_a_stopped_trial_with_nowhere_to_write_says_so_and_ends(data: Path, tmp_path: Path):
    one = work(data, tmp_path, epochs=400)
    one.checkpoint.mkdir()
    (one.checkpoint / "file").touch()
    before = one.checkpoint.with_name(f"{one.checkpoint.name}.before")
    before.mkdir()
    (before / "file").touch()
    executor = LocalExecutor([SLOT])
    try:
        told = stopped(executor, one)
    finally:
        executor.close()
    [notice] = [event for event in told if isinstance(event, Noticed)]
    assert notice.text.startswith(f"no checkpoint can be written to {tmp_path}: ")
    assert isinstance(told[-1], Failed)
    assert not told[-1].counts


def test_sigterm_to_a_worker_has_it_leave_with_a_checkpoint_and_costs_no_attempt(data: Path, tmp_path: Path):
    before = set(multiprocessing.active_children())
    executor = LocalExecutor([SLOT])
    try:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            one = work(data, tmp_path / str(number), epochs=400)
            told = begun(executor, one)
            [worker] = new_workers(before)
            assert worker.pid is not None
            os.kill(worker.pid, number)
            while executor.busy:
                told += executor.events()
            assert isinstance(told[-1], Failed)
            assert not told[-1].counts
            assert stored(one.checkpoint).step > 0
            worker.join(60)
            assert worker.exitcode == 0
    finally:
        executor.close()


@pytest.mark.parametrize(("number", "is_kill"), [(signal.SIGKILL, True), (signal.SIGSEGV, False)])
def test_a_worker_that_dies_is_replaced_its_trial_comes_to_the_same_and_who_ended_it_is_told(
    one_slot: LocalExecutor, data: Path, tmp_path: Path, number: signal.Signals, is_kill: bool
):
    undisturbed = work(data, tmp_path / "undisturbed", epochs=12)
    expected = results(carried_out(one_slot, [undisturbed]), undisturbed.keys[0])
    killed = work(data, tmp_path / "killed", epochs=12)
    before = set(multiprocessing.active_children())
    executor = LocalExecutor([SLOT])
    try:
        begun(executor, killed)
        [worker] = new_workers(before)
        assert worker.pid is not None
        os.kill(worker.pid, number)
        told: list[Event] = []
        while executor.busy:
            told += executor.events()
        assert told[-1] == Failed(killed.keys[0], f"worker killed by {number.name}", final=False, is_kill=is_kill)
        assert executor.idle == 1
        events = carried_out(executor, [killed])
    finally:
        executor.close()
    assert events[-1] == Finished(killed.keys[0])
    assert results(events, killed.keys[0]) == expected


def test_a_worker_that_died_between_trials_costs_its_next_trial_nothing(data: Path, tmp_path: Path):
    before = set(multiprocessing.active_children())
    executor = LocalExecutor([SLOT])
    try:
        [worker] = new_workers(before)
        worker.kill()
        worker.join()
        one = work(data, tmp_path)
        first, *rest = carried_out(executor, [one])
    finally:
        executor.close()
    reason = "worker killed by SIGKILL"
    assert first == Noticed(f"a worker on cpu ended before it took up work: {reason}; replaced")
    assert [type(event) for event in rest] == [Progress, Progress, Finished]


def test_workers_killed_before_they_take_up_work_are_replaced_for_longer_than_those_that_fail(
    data: Path, tmp_path: Path
):
    before = set(multiprocessing.active_children())
    executor, told = LocalExecutor([SLOT]), []
    try:
        executor.submit(work(data, tmp_path))
        for _ in range(2 * UNBORN):
            [newborn] = new_workers(before)
            newborn.kill()
            newborn.join()
            told += executor.events()
        while executor.busy:
            told += executor.events()
    finally:
        executor.close()
    assert [type(event) for event in told] == [Noticed, Progress, Progress, Finished]


def test_workers_that_never_begin_end_the_run_with_what_they_said(data: Path, tmp_path: Path):
    executor = LocalExecutor([Slot(device="nonsense", name="cpu")])
    try:
        with pytest.raises(
            EngineError, match=r"workers on nonsense end before they take up work: RuntimeError: .*device"
        ):
            carried_out(executor, [work(data, tmp_path)])
    finally:
        executor.close()


def test_a_worker_that_hangs_is_replaced_and_its_trial_goes_on(one_slot: LocalExecutor, data: Path, tmp_path: Path):
    one = work(data, tmp_path / "hung", epochs=40)
    expected = carried_out(one_slot, [work(data, tmp_path / "undisturbed", epochs=40)])
    before = set(multiprocessing.active_children())
    executor = LocalExecutor([SLOT], silence=5)
    try:
        told = begun(executor, one)
        [worker] = new_workers(before)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGSTOP)
        while executor.busy:
            told += executor.events()
        again = carried_out(executor, [one])
    finally:
        executor.close()
    *_, notice, failed = told
    assert isinstance(notice, Noticed)
    assert notice.text.startswith("worker hung: no sign of life for 5 s on cpu; replaced")
    assert isinstance(failed, Failed)
    assert (failed.final, failed.counts, failed.is_kill) == (False, True, False)  # it was we who killed it
    assert results(again, one.keys[0]) == results(expected, one.keys[0])


def test_ctrl_c_does_not_reach_the_trial_of_a_worker(data: Path, tmp_path: Path):
    before = set(multiprocessing.active_children())
    executor = LocalExecutor([SLOT])
    try:
        [worker] = new_workers(before)
        one = work(data, tmp_path, epochs=4)
        first = begun(executor, one)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGINT)
        rest = carried_out(executor, [])
    finally:
        executor.close()
    assert len(results([*first, *rest], one.keys[0])) == 4
    assert rest[-1] == Finished(one.keys[0])


def test_close_ends_the_workers_at_once_and_keeps_the_checkpoint(data: Path, tmp_path: Path):
    before = set(multiprocessing.active_children())
    executor = LocalExecutor([SLOT])
    one = work(data, tmp_path, epochs=5000)
    begun(executor, one)
    start = time.monotonic()
    executor.close()
    assert time.monotonic() - start < 2
    assert new_workers(before) == []


COORDINATOR = """
import multiprocessing, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_engine import SLOT, LocalExecutor, begun, work

if __name__ == "__main__":
    executor = LocalExecutor([SLOT, SLOT])
    begun(executor, work(Path(sys.argv[2]), Path(sys.argv[3]), epochs=5000))
    print(*(one.pid for one in multiprocessing.active_children()), flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
def test_workers_die_with_their_coordinator_whether_they_train_or_wait(data: Path, tmp_path: Path):
    script = tmp_path / "coordinator.py"
    script.write_text(COORDINATOR)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(data), str(tmp_path / "trials")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as coordinator:
        assert coordinator.stdout is not None
        workers = [int(pid) for pid in coordinator.stdout.readline().split()]
        assert len(workers) == 2
        assert all(is_alive(pid) for pid in workers)
        coordinator.kill()
        coordinator.wait()
        end = time.monotonic() + 5
        while time.monotonic() < end and any(is_alive(pid) for pid in workers):
            time.sleep(0.02)
        assert not any(is_alive(pid) for pid in workers)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---- failures


@pytest.mark.parametrize("harm", ["gone", "cut", "changed"])
def test_images_that_are_damaged_under_a_run_are_told_and_the_slot_stays(
    one_slot: LocalExecutor, data: Path, tmp_path: Path, harm: str
):
    damaged = tmp_path / "data"
    shutil.copytree(data, damaged)
    file = damaged / "train_images.npy"
    content = file.read_bytes()
    harmed = {"gone": None, "cut": content[:-1], "changed": content[:-1] + bytes([content[-1] ^ 1])}[harm]
    file.unlink() if harmed is None else file.write_bytes(harmed)
    with pytest.raises(DataError, match=re.escape(str(damaged))):
        carried_out(one_slot, [replace(work(damaged, tmp_path), data=damaged)])
    assert carried_out(one_slot, [work(data, tmp_path, seed=1)])[-1] == Finished(
        replace(work(data, tmp_path).keys[0], seed=1)
    )
    file.write_bytes(content)  # touched, but what it was
    assert isinstance(carried_out(one_slot, [work(damaged, tmp_path)])[-1], Finished)


def test_images_that_are_cut_under_a_worker_which_streams_them_end_the_run_and_fail_no_trial(
    data: Path, tmp_path: Path
):
    cut = tmp_path / "data"
    shutil.copytree(data, cut)
    streams = replace(work(cut, tmp_path / "cut", epochs=2_000), sharing=2**60)  # no memory to have them whole in
    before = set(multiprocessing.active_children())
    with closing(LocalExecutor([SLOT])) as executor:
        begun(executor, streams)
        [worker] = new_workers(before)
        os.truncate(cut / "train_images.npy", 0)
        found: list[Event] = []
        with pytest.raises(DataError, match=re.escape(f"{cut} does not hold the images of a study: train_images.npy")):
            follow(executor, found)
        assert worker.exitcode == -signal.SIGBUS
        assert [event for event in found if isinstance(event, Failed)] == []
        assert isinstance(carried_out(executor, [work(data, tmp_path / "whole")])[-1], Finished)


def test_a_worker_that_dies_of_a_bus_error_though_its_images_are_whole_fails_its_trial(data: Path, tmp_path: Path):
    one = work(data, tmp_path, epochs=2_000)
    before = set(multiprocessing.active_children())
    with closing(LocalExecutor([SLOT])) as executor:
        begun(executor, one)
        [worker] = new_workers(before)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGBUS)
        found: list[Event] = []
        follow(executor, found)
    assert found[-1] == Failed(one.keys[0], "worker killed by SIGBUS", final=False)


def test_a_loss_that_is_not_finite_fails_for_good(one_slot: LocalExecutor, data: Path, tmp_path: Path):
    one = replace(work(data, tmp_path), recipe=replace(RECIPE, learning_rate=1e30))
    failed = carried_out(one_slot, [one])[-1]
    assert isinstance(failed, Failed)
    assert failed.final
    assert "diverged" in failed.reason


def test_an_unforeseen_failure_is_worth_another_try_and_leaves_its_traceback(
    one_slot: LocalExecutor, data: Path, tmp_path: Path
):
    one = work(data, tmp_path)
    failed = carried_out(one_slot, [replace(one, threads=0)])[-1]
    assert isinstance(failed, Failed)
    assert (failed.final, failed.counts) == (False, True)
    assert failed.reason.startswith("RuntimeError: ")
    assert "\n" not in failed.reason
    assert "Traceback" in one.log.read_text()
    assert carried_out(one_slot, [one])[-1] == Finished(one.keys[0])


def test_a_work_that_failed_goes_to_another_slot_and_its_own_rests_while_that_one_trains(data: Path, tmp_path: Path):
    one = work(data, tmp_path)
    before = set(multiprocessing.active_children())
    with closing(LocalExecutor([SLOT, SLOT])) as executor:
        first, second = new_workers(before)
        carried_out(executor, [replace(one, threads=0)])
        assert executor.idle == 1
        begun(executor, replace(one, keys=(replace(one.keys[0], rung=2_000),)))
        assert executor.idle == 0
        second.kill()  # which is no failure of its slot
        while executor.busy:
            executor.events()
        assert executor.idle == 1
        assert first.is_alive()


def test_a_slot_that_rests_takes_a_work_where_no_other_can(one_slot: LocalExecutor, data: Path, tmp_path: Path):
    one = work(data, tmp_path)
    carried_out(one_slot, [replace(one, threads=0)])
    assert one_slot.idle == 1
    assert carried_out(one_slot, [one])[-1] == Finished(one.keys[0])


@pytest.mark.parametrize("harm", ["garbage", "another recipe", "another seed"])
def test_a_checkpoint_that_is_not_this_trials_is_trained_anew(
    one_slot: LocalExecutor, data: Path, tmp_path: Path, harm: str
):
    one = work(data, tmp_path / "one", epochs=60)
    expected = results(carried_out(one_slot, [one]), one.keys[0])
    changed = {"another recipe": replace(one, recipe=replace(RECIPE, batch_size=8))}
    other = changed.get(harm, work(data, tmp_path / "two", seed=9, epochs=60))
    executor = LocalExecutor([SLOT])
    try:
        stopped(executor, replace(other, checkpoint=one.checkpoint))
    finally:
        executor.close()
    assert one.checkpoint.exists()
    if harm == "garbage":
        one.checkpoint.write_bytes(b"\xff" * 1000)
    assert results(carried_out(one_slot, [one]), one.keys[0]) == expected


# ---- slots


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU, and then a slot per GPU")
@pytest.mark.parametrize("threads", [1, 2, 10_000])
def test_slots_share_the_cores_that_the_process_may_use(threads: int):
    slots = local_slots(need_gpu=False)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert len(slots) == cores
    assert {slot.device for slot in slots} == {"cpu"}
    assert len(arranged(slots, Pace(threads=threads))) == max(1, cores // threads)


def test_packed_gpus_are_slots_several_times_over_and_few_works_go_to_all_of_them():
    slots = [Slot(device=f"cuda:{index}", name="gpu") for index in range(2)]
    assert [slot.device for slot in arranged(slots, Pace(packed=2))] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_plan_that_counts_on_a_gpu_stops_with_the_mend_where_torch_has_none():
    with pytest.raises(StudyError, match=r"torch cannot use it; .*--preset quick"):
        local_slots(need_gpu=True)
