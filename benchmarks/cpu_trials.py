"""Does our engine train the proxies of a quick search at least 2.5 times as fast as a plain eager loop, on two cores?

Command:

    python benchmarks/cpu_trials.py

The first proxies that `scalesearch run --base b0 --budget 2x --preset quick` trains, on its images (embedded
Fashion-MNIST) and by its recipe. Ours: spawned workers, threads and processes as the engine's own measurement finds
them, channels_last, checkpoints and all. Theirs: what a user would write (plain.py), one process, torch's default
threads, the same images as float tensors in memory, the same seeds, order and evaluation after every epoch; once as it
comes (NCHW), which is judged, and once in channels_last, which is not.

Each way runs in a process of its own, in turn. First, both are trained for a few steps and have to agree in every loss.
Exit code 0: they do, and the ratio is reached. 1: not. Progress goes to stderr. A GPU is not used.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from measuring import Row, alone, in_turn, ratio, setting, table, told, write
from plain import TOLERANCE, InMemory, Loop, disagreement, module_of, refusal, trained

from scalesearch.engine import trial
from scalesearch.engine.local import LocalExecutor
from scalesearch.engine.pacing import arranged, measured
from scalesearch.engine.slots import local_slots
from scalesearch.engine.work import Failed, Finished, Probe, Progress, Work
from scalesearch.pace import grouped
from scalesearch.plan import Layout, Plan
from scalesearch.prepared import prepare_images
from scalesearch.proxy.device import on_device
from scalesearch.proxy.draws import steps_per_epoch
from scalesearch.proxy.images import Images, open_images
from scalesearch.recipe import Recipe
from scalesearch.request import Request, resolve
from scalesearch.spec import Network
from scalesearch.trials import TrialKey

REQUIRED = 2.5
"""Times the images per second of the plain loop that ours has to reach."""
AGREEING = {"images": 48, "validation": 100, "epochs": 2}
"""What both are trained on to be compared."""
WAYS = ("ours", "plain", "plain, channels_last")
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What is trained, the same for every way."""

    candidates: int
    seeds: int
    epochs: int
    images: int | None
    validation: int | None
    threads: int | None

    def planned(self) -> tuple[Plan, Layout]:
        """The quick plan; where sizes are None, it has its own."""
        sizes = {"epochs": self.epochs, "images": self.images, "threads": self.threads}
        plan, layout = resolve(Request(base="b0", budget="2x", preset="quick", **sizes))
        return replace(plan, validation_images=self.validation or plan.validation_images), layout

    def keys(self, layout: Layout) -> list[TrialKey]:
        """Candidates spread evenly over those of the plan, in the order in which a search would train them."""
        names = layout.trained[:: len(layout.trained) // self.candidates][: self.candidates]
        return [TrialKey(proxy=name, seed=seed, rung=self.epochs) for seed in range(self.seeds) for name in names]


def network_of(layout: Layout, key: TrialKey) -> Network:
    """What is trained."""
    network = layout.candidate(key.proxy).proxy.network
    assert isinstance(network, Network)
    return network


# one way, in a process of its own -------------------------------------------------------------------------------------


def by_engine(plan: Plan, layout: Layout, keys: list[TrialKey], folder: Path) -> dict[str, Any]:
    """Train as `scalesearch run` does."""
    machine = local_slots(need_gpu=False)
    seeds = len({key.seed for key in keys})
    largest = max((layout.candidate(key.proxy).proxy for key in keys), key=lambda one: one.cost.activations)
    with closing(LocalExecutor(machine[: len(keys)])) as executor:
        start = time.perf_counter()
        probe = Probe(network=largest.network, recipe=plan.recipe, seconds=0.5)
        pace = measured(executor, machine, probe, due=len(keys), seeds=seeds, threads=plan.threads)
        slots = arranged(machine, pace)[: len(keys)]
        executor.arrange(slots)
        for _ in slots:
            executor.measure(replace(probe, seconds=0.0, threads=pace.threads), slots)
        ready = time.perf_counter()
        groups = grouped(keys, pace.together)
        works = [work_of(group, network_of(layout, group[0]), plan.recipe, folder, pace.threads) for group in groups]
        found = _timed(lambda: accuracies_of(executor, works))
    return {**found, "pace": asdict(pace), "slots": len(slots), "before": ready - start}


def work_of(group: tuple[TrialKey, ...], network: Network, recipe: Recipe, folder: Path, threads: int) -> Work:
    """Trials of one network as a search hands them to its engine, on the images in a folder."""
    return Work(
        keys=group,
        network=network,
        recipe=recipe,
        data=folder / "data",
        checkpoint=folder / f"{group[0]}.safetensors",
        log=folder / "log.txt",
        threads=threads,
        sharing=1,
    )


def accuracies_of(executor: LocalExecutor, works: list[Work]) -> dict[str, float]:
    """Train everything; the last accuracy of each trial [%]."""
    waiting, found = list(works), dict[str, float]()
    checkpoints = {key: work.checkpoint for work in works for key in work.keys}
    while waiting or executor.busy:
        while waiting and executor.idle:
            executor.submit(waiting.pop(0))
        for event in executor.events():
            if isinstance(event, Failed):
                raise SystemExit(f"{event.key} failed: {event.reason}")
            if isinstance(event, Progress):
                found[str(event.key)] = event.result.accuracy
            if isinstance(event, Finished):
                checkpoints[event.key].unlink(missing_ok=True)
    return found


def by_loop(
    plan: Plan, layout: Layout, keys: list[TrialKey], folder: Path, memory_format: torch.memory_format
) -> dict[str, Any]:
    """Train as a user would, one after the other."""

    def train() -> dict[str, float]:
        images, found = open_images(folder / "data"), dict[str, float]()
        for key in keys:
            found[str(key)] = plain_accuracy(key, network_of(layout, key), plan.recipe, images, memory_format)
        return found

    return {**_timed(train), "threads": torch.get_num_threads()}


def plain_accuracy(
    key: TrialKey,
    network: Network,
    recipe: Recipe,
    images: Images,
    memory_format: torch.memory_format,
    device: torch.device = CPU,
) -> float:
    """A trial by the plain loop; its last accuracy [%]."""
    module = module_of(network, recipe, key.seed).to(device, memory_format=memory_format)  # type: ignore[call-overload]
    pixels = on_device(images, resolution=network.resolution, device=device, memory=sys.maxsize)
    data = InMemory.of(pixels, recipe, memory_format)
    loop = Loop(module, recipe, steps=key.rung * steps_per_epoch(len(data.train_labels), recipe))
    *_, last = trained(loop, data, recipe, epochs=key.rung, seed=key.seed)
    return last.accuracy


def _timed(train: Callable[[], dict[str, float]]) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), cpu_seconds()
    accuracies = train()
    return {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu, "accuracies": accuracies}


def cpu_seconds() -> float:
    """Of this process and its living children; of this one alone where there is no /proc."""
    taken = time.process_time()
    for child in multiprocessing.active_children():
        path = Path(f"/proc/{child.pid}/stat")
        if path.exists():
            user, system = path.read_text().rpartition(")")[2].split()[11:13]
            taken += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return taken


def run_way(way: str, sizes: Sizes, folder: Path) -> dict[str, Any]:
    """Train everything in one way."""
    plan, layout = sizes.planned()
    keys = sizes.keys(layout)
    if way == "ours":
        return by_engine(plan, layout, keys, folder)
    memory_format = torch.channels_last if "channels_last" in way else torch.contiguous_format
    return by_loop(plan, layout, keys, folder, memory_format)


def first_steps_apart(network: Network, recipe: Recipe, images: Images, device: torch.device = CPU) -> float:
    """The largest relative difference of a loss between ours and the plain loop in the first steps of a network.

    On a GPU twice as many, so that most of ours come from its graph.
    """
    few, held = AGREEING["images"], AGREEING["validation"]
    cut = replace(
        images,
        train_images=images.train_images[:few],
        train_labels=images.train_labels[:few],
        validation_images=images.validation_images[:held],
        validation_labels=images.validation_labels[:held],
    )
    data = on_device(cut, resolution=network.resolution, device=device, memory=sys.maxsize)
    ours, theirs = trial.module_of(network, recipe, [0], device), module_of(network, recipe, 0).to(device)
    return disagreement(ours, theirs, data, recipe, epochs=AGREEING["epochs"] * (1 if device.type == "cpu" else 2))


# all ways, compared ---------------------------------------------------------------------------------------------------


class Comparison:
    """Every run of every way."""

    def __init__(self, given: list[str], sizes: Sizes, folder: Path) -> None:
        """Prepare the images in a folder.

        Args:
            given: arguments of this script, handed on to the processes.
            sizes: what is trained.
            folder: for images and checkpoints.
        """
        self._given, self._folder = given, folder
        self._plan, self._layout = sizes.planned()
        self._keys = sizes.keys(self._layout)
        self.images = prepare_images(self._plan, self._layout, folder, lambda *_: None).images
        steps = steps_per_epoch(len(self.images.train_labels), self._plan.recipe)
        self.trained = len(self._keys) * sizes.epochs * steps * self._plan.recipe.batch_size
        """Images trained on by each way."""
        self.runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}

    def disagreement(self) -> float:
        """The largest relative difference of a loss between ours and the plain loop, over all candidates."""
        networks = {network_of(self._layout, key) for key in self._keys}
        return max(first_steps_apart(network, self._plan.recipe, self.images) for network in networks)

    def run(self, way: str) -> float:
        """Images per second [1/s] of a way, in a process of its own."""
        arguments = [*self._given, "--way", way, "--folder", self._folder]
        self.runs[way].append(alone(__file__, *arguments, CUDA_VISIBLE_DEVICES=""))
        return self.trained / self.runs[way][-1]["wall"]

    def part(self, way: str, name: str) -> Row:
        """One part of the runs of a way."""
        return Row(way=way, values=tuple(run[name] for run in self.runs[way]))

    def accuracy(self, way: str) -> float:
        """Mean over the trials of the last run [%]."""
        found = self.runs[way][-1]["accuracies"].values()
        return sum(found) / len(found)


def told_all(comparison: Comparison, rates: dict[str, Row]) -> str:
    """The results for people."""
    rows = []
    for way in WAYS:
        parts = [comparison.part(way, name) for name in ("wall", "cpu", "end_to_end")]
        rows.append([way, rates[way], *parts, f"{comparison.accuracy(way):.2f}"])
    header = ["way", "images per second", "seconds", "CPU seconds", "seconds from end to end", "mean accuracy [%]"]
    return table(header, rows)


def shortfalls(gain: Row) -> Iterator[str]:
    """What the requirement lacks."""
    if gain.median < REQUIRED:
        yield f"NOT MET: ours trains {gain.median:.2f} times as many images per second, not {REQUIRED}"


def compare(given: list[str], sizes: Sizes, repetitions: int, out: Path | None) -> int:
    """Compare, print, and say whether the requirement is met."""
    where = setting("torch", "scalesearch")
    with TemporaryDirectory() as folder:
        comparison = Comparison(given, sizes, Path(folder))
        difference = comparison.disagreement()
        if wrong := refusal(difference, TOLERANCE[CPU.type]):
            print(wrong)
            return 1
        rates = in_turn({way: lambda way=way: comparison.run(way) for way in WAYS}, repetitions)
    gains = {way: ratio(rates["ours"], rates[way], more_is_better=True) for way in WAYS[1:]}
    print(told_all(comparison, rates), end="\n\n")
    print(f"{comparison.trained:,} images trained on by each way; medians (min–max) of {repetitions}; {told(where)}")
    print(*(f"{row.way}: {row}" for row in gains.values()), sep="\n")
    print(f"losses of the first steps differ by {difference:.2g} at most")
    runs = {"trained": comparison.trained, "disagreement": difference, "runs": comparison.runs}
    write(out, {**where, "sizes": asdict(sizes), **runs, "gains": {way: row.values for way, row in gains.items()}})
    faults = list(shortfalls(gains["plain"]))
    print("\n".join(faults) or f"requirement met: at least {REQUIRED} times the images per second, equal losses")
    return 1 if faults else 0


def main() -> int:
    """Read the arguments; compare all ways, or be the process of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=4, help="proxies that are trained (default 4)")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each (default 1)")
    parser.add_argument("--epochs", type=int, default=1, help="of each training (default 1)")
    parser.add_argument("--images", type=int, help="training images (default: as many as the plan takes)")
    parser.add_argument("--validation", type=int, help="validation images (default: as many as the plan takes)")
    parser.add_argument("--threads", type=int, help="of a trial of ours (default: as measured)")
    parser.add_argument("--repetitions", type=int, default=5, help="runs of each way (default 5)")
    parser.add_argument("--out", type=Path, help="write every run to this JSON file too")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    sizes = Sizes(**{entry.name: getattr(given, entry.name) for entry in fields(Sizes)})
    if given.way:
        print(json.dumps(run_way(given.way, sizes, given.folder)))
        return 0
    return compare(sys.argv[1:], sizes, given.repetitions, given.out)


if __name__ == "__main__":
    sys.exit(main())
