"""Is everything but training at most 1 % of the time of a search of 60 trials of 2 seconds?

Command:

    python benchmarks/overhead.py

The real search of a quick plan: policies, journal, Optuna study in SQLite, spawned workers, events, decisions. A worker
does all that it would for a trial (network, images, optimizer and average, checkpoints when they are due) and sleeps
where it would train and evaluate; accuracies are drawn from a quadratic over the shares, so that decisions have
something to decide. Setting up what is trained (network, optimizer, average) is part of a training, because any plain
loop pays it. What slots could have trained splits into training, slots that a policy leaves idle because it
waits for results (its own affair), and overhead: slots that wait for the coordinator, and what workers do besides
training. The processor time of the coordinator's process, the writing of the study included, has a column of its own:
where every core trains, it is taken from the training. What is paid once (images, start of the workers, the conclusion)
has figures of its own.

Each search runs in a process of its own. Exit code 0: under `fit`, the default, the requirement is met. 1: it is not.
Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measuring import Row, alone, in_turn, setting, table, told, write
from sleeping import IN_WORKERS, SECONDS, SET_UP, TRAINED, TRUTH, Laps, sleep_instead

from scalesearch import search as coordinator
from scalesearch.engine import trial
from scalesearch.engine.local import LocalExecutor
from scalesearch.engine.slots import Slot, processor_name
from scalesearch.engine.work import Event, Executor, Probe, Work
from scalesearch.journal import NAME, Journal
from scalesearch.mirror import Mirror
from scalesearch.outcome import conclude
from scalesearch.plan import ANCHOR, Layout, Plan
from scalesearch.policies.play import POLICIES
from scalesearch.prepared import prepare_images
from scalesearch.presets import PolicyName
from scalesearch.request import Request, resolve
from scalesearch.runfolder import claimed
from scalesearch.storage import in_folder

REQUIRED = 1.0
"""Most overhead of the time that the slots have [%]."""
JUDGED = "fit"
EPOCHS = 2
STORED = {"start": Journal, "report": Journal, "end": Journal, "decide": Journal, "plan": Mirror, "follow": Mirror}
"""Methods that a search calls to have things written."""


if __name__ == "__mp_main__":  # this script as a spawned worker imports it
    trial.train_trials = sleep_instead


# one search, in a process of its own ----------------------------------------------------------------------------------


class Watched:
    """An executor whose idle slots are counted, by what they wait for."""

    def __init__(self, executor: Executor) -> None:
        """Start counting."""
        self._executor = executor
        self._mark, self._idle = time.perf_counter(), executor.idle
        self.policy = 0.0
        """Slot seconds that nothing was due for until others end."""
        self.coordinator = 0.0
        """Slot seconds that the coordinator kept waiting."""

    def _lap(self) -> float:
        now = time.perf_counter()
        found = self._idle * (now - self._mark)
        self._mark, self._idle = now, self._executor.idle
        return found

    @property
    def idle(self) -> int:
        """See `Executor`."""
        return self._executor.idle

    @property
    def busy(self) -> int:
        """See `Executor`."""
        return self._executor.busy

    def submit(self, work: Work) -> None:
        """See `Executor`."""
        self._executor.submit(work)
        self.coordinator += self._lap()

    def events(self) -> Sequence[Event]:
        """See `Executor`."""
        self.coordinator += self._lap()
        found = self._executor.events()
        self.policy += self._lap()
        return found

    def forget(self, work: Work) -> None:
        """See `Executor`."""
        self._executor.forget(work)

    def stop(self, within: float) -> None:
        """See `Executor`."""
        self._executor.stop(within)

    def close(self) -> None:
        """See `Executor`; counts what is left."""
        self.coordinator += self._lap()


class Silent:
    """An observer that says nothing."""

    def planned(self, now: object) -> None:
        """A batch is due."""

    def happened(self, event: Event) -> None:
        """Something happened."""


def clocked(spent: dict[str, float], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its seconds counted under a name."""

    def timed(*arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            spent[name] += time.perf_counter() - start

    return timed


def planned(policy: PolicyName, trials: int) -> tuple[Plan, Layout]:
    """A quick plan of at most so many trials of full length, the unscaled base's included."""
    seeds = 3
    candidates = None if policy == JUDGED else max(2, (trials - seeds) // seeds)
    most = trials * EPOCHS
    return resolve(
        Request(preset="quick", policy=policy, seeds=seeds, epochs=EPOCHS, candidates=candidates, max_epochs_total=most)
    )


def truth(layout: Layout) -> dict[str, float]:
    """A quadratic over the shares, best where they are equal [%]."""
    shares = {name: layout.candidate(name).shares or (1.0, 1.0, 1.0) for name in layout.trained}
    found = {name: 80 - 2 * math.fsum((one - 1 / 3) ** 2 for one in each) for name, each in shares.items()}
    return {**found, ANCHOR: 78.0}


def run_search(policy: PolicyName, trials: int, slots: int, folder: Path) -> dict[str, Any]:
    """Search once, and tell where the time went [s]."""
    laps, spent = Laps(), defaultdict[str, float](float)
    plan, layout = planned(policy, trials)
    laps.lap("plan")
    for name, owner in STORED.items():
        setattr(owner, name, clocked(spent, name, getattr(owner, name)))
    coordinator.agenda = clocked(spent, "agenda", coordinator.agenda)
    places = [Slot(device="cpu", name=processor_name())] * slots
    with (
        claimed(folder, plan),
        closing(Journal(folder / NAME)) as journal,
        closing(LocalExecutor(places)) as executor,
    ):
        (folder / TRUTH).write_text(json.dumps(truth(layout)), encoding="utf-8")
        prepared = prepare_images(plan, layout, folder, lambda *_: None)
        laps.lap("images")
        least = min((one.proxy.network for one in layout.candidates), key=lambda network: network.resolution)
        executor.measure(Probe(network=least, recipe=plan.recipe, seconds=0.0), places)
        laps.lap("workers, beyond that")
        spent.clear()
        watched, busy = Watched(executor), time.process_time()
        study = coordinator.mirrored(in_folder(folder), plan, layout)
        coordinator.search(plan, layout, journal, study, watched, folder, Silent(), images=lambda _: prepared.folder)
        watched.close()
        busy = time.process_time() - busy
        laps.lap("search")
        study.close()
        laps.lap("study brought up")
        results = journal.results
    failed = sorted({result.reason for result in results if result.reason})
    if failed:
        raise SystemExit(f"trials failed: {'; '.join(failed)}")
    conclude(plan, layout, results, ())
    laps.lap("conclusion")
    parts = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "logs").glob("*.json")]
    return {
        "slots": slots,
        "trials": len(parts),
        "wall": laps.found.pop("search"),
        "once": laps.found,
        "policy": watched.policy,
        "coordinator": watched.coordinator,
        "processor": busy,
        "workers": {name: math.fsum(part[name] for part in parts) for name in (*TRAINED, *IN_WORKERS)},
        "spent": spent,
    }


# all policies ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to."""

    run: dict[str, Any]

    @property
    def available(self) -> float:
        """What the slots could have trained [slot s]."""
        return self.run["wall"] * self.run["slots"]

    @property
    def overhead(self) -> float:
        """What was neither training nor the policy's waiting [% of what was available]."""
        return 100 * (1 - (self.training + self.run["policy"]) / self.available)

    @property
    def training(self) -> float:
        """Training, what is trained being set up included [slot s]."""
        return math.fsum(self.run["workers"][name] for name in TRAINED)

    def row(self) -> list[object]:
        """For the table; milliseconds by trial."""
        run, workers = self.run, self.run["workers"]
        per_trial = 1000 / run["trials"]
        besides = math.fsum(workers[name] for name in IN_WORKERS)
        rest = self.available - self.training - run["policy"] - besides - run["coordinator"]
        parts = [*(workers[name] for name in (*SET_UP, *IN_WORKERS)), run["coordinator"], rest]
        share = f"{100 * run['policy'] / self.available:.1f}"
        used = f"{100 * self.training / self.available:.1f}"
        parts.append(run["processor"])
        return [run["trials"], f"{run['wall']:.1f}", used, share, *(f"{part * per_trial:.1f}" for part in parts)]


def tables(found: dict[str, list[Found]], overheads: dict[str, Row]) -> str:
    """The results for people."""
    header = ["policy", "overhead [%]", "trials", "seconds", "training [%]", "left idle by the policy [%]"]
    waits = ("idle for the coordinator", "ended, not yet heard", "processor of the coordinator")
    names = [f"{name} [ms]" for name in (*SET_UP, *IN_WORKERS, *waits)]
    rows = [[policy, overheads[policy], *runs[-1].row()] for policy, runs in found.items()]
    spent = [
        [policy, *(f"{1000 * runs[-1].run['spent'].get(name, 0):.0f}" for name in ("agenda", *STORED))]
        for policy, runs in found.items()
    ]
    once = [[policy, *(f"{value:.2f}" for value in runs[-1].run["once"].values())] for policy, runs in found.items()]
    return "\n\n".join(
        (
            table([*header, *names], rows),
            table(["coordinator, whole search [ms]", "agenda", *STORED], spent),
            table(["paid once [s]", *next(iter(found.values()))[-1].run["once"]], once),
        )
    )


def main() -> int:
    """Read the arguments; compare the policies, or be the process of one search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60, help="of full length, at most (default 60)")
    parser.add_argument("--seconds", type=float, default=2.0, help=f"of a trial of {EPOCHS} epochs (default 2)")
    parser.add_argument("--slots", type=int, default=2, help="workers (default 2)")
    parser.add_argument("--policies", default=",".join(POLICIES), help="default: all")
    parser.add_argument("--repetitions", type=int, default=3, help="searches of each policy (default 3)")
    parser.add_argument("--out", type=Path, help="write every run to this JSON file too")
    parser.add_argument("--way", choices=POLICIES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        with TemporaryDirectory() as folder:
            print(json.dumps(run_search(given.way, given.trials, given.slots, Path(folder))))
        return 0
    where = setting("torch", "optuna", "scalesearch")
    found: dict[str, list[Found]] = {policy: [] for policy in given.policies.split(",")}

    def run(policy: str) -> float:
        sizes = ("--way", policy, "--trials", given.trials, "--slots", given.slots)
        each = {SECONDS: str(given.seconds / EPOCHS), "CUDA_VISIBLE_DEVICES": ""}
        found[policy].append(Found(alone(__file__, *sizes, **each)))
        return found[policy][-1].overhead

    overheads = in_turn({policy: partial(run, policy) for policy in found}, given.repetitions)
    print(tables(found, overheads), end="\n\n")
    print(f"{given.slots} slots; parts by trial, of the last search; overheads of {given.repetitions}; {told(where)}")
    runs = {policy: [one.run for one in each] for policy, each in found.items()}
    write(given.out, {**where, "seconds": given.seconds, "runs": runs})
    judged = overheads.get(JUDGED)
    if judged and judged.median > REQUIRED:
        print(f"NOT MET: overhead of {JUDGED} is {judged.median:.2f} %, not {REQUIRED:g} % at most")
        return 1
    print(
        f"requirement met: overhead of {JUDGED} is at most {REQUIRED:g} %" if judged else f"{JUDGED} was not searched"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
