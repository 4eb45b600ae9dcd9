"""Does our engine train a proxy of a quick search to the accuracy that a plain eager loop trains it to?

Command:

    python benchmarks/same_accuracy.py

The unscaled base of `scalesearch run --base b0 --budget 2x --preset quick`, on the images of this plan and by its
recipe. Ours: a trial in a spawned worker, as a search trains it (on a CPU: layers in the form for it, channels_last,
its heap; with `--device cuda`: bf16, our kernels, its graph), each seed alone, and several seeds stacked as one
network. Theirs: what a user would write (plain.py), in NCHW, on a GPU in bf16 autocast. A seed has the same weights at
the start and the same batches everywhere; sums are taken in other orders, which training makes grow, so that accuracies
differ by chance.

First, both are trained for a few steps and have to agree in every loss. Then every seed is trained in each way, one
thread each, and the pairs of final accuracies are put to two one-sided paired t tests: the mean difference lies within
the margin. Exit code 0: it does for both of ours. 1: that is not proven. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from cpu_trials import Sizes, accuracies_of, first_steps_apart, plain_accuracy, work_of
from measuring import Row, setting, table, told, write
from plain import TOLERANCE, refusal
from scipy import stats

from scalesearch.engine.local import LocalExecutor
from scalesearch.engine.slots import Slot, processor_name
from scalesearch.pace import grouped
from scalesearch.plan import ANCHOR, Plan
from scalesearch.prepared import prepare_images
from scalesearch.proxy.images import Images
from scalesearch.spec import Network
from scalesearch.trials import TrialKey

MARGIN = 0.5
"""Difference of mean accuracies that would not matter [points]."""
LEVEL = 0.05
"""Of the tests."""
LEAST_SEEDS = 20
STACK = 4
"""Seeds that are trained as one network."""
OURS, STACKED, PLAIN = "ours", "ours, stacked", "plain"
NCHW = torch.contiguous_format

Accuracies = Mapping[str, Sequence[float]]
"""Of each way, one per seed in their order [%]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivalence:
    """What pairs of accuracies say of two ways."""

    difference: float
    """Mean over the pairs [points]."""
    low: float
    """Lower end of its 95 % interval by Student's t."""
    high: float
    """Upper end."""
    deviation: float
    """Of the differences."""
    p: float
    """Larger one of the two one-sided tests: that the mean lies beyond the margin, below or above."""

    def __str__(self) -> str:
        """For the table."""
        return f"{self.difference:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def equivalence(ours: Sequence[float], theirs: Sequence[float]) -> Equivalence:
    """Two one-sided paired t tests.

    Source: Schuirmann 1987, doi:10.1007/BF01068419.
    """
    pairs = np.subtract(ours, theirs)
    low, high = stats.ttest_1samp(pairs, 0).confidence_interval(0.95)
    above = stats.ttest_1samp(pairs, -MARGIN, alternative="greater").pvalue
    below = stats.ttest_1samp(pairs, MARGIN, alternative="less").pvalue
    found = {"difference": pairs.mean(), "low": low, "high": high, "deviation": pairs.std(ddof=1)}
    return Equivalence(**{name: float(value) for name, value in found.items()}, p=float(np.max([above, below])))


class Trials:
    """The trainings of one network, in every way."""

    def __init__(self, plan: Plan, images: Images, folder: Path, device: torch.device) -> None:
        """Train the unscaled base of a plan on the images that lie in a folder."""
        network = plan.proxy_base.network
        assert isinstance(network, Network)
        self.network, self._recipe, self._images, self._folder = network, plan.recipe, images, folder
        self.device = device

    def disagreement(self) -> float:
        """The largest relative difference of a loss in the first steps."""
        return first_steps_apart(self.network, self._recipe, self._images, self.device)

    def accuracies(self, executor: LocalExecutor, keys: tuple[TrialKey, ...]) -> dict[str, list[float]]:
        """Of each way, the last one of each seed [%]."""
        found = {
            OURS: self._by_engine(executor, keys, 1),
            STACKED: self._by_engine(executor, keys, STACK),
            PLAIN: [plain_accuracy(key, self.network, self._recipe, self._images, NCHW, self.device) for key in keys],
        }
        for way, values in found.items():
            print(f"seeds {keys[0].seed}–{keys[-1].seed}: {way}: {values}", file=sys.stderr, flush=True)
        return found

    def _by_engine(self, executor: LocalExecutor, keys: tuple[TrialKey, ...], together: int) -> list[float]:
        groups = grouped(keys, together)
        works = [work_of(group, self.network, self._recipe, self._folder, threads=1) for group in groups]
        found = accuracies_of(executor, works)
        return [found[str(key)] for key in keys]


def all_accuracies(trials: Trials, keys: Sequence[TrialKey]) -> dict[str, list[float]]:
    """Of each way, the last one of each seed [%]; the ways in turn."""
    found: dict[str, list[float]] = {way: [] for way in (OURS, STACKED, PLAIN)}
    with closing(LocalExecutor([Slot(device=str(trials.device), name=processor_name())])) as executor:
        for group in grouped(keys, STACK):
            for way, values in trials.accuracies(executor, group).items():
                found[way] += values
    return found


def told_all(accuracies: Accuracies, found: Mapping[str, Equivalence]) -> str:
    """The one table."""
    header = ["way", "seeds", "accuracy [%]: median (min–max)", "mean", "against plain (95 % interval) [points]"]
    rows = []
    for way, values in accuracies.items():
        tests = [found[way], f"{found[way].deviation:.3f}", f"{found[way].p:.2g}"] if way in found else ["–"] * 3
        rows.append([way, len(values), Row(way=way, values=tuple(values)), f"{np.mean(values):.3f}", *tests])
    return table([*header, "deviation of the pairs", "p"], rows)


def shortfalls(seeds: int, found: Mapping[str, Equivalence]) -> Iterator[str]:
    """What the requirement lacks."""
    if seeds < LEAST_SEEDS:
        yield f"NOT MET: {seeds} seeds, at least {LEAST_SEEDS}"
    for way, one in found.items():
        if not one.p <= LEVEL:
            yield f"NOT MET: {way}: a difference of {MARGIN:g} points is not excluded (p = {one.p:.2g}): {one}"


def compare(sizes: Sizes, device: torch.device, out: Path | None) -> int:
    """Compare, print, and say whether the requirement is met."""
    where, (plan, layout) = setting("torch", "scipy", "scalesearch"), sizes.planned()
    keys = [TrialKey(proxy=ANCHOR, seed=seed, rung=sizes.epochs) for seed in range(sizes.seeds)]
    with TemporaryDirectory() as folder:
        images = prepare_images(plan, layout, Path(folder), lambda *_: None).images
        trials = Trials(plan, images, Path(folder), device)
        difference = trials.disagreement()
        if wrong := refusal(difference, TOLERANCE[device.type]):
            print(wrong)
            return 1
        accuracies = all_accuracies(trials, keys)
    found = {way: equivalence(accuracies[way], accuracies[PLAIN]) for way in (OURS, STACKED)}
    print(told_all(accuracies, found), end="\n\n")
    counts = f"{sizes.epochs} epochs, {len(images.train_labels):,} and {len(images.validation_labels):,} images"
    print(f"{counts}; two one-sided paired t tests of ±{MARGIN:g} points; {told(where)}")
    print(f"losses of the first steps differ by {difference:.2g} at most")
    tests = {way: asdict(one) for way, one in found.items()}
    record = {
        "device": device.type,
        "sizes": asdict(sizes),
        "margin": MARGIN,
        "disagreement": difference,
        "accuracies": accuracies,
    }
    write(out, {**where, **record, "accuracies": accuracies, "tests": tests})
    faults = list(shortfalls(sizes.seeds, found))
    print("\n".join(faults) or f"requirement met: mean accuracies differ by less than {MARGIN:g} points")
    return 1 if faults else 0


def main() -> int:
    """Read the arguments and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=24, help="trainings of each way, at least 2 (default 24)")
    parser.add_argument("--epochs", type=int, default=2, help="of each training (default 2)")
    parser.add_argument("--images", type=int, help="training images (default: as many as the plan takes)")
    parser.add_argument("--validation", type=int, help="validation images (default: as many as the plan takes)")
    parser.add_argument("--device", choices=TOLERANCE, default="cpu", help="where all are trained (default cpu)")
    parser.add_argument("--out", type=Path, help="write every accuracy to this JSON file too")
    given = parser.parse_args()
    torch.set_num_threads(1)
    counts = {name: getattr(given, name) for name in ("seeds", "epochs", "images", "validation")}
    device = torch.device("cuda:0" if given.device == "cuda" else "cpu")
    return compare(Sizes(candidates=1, threads=1, **counts), device, given.out)


if __name__ == "__main__":
    sys.exit(main())
