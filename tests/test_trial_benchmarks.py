"""The benchmarks of whole trials run from end to end on tiny sizes, and tell what misses their requirements.

How fast the machine is at the moment decides nothing here: seconds are not facts of the code.
"""

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from networks import SMALL
from scipy import stats

from scalesearch.engine.trial import module_of
from scalesearch.proxy.device import on_device
from scalesearch.proxy.draws import draw
from scalesearch.proxy.images import fingerprinted
from scalesearch.recipe import Recipe

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """The scripts as modules."""
    names = ("measuring", "plain", "cpu_trials", "proxy_trial", "overhead", "same_accuracy")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})


def ended(script: str, *arguments: object, out: Path) -> tuple[subprocess.CompletedProcess[str], Any]:
    """A run of a script, and what it recorded."""
    command = [sys.executable, BENCHMARKS / script, *map(str, arguments), "--out", out]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == ("NOT MET" in found.stdout), found.stderr
    return found, json.loads(out.read_text(encoding="utf-8"))


def coloured(count: int = 48, side: int = 32) -> Any:
    """Images whose classes differ in their colour under noise."""
    labels = np.arange(count) % 10
    noise = np.random.default_rng(0).integers(0, 128, (count, 3, side, side), np.uint8)
    pixels = noise + (12 * labels).astype(np.uint8)[:, None, None, None]
    parts = {"train_images": pixels, "train_labels": labels}
    return fingerprinted(**parts, validation_images=pixels[:20], validation_labels=labels[:20])


RECIPE = Recipe(norm_images=40)


def disagreement(bench: SimpleNamespace, **wrong: Any) -> float:
    """Between ours by a recipe, and the plain loop by one that may differ from it."""
    data = on_device(coloured(), resolution=SMALL.resolution, device=CPU, memory=10**9)
    ours, theirs = module_of(SMALL, RECIPE, [0], CPU), bench.plain.module_of(SMALL, RECIPE, 0)
    real = bench.plain.Loop
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.plain, "Loop", lambda module, recipe, **k: real(module, replace(recipe, **wrong), **k))
        return bench.plain.disagreement(ours, theirs, data, RECIPE, epochs=2)


# the plain loop trains what ours trains -------------------------------------------------------------------------------


def test_the_plain_loop_has_our_losses_in_its_first_steps(bench: SimpleNamespace) -> None:
    assert disagreement(bench) <= bench.plain.TOLERANCE["cpu"] / 2


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rate": 0.0095}, {"label_smoothing": 0.0}, {"average": 0.5}, {"momentum": 0.8}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_plain_loop_with_another_recipe_is_noticed(bench: SimpleNamespace, wrong: dict[str, float]) -> None:
    assert disagreement(bench, **wrong) > bench.plain.TOLERANCE["cpu"]


def test_the_plain_loop_trains_on_the_batches_that_ours_draws(bench: SimpleNamespace) -> None:
    data = on_device(coloured(), resolution=SMALL.resolution, device=CPU, memory=10**9)
    floats = bench.plain.InMemory.of(data, RECIPE, torch.channels_last)
    batches = list(floats.epoch(seed=3, epoch=1, recipe=RECIPE))
    order = draw([3], 1, images=48, side=32, recipe=RECIPE).order
    assert [len(labels) for _, labels in batches] == [24, 24]
    for (images, labels), chosen in zip(batches, order[:, 0], strict=True):
        assert torch.equal(labels, data.train_labels[chosen])
        [pixels] = data.train.feed([chosen])
        assert torch.equal(images, data.normalised(pixels))


# requirements ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (2e-3, ""),
        (3e-3, "WRONG: losses of the first steps differ by 0.003, at most 0.002"),
        (float("nan"), "WRONG: losses of the first steps differ by nan, at most 0.002"),
    ],
)
def test_losses_that_differ_are_refused(bench: SimpleNamespace, difference: float, said: str) -> None:
    assert bench.plain.refusal(difference, bench.plain.TOLERANCE["cpu"]) == said


@pytest.mark.parametrize(
    ("gain", "said"),
    [(2.5, []), (2.49, ["NOT MET: ours trains 2.49 times as many images per second, not 2.5"])],
)
def test_trials_on_a_cpu_are_judged_by_their_median(bench: SimpleNamespace, gain: float, said: list[str]) -> None:
    row = bench.measuring.Row(way="ours / plain", values=(1.0, gain, 9.0))
    assert list(bench.cpu_trials.shortfalls(row)) == said


def test_a_trial_is_judged_by_its_speed_on_a_gpu_alone(bench: SimpleNamespace) -> None:
    row = bench.measuring.Row(way="ours / plain", values=(2.9,))
    assert list(bench.proxy_trial.shortfalls(row, "cpu")) == []
    assert list(bench.proxy_trial.shortfalls(row, "cuda")) == ["NOT MET: a trial is 2.90 times as fast, not 3"]


@pytest.mark.parametrize("deviation", [0.2, 0.6, 1.2, 2.0])
@pytest.mark.parametrize("difference", [-0.6, -0.3, 0.0, 0.3, 0.6])
def test_accuracies_are_the_same_where_the_90_percent_interval_of_their_difference_is_within_the_margin(
    bench: SimpleNamespace, difference: float, deviation: float
) -> None:
    theirs = 80 + np.random.default_rng(0).normal(size=24)
    noise = stats.zscore(np.random.default_rng(1).normal(size=24), ddof=1)
    found = bench.same_accuracy.equivalence(theirs + difference + deviation * noise, theirs)
    low, high = stats.t.interval(0.9, 23, difference, deviation / 24**0.5)
    assert (found.p <= bench.same_accuracy.LEVEL) == (low > -0.5 and high < 0.5)
    assert (found.difference, found.deviation) == pytest.approx((difference, deviation))
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 23, difference, deviation / 24**0.5))


def test_what_is_not_shown_to_be_the_same_accuracy_is_named(bench: SimpleNamespace) -> None:
    same = {"difference": 0.1, "low": -0.2, "high": 0.4, "deviation": 0.7}
    shown, unknown, undefined = (bench.same_accuracy.Equivalence(**same, p=p) for p in (0.05, 0.06, float("nan")))
    assert list(bench.same_accuracy.shortfalls(20, {"ours": shown})) == []
    assert list(bench.same_accuracy.shortfalls(19, {"ours": shown})) == ["NOT MET: 19 seeds, at least 20"]
    said = "NOT MET: stacked: a difference of 0.5 points is not excluded (p = 0.06): +0.100 (-0.200 to +0.400)"
    assert list(bench.same_accuracy.shortfalls(20, {"ours": shown, "stacked": unknown})) == [said]
    assert len(list(bench.same_accuracy.shortfalls(20, {"ours": undefined}))) == 1


class Slots:
    """An executor of three slots that are told to be idle."""

    idle, busy = 3, 0

    def submit(self, work: object) -> None:
        time.sleep(0.05)
        self.idle -= 1

    def events(self) -> list[object]:
        time.sleep(0.1)
        self.idle = 3
        return []


def test_idle_slots_are_the_coordinators_while_it_works_and_the_policys_while_it_waits(bench: SimpleNamespace) -> None:
    watched = bench.overhead.Watched(Slots())
    time.sleep(0.1)  # 3 slots wait for the coordinator
    watched.submit(None)  # so do they while a work is handed over
    watched.submit(None)  # and 2 of them now
    watched.events()  # nothing is due for the third
    time.sleep(0.02)
    watched.close()
    assert 0.3 + 0.15 + 0.1 + 0.06 <= watched.coordinator <= 0.61 + 0.3
    assert 0.1 <= watched.policy <= 0.1 + 0.1


def test_overhead_is_what_is_neither_training_nor_the_policys_waiting(bench: SimpleNamespace) -> None:
    run = {"wall": 50.0, "slots": 2, "policy": 8.0, "workers": {"training": 81.0, "network": 6.0, "state": 4.0}}
    assert bench.overhead.Found(run).overhead == pytest.approx(1.0)


# whole runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_trials_on_a_cpu_are_compared_from_end_to_end(bench: SimpleNamespace, tmp_path: Path) -> None:
    sizes = ("--candidates", 1, "--images", 256, "--validation", 40, "--threads", 1, "--repetitions", 1)
    told, recorded = ended("cpu_trials.py", *sizes, out=tmp_path / "out.json")
    assert recorded["disagreement"] <= bench.plain.TOLERANCE["cpu"]
    assert recorded["trained"] == 240  # ten whole batches
    for way in bench.cpu_trials.WAYS:
        assert f"| {way} |" in told.stdout
        [run] = recorded["runs"][way]
        assert 0 < run["wall"] < run["end_to_end"]
        assert run["cpu"] > 0
    # chance and recipe are the same: another order of sums may turn a few of forty images
    [[ours], [plain], _] = ([run["accuracies"] for run in recorded["runs"][way]] for way in bench.cpu_trials.WAYS)
    assert ours.keys() == plain.keys()
    assert list(ours.values()) == pytest.approx(list(plain.values()), abs=100 * 6 / 40)


@pytest.mark.slow
def test_final_accuracies_are_compared_pair_by_pair(tmp_path: Path) -> None:
    sizes = ("--seeds", 2, "--epochs", 1, "--images", 256, "--validation", 100)
    told, recorded = ended("same_accuracy.py", *sizes, out=tmp_path / "out.json")
    accuracies = recorded["accuracies"]
    assert list(accuracies) == ["ours", "ours, stacked", "plain"]
    assert all(f"| {way} | 2 |" in told.stdout for way in accuracies)
    # ten steps leave rounding no time to grow: an image or two at most is judged otherwise
    assert accuracies["ours"] == pytest.approx(accuracies["plain"], abs=2)
    pairs = np.subtract(accuracies["ours, stacked"], accuracies["plain"])
    assert recorded["tests"]["ours, stacked"]["difference"] == pytest.approx(pairs.mean())
    assert "NOT MET: 2 seeds, at least 20" in told.stdout


@pytest.mark.parametrize(
    ("script", "tolerance", "options"),
    [
        ("same_accuracy", {"cpu": -1.0, "cuda": -1.0}, "--seeds 2 --epochs 1 --images 256 --validation 100"),
        ("cpu_trials", {"cpu": -1.0}, "--candidates 1 --images 256 --validation 100 --threads 1"),
        ("proxy_trial", {"cpu": -1.0, "cuda": -1.0}, "--images 256 --side 12 --batch 128"),
    ],
)
def test_a_script_whose_gate_fails_trains_nothing_more_and_exits_with_1(
    bench: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
    tolerance: object,
    options: str,
) -> None:
    module = getattr(bench, script)
    monkeypatch.setattr(module, "TOLERANCE", tolerance)
    monkeypatch.setattr(sys, "argv", [script, *options.split()])
    assert module.main() == 1
    said = capsys.readouterr()
    assert said.out.startswith("WRONG: losses of the first steps differ by ")
    assert "|" not in said.out
    assert said.err == ""


@pytest.mark.slow
def test_a_trial_without_a_gpu_is_a_dry_run(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("the figures count here")
    sizes = ("--epochs", 2, "--images", 256, "--side", 12, "--batch", 128, "--repetitions", 1)
    told, recorded = ended("proxy_trial.py", *sizes, out=tmp_path / "out.json")
    assert told.returncode == 0
    assert "DRY RUN on a CPU: the figures do not count" in told.stdout
    assert "2 epochs of 2 batches of 128 at 12 px" in told.stdout
    for way in ("ours", "plain"):
        [run] = recorded["runs"][way]
        assert run["first_epoch"] + run["later_epoch"] == pytest.approx(run["trial"])
        assert 0 < run["started"] < run["started"] + run["trial"] < run["end_to_end"]


@pytest.mark.slow
def test_the_overhead_of_a_real_search_is_taken_apart(tmp_path: Path) -> None:
    sizes = ("--trials", 9, "--seconds", 0.2, "--policies", "grid", "--repetitions", 1)
    told, recorded = ended("overhead.py", *sizes, out=tmp_path / "out.json")
    [run] = recorded["runs"]["grid"]
    assert run["trials"] == 9  # two candidates and the base, three seeds of each
    assert 9 * 0.2 <= run["workers"]["training"] <= 2 * run["wall"]
    assert all(run["workers"][name] > 0 for name in ("network", "images", "state", "checkpoint"))
    assert all(run["spent"][name] > 0 for name in ("agenda", "start", "report", "end", "plan", "follow"))
    assert "fit was not searched" in told.stdout
