"""How many times as fast are several seeds of a proxy as one stacked network as one after the other, on one GPU?

Command:

    python benchmarks/seeds_fused.py --out benchmarks/results/seeds_fused.json

For K = 1, 2, 4 and 8: K trainings of the B0 proxy at 32 px, batch 128, by the `standard` recipe, stacked by
`nets.stacked` and trained as one; against K trainings of their own, one after the other. On a GPU all steps are
captured as CUDA graphs, in bf16. Both sides see the same images, flips and crops of each seed.

Before anything is timed, the losses of each seed over 20 steps are held against those of its own training; the exit
code is 1 where they differ. Exit code 0: they agree, and the requirement is met, or is not judged because there is no
GPU. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from measuring import Row, in_turn, ratio, setting, table, told, write
from stepping import (
    READY,
    Ours,
    arguments,
    cold_caches,
    copy_bandwidth,
    device_of,
    gib,
    modelled_bytes,
    peak,
    per_second,
    real_images,
    seconds,
    share,
    short_of,
    verdict,
)

from scalesearch.engine.trial import module_of
from scalesearch.families import find_base
from scalesearch.presets import PRESETS
from scalesearch.proxy.device import DeviceImages
from scalesearch.proxy_base import narrowed, relaxed
from scalesearch.recipe import Recipe
from scalesearch.spec import Network

STACKED, APART, COPY = "stacked", "one after the other", "copy"
JUDGED = 8
"""Seeds that the requirement is about."""
REQUIRED = 3.0
"""Times as fast that so many stacked ones have to be."""
COMPARED = 20
"""Steps over which losses are compared."""
ALIKE = {"cpu": 1e-4, "cuda": 5e-2}
"""Most relative difference of a seed's loss in any of these steps: in fp32, in bf16.

Sums in another order round otherwise, and training makes it grow: a CPU showed up to 1e-6 in fp32, 0.02 in bf16.
"""
RUN = 2000
"""Steps of each training that the end-to-end rates are about."""
HEADER = (
    *("seeds", "stacked, images/s", "one after the other, images/s", "stacked is faster", "TB/s (model)", "of a copy"),
    *(
        "peak GiB, stacked / apart",
        "ready s, stacked / apart",
        f"faster over {RUN:,} steps with set-up",
        "losses apart",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One way to train all seeds."""

    rate: Row
    """Images of all seeds per second."""
    memory: float | None
    """Most, while it was set up [GiB]; None on a CPU."""
    ready: float
    """From nothing until every network has trained `READY` steps [s]."""

    def run(self, images: int) -> float:
        """A run of so many images with its set-up [s]."""
        return self.ready + images / self.rate.median


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was found for a number of seeds."""

    seeds: int
    batch: int
    stacked: Side
    apart: Side
    advantage: Row
    """Times as fast that the stacked ones are."""
    losses_apart: float
    """Greatest relative difference of a seed's loss in a step."""
    moved: float
    """By the stacked ones, by the byte model [TB/s]."""
    share: float
    """Of the bandwidth of a copy."""
    copy: Row
    """Bandwidth of a copy [bytes/s]."""

    @property
    def end_to_end(self) -> float:
        """Times as fast that the stacked ones are over `RUN` steps, set-up included."""
        images = (RUN - READY) * self.batch * self.seeds
        return self.apart.run(images) / self.stacked.run(images)


def proxy(resolution: int, halvings: int) -> Network:
    """B0 for small images, its channels halved so many times."""
    base = find_base("b0")
    return narrowed(relaxed(base.network, resolution, 10), base.family.rounding, halvings)[0]


def losses(ways: Sequence[Ours]) -> list[list[float]]:
    """Step by step, the loss of every seed in all ways together; the learning rate rises and falls."""
    found = []
    for step in range(COMPARED):
        for way in ways:
            way.rate(step / COMPARED)
            way()
        found.append([loss for way in ways for loss in way.losses()])
    return found


def losses_apart(stacked: Sequence[Ours], apart: Sequence[Ours]) -> float:
    """Greatest relative difference of a seed's loss in a step; infinite where a loss is not finite."""
    pairs = torch.tensor([losses(stacked), losses(apart)], dtype=torch.float64)
    difference = float(((pairs[0] - pairs[1]) / pairs[1]).abs().max())
    return difference if difference == difference else float("inf")


class WrongError(Exception):
    """Stacked networks do not train as their own trainings do; nothing was timed."""


def made(network: Network, recipe: Recipe, data: DeviceImages, groups: Sequence[Sequence[int]]) -> list[Ours]:
    """A step for each group of seeds, made and trained `READY` steps at a learning rate of zero."""
    ways = []
    for seeds in groups:
        ways.append(Ours(module_of(network, recipe, seeds, data.device), recipe, data, seeds=seeds))
        for _ in range(READY):
            ways[-1]()
        ways[-1].losses()
    return ways


def fill(ways: list[Ours], make: Callable[[], list[Ours]]) -> None:
    """Keep what is made."""
    ways.extend(make())


def rounds(ways: Sequence[Ours], steps: int) -> Callable[[], None]:
    """So many steps of each way, one way after the other."""

    def run() -> None:
        for way in ways:
            for _ in range(steps):
                way.rate(0.5)
                way()

    return run


def compare(network: Network, recipe: Recipe, data: DeviceImages, given: argparse.Namespace, count: int) -> Result:
    """Set up both sides for a number of seeds, hold their losses against each other, and time them.

    Raises:
        WrongError: they do not train alike.
    """
    device, batch = data.device, recipe.batch_size
    groups = {STACKED: [list(range(count))], APART: [[seed] for seed in range(count)]}
    ways: dict[str, list[Ours]] = {name: [] for name in groups}
    memory, ready = list[float | None](), dict[str, float]()
    for name, seeds in groups.items():
        make = partial(made, network, recipe, data, seeds)
        with peak(device, memory):
            ready[name] = seconds(partial(fill, ways[name], make), device)
    difference = losses_apart(ways[STACKED], ways[APART])
    if difference > ALIKE[device.type]:
        most = ALIKE[device.type]
        raise WrongError(f"WRONG: {count} seeds: losses {difference:.2g} apart, at most {most:g}")
    rate = partial(per_second, device=device, steps=1, images=given.steps * batch * count)
    timed = {name: partial(rate, rounds(ways[name], given.steps)) for name in groups}
    rows = in_turn({COPY: partial(copy_bandwidth, device), **timed}, given.repetitions)
    moved, part = share(rows[STACKED], modelled_bytes(network, "ours"), rows[COPY])
    sides = [Side(rate=rows[name], memory=most, ready=ready[name]) for name, most in zip(groups, memory, strict=True)]
    return Result(
        seeds=count,
        batch=batch,
        stacked=sides[0],
        apart=sides[1],
        advantage=ratio(rows[STACKED], rows[APART], more_is_better=True),
        losses_apart=difference,
        moved=moved,
        share=part,
        copy=rows[COPY],
    )


def told_line(one: Result) -> Sequence[object]:
    """A row of the table."""
    return (
        *(one.seeds, one.stacked.rate, one.apart.rate, one.advantage, f"{one.moved:.3g}", f"{one.share:.0%}"),
        f"{gib(one.stacked.memory)} / {gib(one.apart.memory)}",
        f"{one.stacked.ready:.1f} / {one.apart.ready:.1f}",
        *(f"{one.end_to_end:.3g}", f"{one.losses_apart:.2g}"),
    )


def shortfalls(results: Sequence[Result]) -> Iterator[str]:
    """What the requirement lacks."""
    judged = [one for one in results if one.seeds == JUDGED]
    if not judged:
        yield f"NOT MET: {JUDGED} seeds were not measured"
    for one in judged:
        yield from short_of(one.advantage, REQUIRED, f"{one.seeds} stacked seeds")


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.add_argument("--seeds", type=counts, default="1,2,4,8", help="numbers of them (default %(default)s)")
    parser.add_argument("--resolution", type=int, default=32, help="of the proxy [px] (default 32)")
    parser.add_argument("--batch", type=int, default=128, help="images of each seed (default 128)")
    parser.add_argument("--halvings", type=int, default=0, help="how often the proxy is narrowed (default 0)")
    parser.add_argument("--steps", type=int, default=100, help="steps of one measurement (default 100)")
    parser.add_argument("--repetitions", type=int, default=7, help="measurements of each side (default 7)")
    return parser.parse_args()


def counts(text: str) -> list[int]:
    """`1,2` as numbers."""
    return [int(one) for one in text.split(",")]


def main() -> int:
    """Compare, print, and say whether the requirement is met."""
    given = options()
    device, where = device_of(given.device), setting("torch", "triton", "scalesearch")
    network = proxy(given.resolution, given.halvings)
    recipe = replace(PRESETS["standard"].recipe, batch_size=given.batch)
    data = real_images(given.resolution, given.batch, device)
    try:
        with cold_caches():
            made(network, recipe, data, [[0]])  # what is compiled once for all networks is nobody's set-up
            results = [compare(network, recipe, data, given, count) for count in given.seeds]
    except WrongError as fault:
        print(fault)
        return 1
    print(table(HEADER, [told_line(one) for one in results]))
    print(f"\nmedian (min–max) of {given.repetitions} measurements in turn, {given.steps} steps each; {told(where)}")
    documents = [{**asdict(one), "end_to_end": one.end_to_end} for one in results]
    write(given.out, {**where, "device": device.type, "network": network.to_dict(), "results": documents})
    return verdict(list(shortfalls(results)), device, met=f"{JUDGED} stacked seeds are {REQUIRED:g} times as fast")


if __name__ == "__main__":
    sys.exit(main())
