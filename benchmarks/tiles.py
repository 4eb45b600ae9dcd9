"""How far from the fastest are the tiles that our kernels for batch norm and activation choose by rule, on one GPU?

Command:

    python benchmarks/tiles.py --out benchmarks/results/tiles.json

Every map that EfficientNet-B0 normalises at 224 px, batch 128, in bf16: batch norm and SiLU forward and backward, under
the rule of `kernels/norm_act.py` and with other numbers of elements in a tile and of programs in a pass. Settings are
measured in turn, map by map. What the whole network would gain is the sum over its layers.

Before anything is timed, outputs and gradients under every setting are held against torch's; the exit code is 1 where
they differ. Nothing is required of the ratios: they say whether the constants are right for a GPU, and whether tuning
by shape would pay. Without a GPU, `TRITON_INTERPRET=1 python benchmarks/tiles.py --device cpu --resolution 32 --batch 2
--halvings 3 --repetitions 1` is a dry run. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from measuring import Row, in_turn, setting, table, told, write
from seeds_fused import proxy
from stepping import arguments, device_of, seconds, verdict
from torch import Tensor, nn
from torch.nn import functional

from scalesearch.families import find_base
from scalesearch.kernels import norm_act
from scalesearch.nets.architecture import build
from scalesearch.spec import Network

ALIKE = {"cpu": 1e-4, "cuda": 2e-2}
"""Most that an output or a gradient differs from torch's, as a share of its norm: in fp32, in bf16."""
DTYPES = {"cpu": torch.float32, "cuda": torch.bfloat16}
ELEMENTS, PROGRAMS = (1024, 2048, 4096, 8192), (1024, 2048, 4096)


@dataclass(frozen=True, slots=True, order=True)
class Tiles:
    """The constants that tiles follow from."""

    elements: int
    programs: int

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """The kernels have these inside."""
        before = norm_act.ELEMENTS, norm_act.PROGRAMS
        norm_act.ELEMENTS, norm_act.PROGRAMS = self.elements, self.programs
        try:
            yield
        finally:
            norm_act.ELEMENTS, norm_act.PROGRAMS = before

    def __str__(self) -> str:
        """For the table."""
        return f"{self.elements} elements, {self.programs} programs"


RULE = Tiles(norm_act.ELEMENTS, norm_act.PROGRAMS)
SETTINGS = sorted({RULE, *(Tiles(*pair) for pair in product(ELEMENTS, PROGRAMS))})


@dataclass(frozen=True, slots=True, order=True)
class Map:
    """A map that is normalised, of each image."""

    channels: int
    side: int

    def made(self, batch: int, device: torch.device) -> Callable[[], tuple[Tensor, ...]]:
        """A call of `passed` on such maps."""
        draw = torch.Generator(device).manual_seed(0)
        shape, how = (batch, self.channels, self.side, self.side), {"device": device, "dtype": DTYPES[device.type]}
        x, dy = (torch.randn(shape, generator=draw, **how) for _ in range(2))
        x, dy = (value.contiguous(memory_format=torch.channels_last) for value in (x, dy))
        return partial(passed, x.requires_grad_(), dy, nn.BatchNorm2d(self.channels, device=device))


def passed(x: Tensor, dy: Tensor, norm: nn.BatchNorm2d, *, plain: bool = False) -> tuple[Tensor, ...]:
    """Output, and the gradients of map, weight and bias."""
    out = functional.silu(norm(x)) if plain else norm_act.norm_act(x, norm, "silu")
    return out.detach(), *torch.autograd.grad(out, [x, norm.weight, norm.bias], dy)


def maps_of(network: Network) -> Counter[Map]:
    """What the network normalises, and in how many layers."""
    found: Counter[Map] = Counter()

    def note(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        found[Map(*inputs[0].shape[1:3])] += 1

    with torch.device("meta"):
        module = build(network).to("meta").eval()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.register_forward_hook(note)
        module(torch.empty(1, 3, network.resolution, network.resolution))
    return found


def apart(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> float:
    """Greatest difference of an output or a gradient, as a share of its norm; infinite where one is not finite."""
    shares = [
        float((one - other).float().norm() / other.float().norm()) for one, other in zip(ours, theirs, strict=True)
    ]
    return max(shares) if all(map(math.isfinite, shares)) else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was found for a map."""

    map: Map
    layers: int
    """That normalise such a map."""
    difference: float
    """Greatest, of any setting, from torch."""
    rows: dict[str, Row]
    """Seconds by setting."""

    @property
    def best(self) -> Row:
        """The fastest setting."""
        return min(self.rows.values(), key=lambda row: row.median)


def measured(one: Map, layers: int, given: argparse.Namespace, device: torch.device) -> Result:
    """Hold every setting against torch, then time all of them."""
    run = one.made(given.batch, device)
    expected, difference = run(plain=True), 0.0
    for tiles in SETTINGS:
        with tiles():
            difference = max(difference, apart(run(), expected))

    def timed(tiles: Tiles) -> float:
        with tiles():
            return seconds(lambda: [run() for _ in range(given.steps)], device) / given.steps

    rows: dict[str, Row] = {}
    if difference <= ALIKE[device.type]:
        rows = in_turn({str(tiles): partial(timed, tiles) for tiles in SETTINGS}, given.repetitions)
    return Result(map=one, layers=layers, difference=difference, rows=rows)


def tables(results: list[Result]) -> str:
    """By map, and over all layers of the network."""
    lines = [
        [f"{one.map.channels} x {one.map.side}²", one.layers, *_milliseconds(one), one.best.way] for one in results
    ]
    sums = {str(tiles): 1000 * sum(one.layers * one.rows[str(tiles)].median for one in results) for tiles in SETTINGS}
    marked = {str(RULE): " (the rule)"}
    rows = [
        [way + marked.get(way, ""), f"{value:.4g}", f"{sums[str(RULE)] / value:.3f}"] for way, value in sums.items()
    ]
    by_map = table(["map", "layers", "rule [ms]", "fastest [ms]", "rule / fastest", "fastest"], lines)
    return f"{by_map}\n\n{table(['setting, all layers', '[ms]', 'times as fast as the rule'], rows)}"


def _milliseconds(one: Result) -> list[str]:
    rule, best = one.rows[str(RULE)].median, one.best.median
    return [f"{1000 * rule:.4g}", f"{1000 * best:.4g}", f"{rule / best:.3f}"]


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.add_argument("--resolution", type=int, default=224, help="of the images [px] (default 224)")
    parser.add_argument("--batch", type=int, default=128, help="images (default 128)")
    parser.add_argument("--halvings", type=int, default=0, help="how often B0 is narrowed (default 0)")
    parser.add_argument("--steps", type=int, default=20, help="passes of one measurement (default 20)")
    parser.add_argument("--repetitions", type=int, default=7, help="measurements of each setting (default 7)")
    return parser.parse_args()


def main() -> int:
    """Compare and print."""
    given = options()
    device, where = device_of(given.device), setting("torch", "triton", "scalesearch")
    if not norm_act.available(device):
        raise SystemExit("the kernels do not run here; on a CPU, set TRITON_INTERPRET=1")
    network = proxy(given.resolution, given.halvings) if given.halvings else find_base("b0").network
    results = []
    for one, layers in sorted(maps_of(network).items()):
        results.append(measured(one, layers, given, device))
        if not results[-1].rows:
            print(f"WRONG: {one}: {results[-1].difference:.2g} from torch, at most {ALIKE[device.type]:g}")
            return 1
    print(tables(results))
    print(f"\nmedians of {given.repetitions} measurements in turn, {given.steps} passes each; {told(where)}")
    documents: list[dict[str, Any]] = [asdict(one) for one in results]
    write(given.out, {**where, "device": device.type, "results": documents})
    return verdict([], device, met="every setting computes what torch does")


if __name__ == "__main__":
    sys.exit(main())
