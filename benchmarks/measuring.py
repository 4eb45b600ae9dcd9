"""What the timing benchmarks share: ways measured in turn, medians and ranges, where it ran, tables, records."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from scalesearch.engine.slots import processor_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The repeated measurements of one way."""

    way: str
    values: tuple[float, ...]
    """One per repetition, in order."""

    @property
    def median(self) -> float:
        """Of the values."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        """Median (min–max)."""
        return f"{self.median:.4g} ({min(self.values):.4g}–{max(self.values):.4g})"


def in_turn(ways: Mapping[str, Callable[[], float]], repetitions: int) -> dict[str, Row]:
    """Measure every way once, then every way again: what the machine does meanwhile meets all of them alike."""
    values: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(1, repetitions + 1):
        for name, measure in ways.items():
            values[name].append(measure())
            print(f"{repetition} of {repetitions}: {name}: {values[name][-1]:.4g}", file=sys.stderr, flush=True)
    return {name: Row(way=name, values=tuple(found)) for name, found in values.items()}


def ratio(ours: Row, theirs: Row, *, more_is_better: bool) -> Row:
    """How many times better ours is than theirs, by pairs of neighbouring measurements."""
    pairs = zip(ours.values, theirs.values, strict=True)
    return Row(way=f"{ours.way} / {theirs.way}", values=tuple(a / b if more_is_better else b / a for a, b in pairs))


def alone(script: str, *arguments: object, **environment: str) -> dict[str, Any]:
    """What a script prints as JSON in a process of its own, with the seconds of that process under `end_to_end`."""
    start = time.perf_counter()
    command = [sys.executable, script, *map(str, arguments)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **environment})
    return {**json.loads(ended.stdout), "end_to_end": time.perf_counter() - start}


def setting(*libraries: str) -> dict[str, Any]:
    """When, on what and with which versions."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "date": date.today().isoformat(),
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": gpus,
        "load_at_start": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in libraries}},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def told(where: Mapping[str, Any]) -> str:
    """The setting in a line for people."""
    machine = ", ".join([where["processor"], f"{where['cores']} cores", *where["gpus"]])
    versions = ", ".join(f"{name} {value}" for name, value in where["versions"].items())
    return f"{where['date']}; {machine}; load {where['load_at_start']} at the start; {versions}"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def write(path: Path | None, document: Mapping[str, Any]) -> None:
    """Write the record of a benchmark, if a path is given."""
    if path:
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
