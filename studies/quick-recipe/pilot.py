"""Which learning rate trains deep, wide and large-image proxies alike in about 15 seconds on one CPU core?

Command:

    python studies/quick-recipe/pilot.py --images FILE.npz

FILE.npz holds `x` of shape (count, 28, 28), uint8, and `y` (count,): Fashion-MNIST. The first images train, the last
2,000 validate. 42 trainings, one after the other on one thread, about 12 minutes. Prints one table and writes
results/pilot.json beside this file. Every value but the learning rate is the default of `Recipe`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from scalesearch.families import find_base
from scalesearch.levelling import level
from scalesearch.nets.blocks import start_near_identity
from scalesearch.nets.network import build
from scalesearch.proxy.device import on_device
from scalesearch.proxy.train import train
from scalesearch.recipe import Recipe
from scalesearch.scaling import Multipliers, scale
from scalesearch.spec import Network

RECIPE = Recipe()
IMAGES, EPOCHS, VALIDATION = 2112, 2, 2000
RESOLUTION = 20
NARROWING = 0.25
BUDGET = 2.0
SHAPES = {
    "deep": Multipliers(depth=BUDGET),
    "wide": Multipliers(width=BUDGET**0.5),
    "large": Multipliers(resolution=BUDGET**0.5),
}
LEARNING_RATES = (0.0025, 0.005, 0.01, 0.02, 0.04)
SEEDS = range(2)
SEEDS_OF_RECIPE = range(6)
"""At the recipe's own learning rate."""

Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training."""

    shape: str
    learning_rate: float
    seed: int
    accuracies: tuple[float, ...]
    """After each epoch [%]."""
    loss: float
    """Validation cross-entropy at the end [nats]."""
    seconds: float
    """Training, batch-norm estimates and evaluations, without building and resizing."""


def proxies() -> dict[str, Network]:
    """B0 for small images, narrowed, and levelled at twice its compute in one dimension at a time."""
    base = find_base("b0")
    network = base.network
    stages = tuple(replace(stage, stride=1) if index == 1 else stage for index, stage in enumerate(network.stages))
    network = replace(
        network,
        stem=replace(network.stem, stride=1),
        stages=stages,
        head=replace(network.head, dropout=0.0),
        resolution=RESOLUTION,
        num_classes=10,
        drop_path=0.0,
    )
    rounding = replace(base.family.rounding, divisor=round(base.family.rounding.divisor * NARROWING))
    narrowed = scale(network, Multipliers(width=NARROWING), rounding)
    found = level(list(SHAPES.values()), narrowed, rounding, BUDGET, resolution_step=1)
    return {name: scaled.network for name, scaled in zip(SHAPES, found, strict=True) if scaled is not None}


def run(shape: str, network: Network, learning_rate: float, seed: int, pairs: tuple[Pair, Pair]) -> Run:
    """Train one proxy."""
    module = build(network, seed=seed)
    start_near_identity(module)
    data = on_device(*pairs, resolution=network.resolution, device=torch.device("cpu"))
    start = time.perf_counter()
    _, epochs = train(module, data, replace(RECIPE, learning_rate=learning_rate), epochs=EPOCHS, seed=seed)
    results = list(epochs)
    return Run(
        shape=shape,
        learning_rate=learning_rate,
        seed=seed,
        accuracies=tuple(result.accuracy for result in results),
        loss=results[-1].loss,
        seconds=time.perf_counter() - start,
    )


def row(runs: list[Run], learning_rate: float) -> str:
    """One line of the table: accuracy as mean ± deviation (n) of each shape."""
    cells = []
    for shape in SHAPES:
        last = [one.accuracies[-1] for one in runs if (one.shape, one.learning_rate) == (shape, learning_rate)]
        cells.append(f"{statistics.mean(last):5.1f} ± {statistics.stdev(last):.1f} ({len(last)})")
    return f"| {learning_rate} | {' | '.join(cells)} |"


def table(runs: list[Run]) -> str:
    """Accuracies by learning rate and shape, and the median seconds of each shape."""
    seconds = (statistics.median(one.seconds for one in runs if one.shape == shape) for shape in SHAPES)
    return "\n".join(
        [
            f"| learning rate | {' | '.join(SHAPES)} |",
            f"|---|{'---|' * len(SHAPES)}",
            *(row(runs, rate) for rate in LEARNING_RATES),
            f"| median seconds | {' | '.join(f'{value:.1f}' for value in seconds)} |",
        ]
    )


def processor() -> str:
    """The name that the system gives the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def record(runs: list[Run], networks: dict[str, Network]) -> dict[str, object]:
    """All that the pilot found, with what it ran on."""
    return {
        "hardware": {"processor": processor(), "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "recipe": RECIPE.to_dict(),
        "images": IMAGES,
        "epochs": EPOCHS,
        "validation": VALIDATION,
        "narrowing": NARROWING,
        "n": len(runs),
        "networks": {name: network.to_dict() for name, network in networks.items()},
        "runs": [asdict(one) for one in runs],
    }


def main() -> None:
    """Train, record, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True, metavar="FILE.npz")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(arguments.images) as file:
        images, labels = torch.from_numpy(file["x"]).unsqueeze(1), torch.from_numpy(file["y"]).long()
    pairs = (images[:IMAGES], labels[:IMAGES]), (images[-VALIDATION:], labels[-VALIDATION:])
    networks = proxies()
    plan = [
        (shape, rate, seed)
        for rate in LEARNING_RATES
        for seed in (SEEDS_OF_RECIPE if rate == RECIPE.learning_rate else SEEDS)
        for shape in networks
    ]
    runs: list[Run] = []
    for shape, rate, seed in plan:
        runs.append(run(shape, networks[shape], rate, seed, pairs))
        print(f"{len(runs)}/{len(plan)} {runs[-1]}", flush=True)
    target = Path(__file__).parent / "results" / "pilot.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(record(runs, networks), indent=1) + "\n", encoding="utf-8")
    print(table(runs))


if __name__ == "__main__":
    main()
