"""Which learning rate trains deep, wide, large-image and mixed proxies alike in about 15 seconds on one CPU core?

Command:

    python studies/quick-recipe/pilot.py

The proxies and images are those of `scalesearch run --base b0 --budget 2x --preset quick`. 56 trainings, one after the
other on one thread, 15 to 30 minutes. Prints one table and writes results/pilot.json beside this file. Every value but
the learning rate is the preset's.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from scalesearch.engine.slots import processor_name
from scalesearch.nets.blocks import start_near_identity
from scalesearch.nets.network import build
from scalesearch.plan import Layout, Plan
from scalesearch.proxy.choice import key_of
from scalesearch.proxy.data import choose
from scalesearch.proxy.decoding import decode
from scalesearch.proxy.device import on_device
from scalesearch.proxy.images import Images
from scalesearch.proxy.train import train
from scalesearch.recipe import Recipe
from scalesearch.request import Request, resolve
from scalesearch.spec import Network

SHAPES = {"deep": "depth", "wide": "width", "large": "resolution", "mixed": "paper"}
"""Shape by the reference point whose proxy is trained."""
LEARNING_RATES = (0.0025, 0.005, 0.01, 0.02, 0.04)
SEEDS = range(2)
SEEDS_OF_RECIPE = range(6)
"""At the recipe's own learning rate."""

MEMORY = 1 << 30
"""That images may take; these take 2 MB [bytes]."""


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


def proxies(layout: Layout) -> dict[str, Network]:
    """The proxy that stands for each shape's reference point."""
    found = {name: one.proxy.network for one in layout.candidates for name in one.references}
    return {shape: found[name] for shape, name in SHAPES.items()}


def run(shape: str, network: Network, recipe: Recipe, epochs: int, seed: int, images: Images) -> Run:
    """Train one proxy."""
    module = build(network, seed=seed)
    start_near_identity(module)
    data = on_device(images, resolution=network.resolution, device=torch.device("cpu"), memory=MEMORY)
    start = time.perf_counter()
    _, trained = train(module, data, recipe, epochs=epochs, seed=seed)
    results = list(trained)
    return Run(
        shape=shape,
        learning_rate=recipe.learning_rate,
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


def record(runs: list[Run], networks: dict[str, Network], plan: Plan) -> dict[str, object]:
    """All that the pilot found, with what it ran on."""
    return {
        "hardware": {"processor": processor_name(), "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "plan": plan.to_dict(),
        "n": len(runs),
        "networks": {name: network.to_dict() for name, network in networks.items()},
        "runs": [asdict(one) for one in runs],
    }


def prepared(plan: Plan) -> Images:
    """The images of a plan, in a folder that is gone again; what is mapped stays."""
    choice = choose(plan.data, images=plan.images, validation=plan.validation_images, side=plan.data.side)
    with TemporaryDirectory() as folder:
        return decode(choice, key_of(choice, unheard), Path(folder), unheard)


def unheard(*_: object) -> None:
    """Nobody watches so few images being decoded."""


def main() -> None:
    """Train, record, print."""
    torch.set_num_threads(1)
    plan, layout = resolve(Request(preset="quick"))
    images = prepared(plan)
    networks = proxies(layout)
    todo = [
        (shape, rate, seed)
        for rate in LEARNING_RATES
        for seed in (SEEDS_OF_RECIPE if rate == plan.recipe.learning_rate else SEEDS)
        for shape in networks
    ]
    runs: list[Run] = []
    for shape, rate, seed in todo:
        recipe = replace(plan.recipe, learning_rate=rate)
        runs.append(run(shape, networks[shape], recipe, plan.epochs, seed, images))
        print(f"{len(runs)}/{len(todo)} {runs[-1]}", flush=True)
    target = Path(__file__).parent / "results" / "pilot.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(record(runs, networks, plan), indent=1) + "\n", encoding="utf-8")
    print(table(runs))


if __name__ == "__main__":
    main()
