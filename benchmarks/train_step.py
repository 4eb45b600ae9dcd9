"""How many times as fast as timm's does our training step train EfficientNet-B0, on one GPU?

Command:

    python benchmarks/train_step.py --out benchmarks/results/train_step.json

Ours is what a trial runs: our kernels for batch norm, activation and squeeze-excite, the whole step captured as a CUDA
graph, bf16, channels_last. It is measured without the kernels and without the graph too. timm's `efficientnet_b0` is
trained with the settings that its benchmark.py has for speed: bf16 autocast, channels_last, cudnn.benchmark; with ours,
AdamW with `fused=True`; eager, and with `torch.compile(mode="max-autotune")`. All start from the same weights and get
the same uint8 images, which lie on the device and are normalised by the same function; label smoothing, no
augmentation, no average of the weights.

Before anything is timed, loss and gradients of every way are held against timm in fp32, and its losses over the first
steps against those of timm's eager way; the exit code is 1 where they differ. Exit code 0: all agree, and the
requirement is met, or is not judged because there is no GPU. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from measuring import Row, in_turn, ratio, setting, table, told, write
from stepping import (
    READY,
    arguments,
    cold_caches,
    copy_bandwidth,
    device_of,
    gib,
    modelled_bytes,
    per_second,
    real_images,
    share,
    short_of,
    verdict,
)
from train_ways import (
    AS_NEAR,
    COMPILED,
    EAGER,
    EXACT,
    LOSS,
    OURS,
    RECIPE,
    WITHOUT_GRAPH,
    Agreement,
    Started,
    Way,
    agreement,
    agreements,
    disagreements,
    network_at,
    our_exact,
    started,
    timms_exact,
    ways_of,
)

PASSES = {OURS: "ours", WITHOUT_GRAPH: "ours", COMPILED: "compiled"}
"""Which byte model a way has; eager's for the others."""
REQUIRED = {EAGER: 2.0, COMPILED: 1.3}
"""Times as fast that ours has to be."""
JUDGED = 224
"""Resolution that the requirement is about [px]."""
COPY = "copy"
RUN = 2000
"""Steps of the training that the end-to-end rate is about."""
HEADER = (
    *("px", "batch", "way", "images/s", "ours is faster", "TB/s (model)", "of a copy"),
    *("peak GiB", "first step s", "ready s", f"images/s over {RUN:,} steps with set-up"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What was found for one way."""

    way: str
    rate: Row
    """Images per second."""
    advantage: Row
    """Times as fast that ours is."""
    moved: float
    """By the byte model [TB/s]."""
    share: float
    """Of the bandwidth of a copy."""
    memory: float | None
    """Most, while it was set up [GiB]; None on a CPU."""
    first: float
    """From nothing to the end of the first step [s]."""
    ready: float
    """From nothing to the end of step `READY` [s]."""
    end_to_end: float
    """Images per second over `RUN` steps, set-up included: from `ready` and the median of `rate`."""
    agreement: Agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was found for one resolution and batch."""

    resolution: int
    batch: int
    copy: Row
    """Bandwidth of a copy [bytes/s]."""
    lines: tuple[Line, ...]


class WrongError(Exception):
    """Ways that do not compute the same; nothing was timed."""


def compare(resolution: int, batch: int, device: torch.device, given: argparse.Namespace) -> Result:
    """Start every way, hold it against the others, and time it.

    Raises:
        WrongError: they do not agree.
    """
    network, recipe = network_at(resolution), replace(RECIPE, batch_size=batch)
    data = real_images(resolution, batch, device)
    true, ours = timms_exact(network, recipe, data), our_exact(network, recipe, data)
    in_fp32 = {"our network in fp32": agreement(ours, true)}
    refuse(disagreements(in_fp32, gradients=EXACT, loss=EXACT))
    ways = {name: started(make, device) for name, make in ways_of(network, recipe, data, given.backend).items()}
    found = agreements(ways, true)
    is_exact = device.type == "cpu"
    near = EXACT if is_exact else AS_NEAR * found[EAGER].gradients
    refuse(disagreements(found, gradients=near, loss=EXACT if is_exact else LOSS))
    rate = partial(per_second, device=device, steps=given.steps, images=batch)
    timed = {name: partial(rate, partial(trained, one.way)) for name, one in ways.items()}
    rows = in_turn({COPY: partial(copy_bandwidth, device), **timed}, given.repetitions)
    lines = tuple(line(name, rows, ways[name], near=found[name], resolution=resolution, batch=batch) for name in ways)
    return Result(resolution=resolution, batch=batch, copy=rows[COPY], lines=lines)


def refuse(faults: Iterable[str]) -> None:
    """Time nothing where ways do not agree.

    Raises:
        WrongError: there are faults.
    """
    if told_faults := "\n".join(faults):
        raise WrongError(told_faults)


def trained(way: Way) -> None:
    """One step as a training takes it."""
    way.rate(0.5)
    way()


def line(name: str, rows: Mapping[str, Row], one: Started, *, near: Agreement, resolution: int, batch: int) -> Line:
    """All that is told of a way."""
    moved, part = share(rows[name], modelled_bytes(network_at(resolution), PASSES.get(name, "eager")), rows[COPY])
    steady = (RUN - READY) * batch / rows[name].median
    return Line(
        way=name,
        rate=rows[name],
        advantage=ratio(rows[OURS], rows[name], more_is_better=True),
        moved=moved,
        share=part,
        memory=one.memory,
        first=one.first,
        ready=one.ready,
        end_to_end=RUN * batch / (one.ready + steady),
        agreement=near,
    )


def told_lines(result: Result) -> Iterator[Sequence[object]]:
    """Rows of the table."""
    for one in result.lines:
        yield (
            *(result.resolution, result.batch, one.way, one.rate, one.advantage, f"{one.moved:.3g}"),
            *(
                f"{one.share:.0%}",
                gib(one.memory),
                f"{one.first:.1f}",
                f"{one.ready:.1f}",
                f"{one.end_to_end:,.0f}",
            ),
        )


def shortfalls(results: Sequence[Result]) -> Iterator[str]:
    """What the requirement lacks."""
    judged = [one for one in results if one.resolution == JUDGED]
    if not judged:
        yield f"NOT MET: {JUDGED} px was not measured"
    for result in judged:
        found = {one.way: one.advantage for one in result.lines}
        for way, least in REQUIRED.items():
            yield from short_of(found[way], least, f"batch {result.batch}: ours over {way}")


def settings(text: str) -> list[tuple[int, int]]:
    """`224x256,64x256` as resolutions and batches."""
    return [(int(side), int(batch)) for side, batch in (one.split("x") for one in text.split(","))]


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.add_argument(
        "--settings",
        type=settings,
        default="224x256,224x512,64x256",
        help="resolution x batch, with commas (default %(default)s)",
    )
    parser.add_argument("--steps", type=int, default=30, help="steps of one measurement (default 30)")
    parser.add_argument("--repetitions", type=int, default=7, help="measurements of each way (default 7)")
    parser.add_argument("--backend", default="inductor", help="of torch.compile (default inductor, max-autotune)")
    return parser.parse_args()


def main() -> int:
    """Compare, print, and say whether the requirement is met."""
    given = options()
    device, where = device_of(given.device), setting("torch", "triton", "timm", "scalesearch")
    results = []
    try:
        with cold_caches():
            for resolution, batch in given.settings:
                results.append(compare(resolution, batch, device, given))
                torch.compiler.reset()
                gc.collect()
    except WrongError as fault:
        print(fault)
        return 1
    print(table(HEADER, [row for one in results for row in told_lines(one)]))
    print(f"\nmedian (min–max) of {given.repetitions} measurements in turn, {given.steps} steps each; {told(where)}")
    write(given.out, {**where, "device": device.type, "results": [asdict(one) for one in results]})
    met = " and ".join(f"{least:g} times as fast as {way}" for way, least in REQUIRED.items())
    return verdict(list(shortfalls(results)), device, met=f"at {JUDGED} px, ours is {met}")


if __name__ == "__main__":
    sys.exit(main())
