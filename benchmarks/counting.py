"""Is counting in closed form at least 1,000 times as fast as fvcore on built networks, and equal in every operator?

Command:

    python benchmarks/counting.py

For B0 and for ResNet-50, 200 distinct networks of twice and four times the compute: random shares of depth, width and
resolution (a fixed seed), each projected onto the nearest legal network. Times the closed form `count` of all of them,
and fvcore on the same: `build`, then a traced forward pass (eval mode, batch 1, no gradients; its FLOP analysis alone).
Repetitions alternate between the two; medians count. A warm-up of each comes first and is left out. Times are CPU
seconds of the process on one thread: on a quiet machine the same as wall seconds, on a busy one the fairer of the two.

Exit code 0: equal, and the ratio is reached for both bases. 1: it is not. Needs 2 GB of memory and, with the defaults,
about 15 minutes. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from scalesearch.cost import OPERATORS, count
from scalesearch.engine.slots import processor_name
from scalesearch.families import find_base
from scalesearch.levelling import level
from scalesearch.nets.measure import FlopCountAnalysis
from scalesearch.nets.network import build
from scalesearch.scaling import Coefficients
from scalesearch.spec import Network

BASES = ("b0", "resnet50")
BUDGETS = (2.0, 4.0)
REQUIRED = 1000
"""Times as fast as fvcore that the closed form has to be."""
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One pass over all networks [CPU seconds]."""

    closed_form: float
    build: float
    """Building the modules for fvcore."""
    trace: float
    """fvcore's traced forward passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was found for one base."""

    base: str
    networks: int
    mismatches: int
    """Networks that differ in any operator or in their parameters."""
    timings: tuple[Timing, ...]

    def median(self, part: str) -> float:
        """Median seconds of a part of the passes."""
        return statistics.median(getattr(one, part) for one in self.timings)

    @property
    def fvcore(self) -> float:
        """Median seconds that building and tracing take together."""
        return statistics.median(one.build + one.trace for one in self.timings)

    @property
    def ratio(self) -> float:
        """Fvcore's median seconds over the closed form's."""
        return self.fvcore / self.median("closed_form")


def candidates(name: str, amount: int) -> list[Network]:
    """Distinct legal networks around a base, the budgets in turn."""
    base, rng = find_base(name), random.Random(SEED)
    found: dict[Network, None] = {}
    by_budget = []
    for budget in BUDGETS:
        points = []
        for _ in range(2 * amount):
            low, high = sorted((rng.random(), rng.random()))
            points.append(Coefficients.from_shares((low, high - low, 1 - high), budget).at(1.0))
        scaled = level(points, base.network, base.family.rounding, budget)
        by_budget.append([one.network for one in scaled if one])
    for pair in zip_longest(*by_budget):
        found.update(dict.fromkeys(network for network in pair if network))
    if len(found) < amount:
        raise SystemExit(f"only {len(found)} distinct networks around {name}; ask for fewer with --networks")
    return list(found)[:amount]


def counted(network: Network) -> dict[str, int]:
    """Every operator and the parameters, by the closed form."""
    cost = count(network)
    return {name: getattr(cost, name) for name in (*OPERATORS, "params")}


def measured(network: Network) -> tuple[dict[str, int], float, float]:
    """Every operator and the parameters by fvcore, and the seconds of building and of tracing."""
    start = time.process_time()
    module = build(network).eval().requires_grad_(False)
    built = time.process_time()
    with torch.no_grad():
        image = torch.zeros(1, 3, network.resolution, network.resolution)
        flops = FlopCountAnalysis(module, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        work = flops.by_operator()
    traced = time.process_time()
    values = dict.fromkeys(OPERATORS, 0) | {name: int(value) for name, value in work.items() if value}
    values["params"] = sum(weight.numel() for weight in module.parameters())
    return values, built - start, traced - built


def repeat(networks: list[Network], label: str) -> tuple[Timing, int]:
    """Count and measure every network once; the seconds, and how many networks differ."""
    start = time.process_time()
    for network in networks:
        count(network)
    closed_form = time.process_time() - start
    building = tracing = 0.0
    mismatches = 0
    for done, network in enumerate(networks, start=1):
        values, built, traced = measured(network)
        building, tracing = building + built, tracing + traced
        mismatches += values != counted(network)
        if done % 20 == 0 or done == len(networks):
            print(f"{label}: fvcore on {done} of {len(networks)}", file=sys.stderr, flush=True)
    return Timing(closed_form=closed_form, build=building, trace=tracing), mismatches


def compare(name: str, amount: int, repetitions: int) -> Result:
    """All repetitions for one base."""
    networks = candidates(name, amount)
    measured(networks[0])
    for network in networks:
        count(network)
    passes = [repeat(networks, f"{name}, pass {index} of {repetitions}") for index in range(1, repetitions + 1)]
    return Result(
        base=name,
        networks=len(networks),
        mismatches=max(mismatches for _, mismatches in passes),
        timings=tuple(timing for timing, _ in passes),
    )


def setting() -> dict[str, Any]:
    """When, on what and with which versions."""
    libraries = {name: version(name) for name in ("torch", "fvcore", "scalesearch")}
    return {
        "date": date.today().isoformat(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version(), **libraries},
    }


def table(results: list[Result], where: dict[str, Any]) -> str:
    """The results for people, with what they were measured on."""

    def seconds(one: Result, part: str) -> str:
        values = [getattr(timing, part) for timing in one.timings]
        return f"{one.median(part):.4g} ({min(values):.4g}–{max(values):.4g})"

    versions = ", ".join(f"{name} {value}" for name, value in where["versions"].items())
    lines = [
        "| base | networks | closed form | build | fvcore | (build + fvcore) / closed form | equal |",
        "|---" * 7 + "|",
    ]
    for one in results:
        equal = "all" if not one.mismatches else f"all but {one.mismatches}"
        parts = " | ".join(seconds(one, part) for part in ("closed_form", "build", "trace"))
        lines.append(f"| {one.base} | {one.networks} | {parts} | {one.ratio:,.0f} | {equal} |")
    passes = (
        f"CPU seconds on one thread, median (min–max) of {len(results[0].timings)} alternating passes over all networks"
    )
    machine = f"{where['processor']}, {where['cores']} cores, load {where['load_at_start']} at the start"
    lines += ["", f"{passes}; {where['date']}; {machine}; {versions}"]
    return "\n".join(lines)


def shortfalls(one: Result) -> Iterator[str]:
    """What the requirement lacks for one base."""
    if one.mismatches:
        yield f"NOT MET: {one.base}: {one.mismatches} of {one.networks} networks are counted differently"
    if one.ratio < REQUIRED:
        yield f"NOT MET: {one.base}: the closed form is {one.ratio:,.0f} times as fast as fvcore, not {REQUIRED:,}"


def main() -> int:
    """Compare, print, and say whether the requirement is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=200, help="networks per base (default 200)")
    parser.add_argument("--repetitions", type=int, default=5, help="passes over them (default 5)")
    parser.add_argument("--out", type=Path, help="write every timing to this JSON file too")
    given = parser.parse_args()
    torch.set_num_threads(1)
    where = setting()
    results = [compare(name, given.networks, given.repetitions) for name in BASES]
    print(table(results, where))
    if given.out:
        document = {**where, "results": [asdict(one) for one in results]}
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    faults = [fault for one in results for fault in shortfalls(one)]
    print("\n".join(faults) or f"requirement met: at least {REQUIRED:,} times as fast, equal in every operator")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
