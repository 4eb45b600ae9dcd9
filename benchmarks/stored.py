"""Are `status` and `rank` of a run folder with 10,000 trials told within 3 seconds, whatever the policy?

Command:

    python benchmarks/stored.py

A folder per policy is written as a run writes it, through its journal, with planted accuracies in the place of
trainings. They make policies ask for many trials: under `race` all networks are alike; under `fit` two lead, one ahead
of the other by what the noise of their means hides, however many trials they have. Then the commands read the folder,
each time in a process of its own, from its start to its end. The last two columns are those of the same folder without
what its journal says of decisions, as earlier versions left it: every decision is taken again.

Exit code 0: the requirement is met. 1: it is not. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import math
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from measuring import Row, in_turn, setting, table, told, write

from scalesearch.agenda import agenda, player
from scalesearch.journal import NAME, Journal
from scalesearch.plan import Layout, Plan
from scalesearch.presets import PolicyName
from scalesearch.recipe import EpochResult
from scalesearch.request import Request, resolve
from scalesearch.runfolder import claimed
from scalesearch.trials import TrialKey, TrialState

REQUIRED = 3.0
"""Most time of a command [s]."""
EPOCHS = {"grid": 2, "race": 4, "fit": 1}
"""Full training length under each policy: a race needs several for its short rungs."""
MARGIN = 0.001
"""Differences that count as none, small enough for searches to go on for long [points]."""
CANDIDATES = 59
NOISE = 0.5
"""Of an accuracy between seeds [points]."""
APART = 0.01
"""Between the other networks [points]."""
COMMANDS = ("status", "rank")
ANEW = ", decided anew"
AHEAD = 1.2
"""Distance of the first from the second, in standard errors of a difference of their means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A run folder."""

    policy: PolicyName
    trials: int
    decisions: int


def planted(key: TrialKey, leaders: list[str]) -> float:
    """An accuracy [%]: noise of one size and alternating sign around the network's own."""
    noise = NOISE if key.seed % 2 else -NOISE
    if key.proxy not in leaders:
        return 78 + APART * random.Random(key.proxy).gauss(0, 1) + noise
    drift = AHEAD * NOISE * (math.sqrt(key.seed + 1) - math.sqrt(key.seed)) / math.sqrt(2)
    return 80 + noise + (drift if key.proxy == leaders[0] else -drift)


def planned(policy: PolicyName, trials: int) -> tuple[Plan, Layout]:
    """A quick plan with room for so many trials."""
    seeds = math.ceil(trials / CANDIDATES)
    return resolve(
        Request(
            preset="quick",
            policy=policy,
            seeds=seeds,
            epochs=EPOCHS[policy],
            images=2000,
            candidates=CANDIDATES,
            margin=MARGIN,
            max_epochs_total=None if policy == "grid" else trials * EPOCHS[policy] * 2,
        )
    )


def fill(folder: Path, policy: PolicyName, trials: int) -> Written:
    """Write the folder of a search that has ended, or has so many trials."""
    plan, layout = planned(policy, trials)
    with claimed(folder, plan), closing(Journal(folder / NAME)) as journal:
        playing = player(plan, layout)
        now = agenda(plan, layout, [], playing)
        names = [key.proxy for key in now.search.due]
        leaders = [name for name in dict.fromkeys(names) if names.count(name) > 1][:2] if policy == "fit" else []
        results: dict[TrialKey, float | None] = {}
        due = now.due
        while due and len(results) < trials:
            for key in due:
                results[key] = planted(key, leaders)
                store(journal, key, results[key] or 0.0, plan.epochs)
            due = playing.standing(results).due
            journal.decide(playing.decided)
    return Written(policy=policy, trials=len(results), decisions=len(playing.decided))


def store(journal: Journal, key: TrialKey, accuracy: float, epochs: int) -> None:
    """A trial as a search writes it."""
    journal.start(key)
    for epoch in range(1, key.rung + 1):
        journal.report(key, EpochResult(epoch=epoch, train_loss=1.0, accuracy=accuracy, loss=1.0))
    journal.end(key, TrialState.PRUNED if key.rung < epochs else TrialState.COMPLETE)


def without_decisions(folder: Path, aside: Path) -> Path:
    """The same run as earlier versions left it."""
    aside.mkdir()
    (aside / "plan.yaml").write_bytes((folder / "plan.yaml").read_bytes())
    lines = (folder / NAME).read_bytes().splitlines(keepends=True)
    (aside / NAME).write_bytes(b"".join(line for line in lines if not line.startswith(b'{"kind":"decided"')))
    return aside


def seconds(command: str, folder: Path, spent: list[float]) -> float:
    """How long a command takes from its start to its end [s]; notes its processor time."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "scalesearch", command, folder], stdout=subprocess.DEVNULL, check=True)
    took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return took


def tables(written: Sequence[Written], found: Mapping[str, Row], spent: Mapping[str, Sequence[float]]) -> str:
    """The results for people."""
    columns = [f"{command}{how}" for how in ("", ANEW) for command in COMMANDS]

    def cell(policy: str, column: str) -> str:
        name = f"{policy}: {column}"
        return f"{found[name]} [{median(spent[name]):.3g}]"

    rows = [[one.policy, one.trials, one.decisions, *(cell(one.policy, name) for name in columns)] for one in written]
    return table(["policy", "trials", "decisions", *(f"{name} [s]" for name in columns)], rows)


def main() -> int:
    """Write the folders, have them read, print, and say whether the requirement is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000, help="of each search, at most (default 10,000)")
    parser.add_argument("--policies", default=",".join(EPOCHS), help="default: all")
    parser.add_argument("--repetitions", type=int, default=3, help="of every command (default 3)")
    parser.add_argument("--out", type=Path, help="write every timing to this JSON file too")
    given = parser.parse_args()
    where = setting("numpy", "scalesearch")
    with TemporaryDirectory() as place:
        written = [fill(Path(place) / name, name, given.trials) for name in given.policies.split(",")]
        spent: dict[str, list[float]] = {}
        ways: dict[str, Callable[[], float]] = {}
        for one in written:
            folder = Path(place) / one.policy
            read = {"": folder, ANEW: without_decisions(folder, folder.with_suffix(".anew"))}
            for command in COMMANDS:
                for how, path in read.items():
                    name = f"{one.policy}: {command}{how}"
                    ways[name] = partial(seconds, command, path, spent.setdefault(name, []))
        found = in_turn(ways, given.repetitions)
    print(tables(written, found, spent), end="\n\n")
    print(
        f"seconds from start to end, processor seconds in brackets [ ]: medians of {given.repetitions}; {told(where)}"
    )
    timings = {name: {"seconds": row.values, "processor": spent[name]} for name, row in found.items()}
    write(given.out, {**where, "written": [asdict(one) for one in written], "timings": timings})
    slow = [name for name, row in found.items() if ANEW not in name and row.median > REQUIRED]
    print(f"NOT MET: {', '.join(slow)}" if slow else f"requirement met: at most {REQUIRED:g} seconds")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
