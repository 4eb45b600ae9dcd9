"""Is a whole trial of ten epochs on a GPU at least three times as fast as a typical eager training?

Command:

    python benchmarks/proxy_trial.py

B0's proxy base at 64 px, batch 256, by the recipe of the `standard` preset, from the first line to the last: images to
the device, warm-up, capture, augmentation, evaluation and checkpoints. Ours: a trial as a worker trains it, which keeps
what would take long to train again; once more as where the images do not fit on the device and are streamed to it,
which is told of and not judged. Theirs: a torchvision dataset of PIL images with random crop, flip and normalisation, a
DataLoader with workers (pictures.py), and an eager loop (plain.py) in bf16 autocast and channels_last with torch's
AdamW, AveragedModel and cuDNN's search for algorithms, saved once, at its end. The start of the process (imports, the
device's context) is a figure of its own.

Each way runs in a process of its own, in turn. First, both are trained for a few steps without augmentation, ours from
its graph behind the first three, and have to agree in every loss. Exit code 0: they do, and the ratio is reached. 1:
not. Without a GPU, this is a dry run with small sizes whose figures do not count. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from measuring import Row, alone, in_turn, ratio, setting, table, told, write
from pictures import plain
from plain import TOLERANCE, disagreement, module_of, refusal

from scalesearch.engine import trial
from scalesearch.engine.work import Failed, Progress, Work
from scalesearch.plan import ANCHOR, Layout, Plan
from scalesearch.prepared import prepare_images
from scalesearch.presets import PRESETS
from scalesearch.proxy.device import Shelf, on_device
from scalesearch.proxy.draws import steps_per_epoch
from scalesearch.proxy.images import Images
from scalesearch.request import Request, resolve
from scalesearch.spec import Network
from scalesearch.trials import TrialKey

REQUIRED = 3.0
"""Times as fast as the typical training that a whole trial has to be."""
AGREEING = 3
"""Epochs, and steps of each, in which both have to agree."""
WAYS = ("ours", "ours, streamed", "plain")
CLASSES = 10
MADE_UP = "made-up.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What is trained, the same for both."""

    epochs: int
    images: int
    side: int
    batch: int
    data: Path | None

    def planned(self, folder: Path) -> tuple[Plan, Layout]:
        """A plan whose proxy base is trained: whole on a GPU, narrowed on a CPU."""
        recipe = PRESETS["standard"].recipe.to_dict() | {"batch_size": self.batch}
        preset = "standard" if torch.cuda.is_available() else "quick"
        data = str(self.data or folder / MADE_UP)
        return resolve(
            Request(
                preset=preset,
                data=data,
                proxy_resolution=self.side,
                epochs=self.epochs,
                images=self.images,
                recipe=recipe,
            )
        )

    def arguments(self) -> list[object]:
        """Those of the command line that say the same."""
        given = {f"--{name}": value for name, value in asdict(self).items() if value is not None}
        return [part for pair in given.items() for part in pair]


def device_here() -> torch.device:
    """The first GPU, else the CPU."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def network_of(plan: Plan) -> Network:
    """What is trained: the unscaled base, made fit for the resolution."""
    network = plan.proxy_base.network
    assert isinstance(network, Network)
    return network


def make_up(path: Path, images: int, side: int) -> None:
    """Write a dataset whose classes differ in their colour under noise."""
    rng, colours = np.random.default_rng(0), np.random.default_rng(1).integers(0, 128, (CLASSES, 3), np.uint8)
    parts: dict[str, np.ndarray[Any, Any]] = {}
    for name, count in (("train", images), ("val", max(CLASSES, images // 9))):
        labels = np.arange(count) % CLASSES
        noise = rng.integers(0, 128, (count, side, side, 3), np.uint8)
        parts |= {f"{name}_images": noise + colours[labels][:, None, None], f"{name}_labels": labels}
    np.savez(path, **parts)  # type: ignore[arg-type]


# one way, in a process of its own -------------------------------------------------------------------------------------


def ours(plan: Plan, folder: Path, device: torch.device) -> Iterator[float]:
    """A trial as a worker trains it; yields the accuracy after every epoch [%]."""
    work = Work(
        keys=(TrialKey(proxy=ANCHOR, seed=0, rung=plan.epochs),),
        network=network_of(plan),
        recipe=plan.recipe,
        data=folder / "data",
        checkpoint=folder / "ours.safetensors",
        log=folder / "log.txt",
    )
    work.checkpoint.unlink(missing_ok=True)
    for events in trial.train_trials(work, Shelf.opened(str(device))):
        for event in events:
            if isinstance(event, Failed):
                raise SystemExit(event.reason)
            if isinstance(event, Progress):
                yield event.result.accuracy


def streamed(plan: Plan, folder: Path, device: torch.device) -> Iterator[float]:
    """As `ours`, on a device that has no room for images; they are read and moved batch by batch."""
    trial.memory_of = lambda _: 0
    return ours(plan, folder, device)


def run_way(way: str, sizes: Sizes, folder: Path, launched: float) -> dict[str, Any]:
    """Train once, from the first line to the last, and tell how long every part took [s]."""
    device, (plan, _) = device_here(), sizes.planned(folder)
    torch.zeros(1, device=device)
    start = time.perf_counter()
    started = time.time() - launched
    ends, accuracies = [start], list[float]()
    for accuracy in dict(zip(WAYS, (ours, streamed, plain), strict=True))[way](plan, folder, device):
        ends.append(time.perf_counter())
        accuracies.append(accuracy)
    epochs = np.diff(ends)
    return {
        "started": started,
        "trial": ends[-1] - start,
        "first_epoch": float(epochs[0]),
        "later_epoch": float(np.median(epochs[1:])) if len(epochs) > 1 else None,
        "accuracy": accuracies[-1],
        "peak_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
    }


# both, compared -------------------------------------------------------------------------------------------------------


def agreement(plan: Plan, images: Images) -> float:
    """The largest relative difference of a loss in the first steps."""
    recipe = replace(plan.recipe, crop=0.0, flip=False)
    few, device, network = AGREEING * recipe.batch_size, device_here(), network_of(plan)
    cut = replace(images, train_images=images.train_images[:few], train_labels=images.train_labels[:few])
    data = on_device(cut, resolution=network.resolution, device=device, memory=sys.maxsize)
    mine = trial.module_of(network, recipe, [0], device)
    return disagreement(mine, module_of(network, recipe, 0).to(device), data, recipe, epochs=AGREEING)


def table_of(runs: dict[str, list[dict[str, Any]]], trials: dict[str, Row]) -> str:
    """The results for people."""
    header = ["way", "trial [s]", "first epoch [s]", "later epoch [s]", "process start [s]", "end to end [s]"]
    names = ("first_epoch", "later_epoch", "started", "end_to_end")
    rows = []
    for way in WAYS:
        parts = [[run[name] for run in runs[way]] for name in names]
        shown = [Row(way=way, values=tuple(part)) if None not in part else "–" for part in parts]
        rows.append([way, trials[way], *shown, f"{runs[way][-1]['accuracy']:.2f}", _gib(runs[way][-1]["peak_bytes"])])
    return table([*header, "accuracy [%]", "peak memory [GiB]"], rows)


def _gib(size: int | None) -> str:
    return "–" if size is None else f"{size / 2**30:.2f}"


def shortfalls(gain: Row, kind: str) -> Iterator[str]:
    """What the requirement lacks; speed is judged on a GPU alone."""
    if kind == "cuda" and gain.median < REQUIRED:
        yield f"NOT MET: a trial is {gain.median:.2f} times as fast, not {REQUIRED:g}"


class Comparison:
    """Every run of both ways."""

    def __init__(self, sizes: Sizes, folder: Path) -> None:
        """Prepare the images in a folder; without a dataset they are made up."""
        if not sizes.data:
            make_up(folder / MADE_UP, sizes.images, sizes.side)
        self._sizes, self._folder = sizes, folder
        self.plan, layout = sizes.planned(folder)
        self.images = prepare_images(self.plan, layout, folder, lambda *_: None).images
        self.runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}

    def run(self, way: str) -> float:
        """Seconds of a trial [s], in a process of its own."""
        own = ["--way", way, "--folder", self._folder, "--launched", time.time()]
        self.runs[way].append(alone(__file__, *self._sizes.arguments(), *own))
        return self.runs[way][-1]["trial"]

    def told(self) -> str:
        """What is trained, for people."""
        steps = steps_per_epoch(len(self.images.train_labels), self.plan.recipe)
        batch = min(self.plan.recipe.batch_size, len(self.images.train_labels))
        return f"{self.plan.epochs} epochs of {steps} batches of {batch} at {self.plan.resolution} px"


def compare(sizes: Sizes, repetitions: int, out: Path | None) -> int:
    """Compare, print, and say whether the requirement is met."""
    where, kind = setting("torch", "torchvision", "scalesearch"), device_here().type
    with TemporaryDirectory() as folder:
        comparison = Comparison(sizes, Path(folder))
        difference = agreement(comparison.plan, comparison.images)
        if wrong := refusal(difference, TOLERANCE[kind]):
            print(wrong)
            return 1
        trials = in_turn({way: lambda way=way: comparison.run(way) for way in WAYS}, repetitions)
    gain = ratio(trials["ours"], trials["plain"], more_is_better=False)
    print(table_of(comparison.runs, trials), end="\n\n")
    print(f"{comparison.told()}; medians (min–max) of {repetitions}; {told(where)}")
    starved = ratio(trials["ours, streamed"], trials["ours"], more_is_better=False)
    print(
        f"ours against plain: {gain}",
        f"ours, streamed, against ours: {starved}",
        f"losses of the first steps differ by {difference:.2g} at most",
        sep="\n",
    )
    sized = {name: str(value) for name, value in asdict(sizes).items()}
    write(out, {**where, "sizes": sized, "disagreement": difference, "runs": comparison.runs, "gain": gain.values})
    if kind != "cuda":
        print("DRY RUN on a CPU: the figures do not count")
    faults = list(shortfalls(gain, kind))
    met = f"at least {REQUIRED:g} times as fast, equal losses" if kind == "cuda" else "equal losses"
    print("\n".join(faults) or f"requirement met: {met}")
    return 1 if faults else 0


def main() -> int:
    """Read the arguments; compare both ways, or be the process of one."""
    on_gpu = torch.cuda.is_available()
    epochs, images, side, batch = (10, 45_000, 64, 256) if on_gpu else (2, 512, 16, 64)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=epochs, help=f"of the trial (here {epochs})")
    parser.add_argument("--images", type=int, default=images, help=f"training images (here {images})")
    parser.add_argument("--side", type=int, default=side, help=f"resolution [px] (here {side})")
    parser.add_argument("--batch", type=int, default=batch, help=f"images per step (here {batch})")
    parser.add_argument("--data", type=Path, help="a dataset, as `run --data` takes it (default: made up)")
    parser.add_argument("--repetitions", type=int, default=5, help="trials of each way (default 5)")
    parser.add_argument("--out", type=Path, help="write every run to this JSON file too")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--launched", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    sizes = Sizes(**{entry.name: getattr(given, entry.name) for entry in fields(Sizes)})
    if given.way:
        print(json.dumps(run_way(given.way, sizes, given.folder, given.launched)))
        return 0
    return compare(sizes, given.repetitions, given.out)


if __name__ == "__main__":
    sys.exit(main())
