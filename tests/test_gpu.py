"""What needs a CUDA device: training in bf16, resuming there, and a whole `standard` run. Skips visibly without one."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from preparing import save

from scalesearch.engine.local import LocalExecutor
from scalesearch.engine.slots import Slot
from scalesearch.engine.trial import module_of
from scalesearch.engine.work import Event, Failed, Finished, Work
from scalesearch.errors import TrialDivergedError
from scalesearch.proxy.device import DeviceImages, on_device
from scalesearch.proxy.images import Images
from scalesearch.proxy.train import Training, finite
from scalesearch.recipe import EpochResult, Recipe
from scalesearch.spec import Head, Network, Stage, Stem
from scalesearch.trials import TrialKey

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device that torch can use"),
]
GPU = torch.device("cuda", 0)
NETWORK = Network(
    stem=Stem(width=16, stride=1),
    stages=(
        Stage(block="mbconv", depth=2, width=16, stride=2, expansion=4.0, se_ratio=0.25),
        Stage(block="basic", depth=1, width=24, stride=2),
    ),
    head=Head(width=32),
    resolution=16,
    num_classes=3,
)
RECIPE = Recipe(batch_size=32, norm_images=64, crop=0.1, flip=True)


def images(*, memory: int = 2**30) -> DeviceImages:
    """Three classes that differ in colour, on the GPU; `memory` of 0 bytes has them streamed there."""
    return on_device(prepared(), resolution=16, device=GPU, memory=memory)


def prepared() -> Images:
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = torch.arange(count) % 3
        pixels = torch.randint(0, 128, (count, 3, 16, 16), generator=generator)
        tinted = pixels + 100 * torch.eye(3, dtype=torch.int64)[labels].view(count, 3, 1, 1)
        return tinted.byte().numpy(), labels.numpy()

    (train_images, train_labels), (held, held_labels) = part(256), part(90)
    return Images(
        train_images=train_images,
        train_labels=train_labels,
        validation_images=held,
        validation_labels=held_labels,
        fingerprint="",
    )


def training(
    recipe: Recipe = RECIPE,
    *,
    epochs: int = 3,
    seeds: Sequence[int] = (0,),
    capture: bool = True,
    network: Network = NETWORK,
    **how: Any,
) -> Training:
    module = module_of(network, recipe, seeds, GPU)
    memory = how.pop("memory", 2**30)
    return Training(module, images(memory=memory), recipe, epochs=epochs, seeds=seeds, capture=capture, **how)


def results(one: Training) -> list[EpochResult]:
    """Of the first seed."""
    return [found[0] for found in one.results()]


def close(found: Sequence[EpochResult], expected: Sequence[EpochResult]) -> None:
    """Equal within what bf16 and sums without a fixed order leave."""
    assert [result.epoch for result in found] == [result.epoch for result in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, abs=0.03)
        assert one.accuracy == pytest.approx(other.accuracy, abs=5)


def test_training_runs_in_bf16_with_finite_losses_and_learns():
    one = training(epochs=4)
    types = set[torch.dtype]()
    one.state.module.get_submodule("stem").register_forward_hook(lambda layer, inputs, output: types.add(output.dtype))
    found = results(one)
    assert all(math.isfinite(result.train_loss + result.loss) for result in found)
    assert found[-1].accuracy > 80
    assert types == {torch.bfloat16}
    assert {weight.dtype for weight in one.state.module.parameters()} == {torch.float32}


RECIPES = pytest.mark.parametrize(
    "recipe",
    [RECIPE, replace(RECIPE, average=0.0), replace(RECIPE, optimizer="sgd", learning_rate=0.1, momentum=0.8)],
    ids=["adamw-averaged", "adamw", "sgd-averaged"],
)


@RECIPES
@pytest.mark.parametrize("micro_batch", [None, 12])
def test_a_captured_step_does_what_the_same_step_does_kernel_by_kernel(recipe: Recipe, micro_batch: int | None):
    captured, plain = (training(recipe, capture=capture, micro_batch=micro_batch) for capture in (True, False))
    close(results(captured), results(plain))
    for one, other in zip(captured.state.module.parameters(), plain.state.module.parameters(), strict=True):
        assert (one - other).norm() <= 0.05 * other.norm() + 1e-3


def test_dropout_differs_from_step_to_step_of_a_graph_and_is_the_same_for_a_seed():
    network = replace(NETWORK, head=Head(width=32, dropout=0.5))
    one, other = (training(network=network) for _ in range(2))
    close(results(one), results(other))
    still = training(replace(RECIPE, learning_rate=1e-12), epochs=1, network=network)
    next(still.results())
    losses = []
    for _ in range(4):
        before = float(still._step.losses)
        assert still._step._graph is not None
        still._step._graph.run(still._step._work)
        losses.append(float(still._step.losses) - before)
    assert len(set(losses)) == 4


def test_an_epoch_waits_for_the_device_nowhere():
    one = training(epochs=2)
    steps = one.steps()
    while not one.epoch:
        next(steps)  # captures
    assert next(steps) is None  # what is drawn for the epoch is moved before its first step
    torch.cuda.set_sync_debug_mode("error")
    try:
        while one.step < 16:
            assert next(steps) is None
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_streamed_images_train_as_resident_ones_do_across_the_capture():
    close(results(training(memory=0)), results(training()))


def test_stacked_seeds_train_through_our_kernels_from_a_graph_as_each_does_alone():
    together = list(training(seeds=(0, 1, 2)).results())
    for index in range(3):
        close([found[index] for found in together], results(training(seeds=(index,))))


def test_a_training_restored_on_the_gpu_goes_on_where_it_was():
    whole = training()
    iterator = whole.results()
    first = next(iterator)
    stored = {name: value.cpu().contiguous().clone() for name, value in whole.tensors().items()}
    step = whole.step
    expected = [first[0], *(found[0] for found in iterator)]
    resumed = training(seeds=(0,))
    resumed.restore(stored, epoch=1, step=step)
    close(results(resumed), expected[1:])
    assert {value.device.type for value in resumed.state.tensors().values() if value.ndim} == {"cuda"}


def test_a_diverging_training_is_noticed_on_the_gpu():
    with pytest.raises(TrialDivergedError):
        list(map(finite, results(training(replace(RECIPE, learning_rate=1e30), epochs=2))))


HOLDER = """
import sys, torch
rest = torch.cuda.mem_get_info(0)[0] - int(sys.argv[1])
held = torch.empty(max(0, rest), dtype=torch.uint8, device="cuda:0")
print("held", flush=True)
sys.stdin.read()
"""
"""Another program that takes all memory of the GPU but so many bytes, until its input ends."""
ROOM = 3 * 2**30
"""Enough for the context of a worker, too little for a batch of HUNGRY [bytes]."""
HUNGRY = replace(NETWORK, resolution=256)


def told(executor: LocalExecutor, one: Work) -> list[Event]:
    """Everything that happens to a work."""
    executor.submit(one)
    found: list[Event] = []
    while executor.busy:
        found += executor.events()
    return found


def test_a_trial_that_finds_its_gpu_full_says_so_with_the_mend_and_is_trained_when_there_is_room(tmp_path: Path):
    save(prepared(), tmp_path / "data")
    key = TrialKey(proxy="hungry", seed=0, rung=1)
    files = {"data": tmp_path / "data", "checkpoint": tmp_path / "kept.safetensors", "log": tmp_path / "log"}
    one = Work(keys=(key,), network=HUNGRY, recipe=replace(RECIPE, batch_size=256), **files)
    executor = LocalExecutor([Slot(device="cuda:0", name="GPU")])
    command = [sys.executable, "-c", HOLDER, str(ROOM)]
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            *_, failed = told(executor, one)
            holder.communicate()
        assert isinstance(failed, Failed)
        assert (failed.final, failed.counts, failed.is_kill) == (False, True, False)
        assert failed.reason.startswith("OutOfMemoryError: ")
        assert "; free memory of the GPU, or take smaller proxies (--proxy-resolution)" in failed.reason
        assert told(executor, one)[-1] == Finished(key)
    finally:
        executor.close()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_every_gpu_trains_its_own_trials(tmp_path: Path):
    options = "--preset standard --policy grid --base b0 --budget 2x --candidates 2 --seeds 2 --epochs 1 --images 512"
    command = [sys.executable, "-m", "scalesearch", "run", *options.split(), "--out", "run", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    trials = pandas.read_csv(tmp_path / "run" / "trials.csv")
    assert trials["train_loss"].nunique() == len(trials)


@pytest.mark.slow
def test_a_standard_run_of_three_candidates_goes_end_to_end(tmp_path: Path):
    options = "--preset standard --policy grid --base b0 --budget 2x --candidates 3 --seeds 1 --epochs 1 --images 512"
    command = [sys.executable, "-m", "scalesearch", "run", *options.split(), "--out", "run", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["manifest"]["evidence"] == "quick look"
    assert [member["name"] for member in found["manifest"]["members"]] == [f"B{k}" for k in range(1, 8)]
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert {slot["device"].split(":")[0] for slot in environment["slots"]} == {"cuda"}
    trials = pandas.read_csv(tmp_path / "run" / "trials.csv")
    assert set(trials["state"]) == {"complete"}
    assert len(trials) >= 4
    before = (tmp_path / "run" / "ranking.json").read_bytes()
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    assert (tmp_path / "run" / "ranking.json").read_bytes() == before
