"""A recorded table of real trainings, as a landscape: truth is taken from seeds that the searcher does not see.

All replays share one table, so that more of them do not make it tell more. And seeds are drawn without replacement: a
candidate that was lucky in the seeds shown is unlucky in those kept back, so that where noise exceeds the differences
between candidates, whoever believes the means most loses most.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from landscapes import Array

from scalesearch.policies.race import rungs
from scalesearch.samples import Arm, Shares

RECORDED = Path(__file__).parent / "results" / "recorded_trials.csv"
SEEN = 3
"""Recorded seeds of each arm that a searcher sees; the others are the truth."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recorded:
    """A table of real trainings, split between a searcher and the truth."""

    arms: tuple[Arm, ...]
    rungs: tuple[int, ...]
    shown: Array
    """(arms, seeds, rungs): what the searcher may see [%]."""
    truth: Array
    optimum: Shares | None = None

    @property
    def seeds(self) -> int | None:
        """Different trainings that there are of each arm."""
        return self.shown.shape[1]

    def accuracy(self, place: int, rung: int, seed: int, random: np.random.Generator) -> float:
        """The recorded accuracy of a seed; one of those again where a searcher asks for more than there are."""
        if seed >= self.shown.shape[1]:
            seed = int(random.integers(self.shown.shape[1]))
        return float(self.shown[place, seed, self.rungs.index(rung)])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Recorded trainings."""

    arms: tuple[Arm, ...]
    rungs: tuple[int, ...]
    """Recorded lengths that a search of that length uses [epochs]."""
    accuracies: Array
    """(arms, seeds, rungs) [%]."""

    @property
    def noise(self) -> float:
        """Standard deviation between seeds at full length, pooled over the arms [points]."""
        return float(np.sqrt(self.accuracies[:, :, -1].var(axis=1, ddof=1).mean()))

    @property
    def spread(self) -> float:
        """Standard deviation of the arms' means over all seeds, at full length [points]."""
        return float(self.accuracies[:, :, -1].mean(axis=1).std(ddof=1))

    @property
    def error_of_truth(self) -> float:
        """Standard error of each arm's truth in a replay [points]."""
        return self.noise / float(np.sqrt(self.accuracies.shape[1] - SEEN))

    def split(self, random: np.random.Generator) -> Recorded:
        """For every arm, `SEEN` seeds for the searcher, in random order, and the mean of the others as its truth."""
        order = random.permuted(np.tile(np.arange(self.accuracies.shape[1]), (len(self.arms), 1)), axis=1)
        mixed = np.take_along_axis(self.accuracies, order[:, :, None], axis=1)
        truth = mixed[:, SEEN:, -1].mean(axis=1)
        return Recorded(arms=self.arms, rungs=self.rungs, shown=mixed[:, :SEEN], truth=truth)


@cache
def recorded(path: Path = RECORDED) -> Table:
    """Read a table made by record_trials.py; candidates off budget are left out."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["off_budget"] == "False"]
    known = {
        row["candidate"]: Arm(
            id=row["candidate"],
            shares=(float(row["depth_share"]), float(row["width_share"]), float(row["resolution_share"])),
        )
        for row in rows
    }
    values = {(row["candidate"], int(row["seed"]), int(row["epoch"])): float(row["accuracy"]) for row in rows}
    seeds = sorted({seed for _, seed, _ in values})
    lengths = rungs(max(epoch for _, _, epoch in values))
    table = [[[values[name, seed, rung] for rung in lengths] for seed in seeds] for name in known]
    return Table(arms=tuple(known.values()), rungs=lengths, accuracies=np.array(table))
