"""The benchmarks for a GPU run from end to end on a CPU, refuse what is wrong before timing, and judge as they say.

No figure of theirs is a fact of the code: what a CPU shows of them is that they work.
"""

import importlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MODULES = [
    "measuring",
    "stepping",
    "train_ways",
    "train_step",
    "seeds_fused",
    "tiles",
    "speedrun_net",
    "cifar_speedrun",
]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """The scripts as modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})


def dry_run(script: str, options: str, out: Path) -> tuple[str, dict[str, Any]]:
    """What a script prints and records on a CPU."""
    command = [sys.executable, BENCHMARKS / script, "--device", "cpu", "--out", out, *options.split()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "DRY RUN on a CPU: the gates hold, the figures do not count" in ended.stdout
    recorded = json.loads(out.read_text(), parse_constant=pytest.fail)  # no NaN: it is no JSON
    assert recorded["device"] == "cpu"
    assert recorded["versions"]["torch"] == torch.__version__.split("+")[0]
    return ended.stdout, recorded


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes of smooth noise that differ in colour and place, in a file as `fetch.py` writes it."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("cifar") / "cifar10.npz"
    kinds = rng.uniform(40, 215, (10, 4, 4, 3)).repeat(8, 1).repeat(8, 2)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % 10
        return (kinds[labels] + rng.normal(0, 15, (count, 32, 32, 3))).clip(0, 255).astype(np.uint8), labels

    (train, labels), (test, test_labels) = part(300), part(100)
    np.savez(path, train_images=train, train_labels=labels, test_images=test, test_labels=test_labels)
    return path


# dry runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_way_of_training_b0_agrees_with_timm_and_is_timed(tmp_path: Path):
    options = "--settings 32x4 --steps 1 --repetitions 2 --backend eager"
    said, recorded = dry_run("train_step.py", options, tmp_path / "train_step.json")
    [result] = recorded["results"]
    assert [one["way"] for one in result["lines"]] == [
        *("ours", "ours, no graph", "ours, no kernels", "ours, neither", "timm eager", "timm compiled")
    ]
    for one in result["lines"]:
        assert f"| 32 | 4 | {one['way']} |" in said
        assert len(one["rate"]["values"]) == len(result["copy"]["values"]) == 2
        assert one["agreement"]["gradients"] < 1e-3
        assert 0 < one["first"] < one["ready"]
        # set-up can only cost
        assert one["end_to_end"] < 2000 / 1995 * sum(one["rate"]["values"]) / 2


@pytest.mark.slow
def test_stacked_seeds_lose_what_their_own_trainings_lose_and_are_timed(tmp_path: Path):
    options = "--seeds 1,2 --resolution 20 --batch 8 --halvings 3 --steps 1 --repetitions 2"
    said, recorded = dry_run("seeds_fused.py", options, tmp_path / "seeds_fused.json")
    assert [one["seeds"] for one in recorded["results"]] == [1, 2]
    for one in recorded["results"]:
        assert f"| {one['seeds']} |" in said
        assert one["losses_apart"] < 1e-4
        assert one["end_to_end"] > 0


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are interpreted where there is no GPU")
def test_every_setting_of_tiles_computes_what_torch_does_and_is_timed(tmp_path: Path):
    options = "--resolution 12 --batch 2 --halvings 3 --steps 1 --repetitions 1"
    said, recorded = dry_run("tiles.py", options, tmp_path / "tiles.json")
    assert f"| {recorded['results'][0]['map']['channels']} x " in said
    assert said.count("(the rule)") == 1
    for one in recorded["results"]:
        assert one["difference"] < 1e-4
        assert len(one["rows"]) == 12


@pytest.mark.slow
def test_the_speedrun_learns(cifar: Path, tmp_path: Path):
    options = f"--data {cifar} --runs 2 --epochs 8 --batch 15 --widths 8,16,16"
    said, recorded = dry_run("cifar_speedrun.py", options, tmp_path / "cifar.json")
    assert recorded["whitening_error"] < 1e-3
    assert [one["seed"] for one in recorded["runs"]] == [0, 1]
    accuracies = [one["accuracies"][-1] for one in recorded["runs"]]
    assert min(accuracies) > 30  # of 100 images, where chance finds 10
    low, high = stats.t.interval(0.95, 1, np.mean(accuracies), stats.sem(accuracies))
    assert f"{np.mean(accuracies):.2f} (95 % interval {low:.2f}–{high:.2f})" in said
    for one in recorded["runs"]:
        assert len(one["epochs"]) == 8
        assert sum(one["epochs"]) <= one["whole"]


def test_the_maps_are_those_that_b0_normalises(bench: SimpleNamespace):
    found = bench.tiles.maps_of(bench.tiles.find_base("b0").network)
    assert found.total() == 49
    assert found[bench.tiles.Map(32, 112)] == 2  # the stem, and the depthwise convolution behind it
    assert found[bench.tiles.Map(1280, 7)] == 1


# gates ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_network_with_another_epsilon_is_refused(bench: SimpleNamespace):
    ways = bench.train_ways
    network, recipe = ways.network_at(32), replace(ways.RECIPE, batch_size=4)
    data = bench.stepping.real_images(32, 4, CPU)
    true = ways.timms_exact(network, recipe, data)

    def faults(found: Any) -> list[str]:
        compared = {"ours": ways.agreement(ways.our_exact(found, recipe, data), true)}
        return list(ways.disagreements(compared, gradients=ways.EXACT, loss=ways.EXACT))

    assert faults(network) == []
    assert any("gradients" in fault for fault in faults(replace(network, norm_eps=1e-3)))


def test_what_is_not_a_number_is_refused(bench: SimpleNamespace):
    agreement = bench.train_ways.Agreement(gradients=math.nan, loss=math.nan, overlay=math.nan)
    assert len(list(bench.train_ways.disagreements({"ours": agreement}, gradients=1.0, loss=1.0))) == 3


def test_a_gradient_that_is_missing_is_infinitely_wrong(bench: SimpleNamespace):
    one, two = torch.tensor([3.0]), torch.tensor([4.0])
    assert bench.train_ways.apart({"a": one, "b": two}, {"a": one, "b": torch.tensor([0.0])}) == pytest.approx(4 / 3)
    assert bench.train_ways.apart({"a": one}, {"a": one, "b": two}) == math.inf


def test_seeds_in_another_place_of_the_stack_are_refused(bench: SimpleNamespace):
    fused = bench.seeds_fused
    network, data = fused.proxy(20, 3), bench.stepping.real_images(20, 8, CPU)
    recipe = replace(fused.PRESETS["standard"].recipe, batch_size=8)
    stacked, apart = (fused.made(network, recipe, data, seeds) for seeds in ([[0, 1]], [[1], [0]]))
    assert fused.losses_apart(stacked, apart) > fused.ALIKE["cuda"]


def test_the_first_layer_whitens_its_patches_and_nothing_else_does(bench: SimpleNamespace):
    speedrun, generator = bench.speedrun_net, torch.Generator().manual_seed(0)
    noise = torch.randn(40, 3, 32, 32, generator=generator)
    images = nn.functional.avg_pool2d(noise, 3, 1, 1) @ torch.linspace(0.5, 2, 32).diag()
    layer = speedrun.whitening(images)
    assert layer.weight.shape == (24, 3, 2, 2)
    assert not layer.weight.requires_grad
    assert speedrun.whitening_error(layer, images) < 1e-5
    layer.weight.data *= 1.01
    assert speedrun.whitening_error(layer, images) == pytest.approx(1.01**2 - 1, rel=1e-3)


def test_the_speedrun_starts_as_the_identity_and_leaves_its_frozen_parts_alone(bench: SimpleNamespace):
    speedrun = bench.speedrun_net
    images = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    layer = speedrun.convolution(5, 8)
    torch.testing.assert_close(layer(images[:, [0, 1, 2, 0, 1]])[:, :5], images[:, [0, 1, 2, 0, 1]])
    module = speedrun.network(images, widths=(8, 16, 16), classes=10, seed=0)
    assert module(images).shape == (20, 10)
    frozen = [name for name, weight in module.named_parameters() if not weight.requires_grad]
    norms = [f"{name}.weight" for name, one in module.named_modules() if isinstance(one, nn.BatchNorm2d)]
    assert frozen == ["0.weight", *norms]
    assert len(norms) == 6


@pytest.mark.parametrize(
    ("script", "gate", "options"),
    [
        ("train_step", {"EXACT": -1.0}, "--settings 32x4 --steps 1 --repetitions 1 --backend eager"),
        ("seeds_fused", {"ALIKE": {"cpu": -1.0}}, "--seeds 1 --resolution 20 --batch 8 --halvings 3 --steps 1"),
        ("tiles", {"ALIKE": {"cpu": -1.0}}, "--resolution 12 --batch 2 --halvings 3"),
        ("cifar_speedrun", {"WHITE": -1.0}, "--runs 1 --widths 8,16,16 --data"),
    ],
)
def test_a_script_whose_gate_fails_times_nothing_and_exits_with_1(
    bench: SimpleNamespace,
    cifar: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
    gate: dict[str, Any],
    options: str,
):
    module = getattr(bench, script)
    for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, "")  # the script sets them: they are put back
    for name, value in gate.items():
        monkeypatch.setattr(module, name, value)
    data = [str(cifar)] if options.endswith("--data") else []
    monkeypatch.setattr(sys, "argv", [script, "--device", "cpu", *options.split(), *data])
    assert module.main() == 1
    said = capsys.readouterr()
    assert said.out.startswith("WRONG: ")
    assert "|" not in said.out
    assert said.err == ""


# judging --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((2.0,) * 5, []),
        ((3.0, 3.0, 3.0, 3.0, 1.99), ["NOT MET: ours: 3 (1.99–3) times, not 2 in every pair"]),
        ((9.0,) * 4, ["NOT MET: ours: 4 pairs are too few to tell, at least 5"]),
        ((math.nan,) * 5, ["NOT MET: ours: nan (nan–nan) times, not 2 in every pair"]),
    ],
)
def test_every_pair_has_to_reach_what_is_required(bench: SimpleNamespace, values: tuple[float, ...], said: list[str]):
    assert list(bench.stepping.short_of(bench.measuring.Row(way="", values=values), 2.0, "ours")) == said


def test_a_requirement_is_judged_on_a_gpu_alone(bench: SimpleNamespace, capsys: pytest.CaptureFixture[str]):
    verdict = bench.stepping.verdict
    assert [verdict(faults, torch.device("cuda"), met="fast") for faults in ([], ["NOT MET"])] == [0, 1]
    assert capsys.readouterr().out == "requirement met: fast\nNOT MET\n"
    assert verdict(["NOT MET"], CPU, met="fast") == 0
    assert "NOT MET" not in capsys.readouterr().out


def test_what_the_requirement_is_about_has_to_be_measured(bench: SimpleNamespace):
    assert list(bench.train_step.shortfalls([])) == ["NOT MET: 224 px was not measured"]
    assert list(bench.seeds_fused.shortfalls([])) == ["NOT MET: 8 seeds were not measured"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_dry_run_has_to_be_asked_for(bench: SimpleNamespace):
    with pytest.raises(SystemExit, match="--device cpu"):
        bench.stepping.device_of("cuda")


def test_batches_are_real_images_in_eight_different_turns(bench: SimpleNamespace):
    stepping = bench.stepping
    data = stepping.real_images(28, 16, CPU)
    recipe = replace(bench.train_ways.RECIPE, batch_size=16)
    pixels = torch.stack([batch[0] for batch in stepping.batches(data, recipe, [0])])
    assert pixels.shape == (8, 16, 1, 28, 28)
    assert len({one.numpy().tobytes() for one in pixels.flatten(0, 1)}) == 128
    assert (pixels.float().std((2, 3, 4)) > 10).all()
    with pytest.raises(SystemExit, match="take a smaller batch"):
        stepping.real_images(28, 1251, CPU)


def test_the_byte_model_is_that_of_the_published_table(bench: SimpleNamespace):
    # B0 at 224 px, MB per image: 328.4 eager, 217.4 compiled, counted pass by pass over its graph
    network = bench.train_ways.network_at(224)
    found = [bench.stepping.modelled_bytes(network, way) / 1e6 for way in ("eager", "compiled")]
    assert found == pytest.approx([328.4, 217.4], rel=0.005)


@pytest.mark.parametrize("script", ["train_step", "seeds_fused", "cifar_speedrun"])
def test_the_readme_says_what_is_not_measured_yet(script: str):
    readme = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    [section] = [one for one in readme.split("\n## ") if f"python benchmarks/{script}.py" in one]
    for part in ("**Question.**", "**Command.**", "**What must hold.**", "**Result.**", "**How.**"):
        assert part in section
    assert "**What it does not show.**" in section
    if not (BENCHMARKS / "results" / f"{script}.json").exists():
        assert "Not measured yet: needs a GPU." in section
