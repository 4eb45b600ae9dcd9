"""What needs a CUDA device: training in bf16, resuming there, and a whole `standard` run. Skips visibly without one."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
import torch

from scalesearch.nets.blocks import start_near_identity
from scalesearch.nets.network import build
from scalesearch.proxy.device import DeviceImages, on_device
from scalesearch.proxy.train import train
from scalesearch.recipe import Recipe
from scalesearch.spec import Head, Network, Stage, Stem

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device that torch can use"),
]
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


def images() -> DeviceImages:
    """Three classes that differ in colour, on the GPU."""
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(count) % 3
        pixels = torch.randint(0, 128, (count, 3, 16, 16), generator=generator)
        return (pixels + 100 * torch.eye(3, dtype=torch.int64)[labels].view(count, 3, 1, 1)).byte(), labels

    return on_device(part(256), part(90), resolution=16, device=torch.device("cuda"))


def module_of(seed: int = 0) -> torch.nn.Module:
    module = build(NETWORK, seed=seed)
    start_near_identity(module)
    return module.to("cuda")


def test_training_runs_in_bf16_with_finite_losses_and_learns():
    module = module_of()
    types = set[torch.dtype]()
    module.get_submodule("stem").register_forward_hook(lambda layer, inputs, output: types.add(output.dtype))
    results = list(train(module, images(), RECIPE, epochs=4, seed=0)[1])
    assert all(math.isfinite(result.train_loss + result.loss) for result in results)
    assert results[-1].accuracy > 80
    assert types == {torch.bfloat16}
    assert {weight.dtype for weight in module.parameters()} == {torch.float32}


def test_a_training_restored_on_the_gpu_goes_on_where_it_was():
    data = images()
    whole, epochs = train(module_of(), data, RECIPE, epochs=3, seed=0)
    first = next(epochs)
    stored = {name: value.cpu().contiguous().clone() for name, value in whole.tensors().items()}
    expected = [first, *epochs]
    resumed, rest = train(module_of(seed=9), data, RECIPE, epochs=3, seed=0)
    resumed.restore(stored, 1)
    again = list(rest)
    assert [result.epoch for result in again] == [2, 3]
    for found, one in zip(again, expected[1:], strict=True):
        assert found.train_loss == pytest.approx(one.train_loss, abs=0.05)  # sums on a GPU have no fixed order
        assert found.accuracy == pytest.approx(one.accuracy, abs=5)
    assert {value.device.type for value in resumed.tensors().values() if value.ndim} == {"cuda"}


def test_a_diverging_training_is_noticed_on_the_gpu():
    from scalesearch.errors import TrialDivergedError

    with pytest.raises(TrialDivergedError):
        list(train(module_of(), images(), replace(RECIPE, learning_rate=1e30), epochs=2, seed=0)[1])


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
