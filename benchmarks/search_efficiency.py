"""How much training does each way of searching spend, how good is what it finds, and are its claims true?

Command:

    python benchmarks/search_efficiency.py --out benchmarks/results/search_efficiency.json

Every searcher is set on the same landscapes: planted ones, whose truth is known (landscapes.py), and a recorded table
of real trainings whose truth is taken from seeds that the searcher did not see (recorded.py). The searchers
(searchers.py) are grids of 1, 3 and 5 seeds, Optuna's SuccessiveHalving, Hyperband and Wilcoxon pruners, race and fit.
Nothing is trained: a training's result is drawn, or read from the table. Random numbers belong to (setting, replay,
searcher), so that neither the number of processes nor what else is replayed changes a result.

Exit code 0: whatever must hold was met in the settings that were replayed. 1: it was not. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
from figures import Figures, Judged, figures, judge
from landscapes import SETTINGS, Landscape, planted, stream
from recorded import SEEN, recorded
from requirements import COMPARED, OURS, checks, digest, tables
from searchers import PEER, SEARCHERS

RESULT = Path(__file__).parent / "results" / "search_efficiency.json"
RECORDED = "recorded"
NAMES = (*SETTINGS, RECORDED)
COMMITTED = tuple(name for name in NAMES if name not in ("smooth-0", "pointed", "skewed"))
"""Settings that are replayed unless others are asked for."""
CHUNK = 5
"""Replays that a process takes at once."""
Plays = dict[str, tuple[Judged, float]]
"""Searcher -> its play and the CPU seconds that it took."""


def landscape_of(setting: str, replay: int) -> Landscape:
    """The landscape of a replay, the same for every searcher."""
    random = stream(setting, replay)
    return recorded().split(random) if setting == RECORDED else planted(SETTINGS[setting], random)


def searchers_of(setting: str, names: Sequence[str]) -> list[str]:
    """Those that play: all where the kinds of searching are compared; a table holds no five seeds for a grid."""
    playing = names if setting in COMPARED else [name for name in names if name in (PEER, *OURS)]
    return [name for name in playing if setting != RECORDED or not name.startswith("grid-5")]


def replay(number: int, setting: str, names: Sequence[str]) -> Plays:
    """Set every searcher on one landscape."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    landscape = landscape_of(setting, number)
    plays: Plays = {}
    for name in names:
        start = time.process_time()
        played = SEARCHERS[name](landscape, stream(setting, number, name))
        plays[name] = judge(played, landscape), time.process_time() - start
    return plays


def summed_up(setting: str, names: Sequence[str], count: int, pool: Executor) -> dict[str, Figures]:
    """The figures of every searcher in a setting."""
    start = time.monotonic()
    found: list[Plays] = []
    one = partial(replay, setting=setting, names=searchers_of(setting, names))
    for plays in pool.map(one, range(count), chunksize=CHUNK):
        found.append(plays)
        if len(found) % 100 == 0 or len(found) == count:
            spent = time.monotonic() - start
            print(f"{setting}: {len(found)} of {count} replays, {spent:.0f} s", file=sys.stderr, flush=True)
    by_searcher = {name: [plays[name][0] for plays in found] for name in found[0]}
    seconds = {name: sum(plays[name][1] for plays in found) / count for name in found[0]}
    peers = by_searcher.get(PEER)
    return {name: figures(plays, peers) | {"seconds": round(seconds[name], 5)} for name, plays in by_searcher.items()}


def machine() -> dict[str, Any]:
    """When, on what and with which versions."""
    from scalesearch.engine.slots import processor_name

    libraries = {name: version(name) for name in ("numpy", "scipy", "optuna", "scalesearch")}
    return {
        "date": date.today().isoformat(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version(), **libraries},
    }


def about_the_table() -> dict[str, Any]:
    """What the recorded table can and cannot tell."""
    table = recorded()
    count, seeds, _ = table.accuracies.shape
    return {
        "arms": count,
        "seeds": seeds,
        "seeds_seen": SEEN,
        "epochs": list(table.rungs),
        "noise": round(table.noise, 4),
        "spread": round(table.spread, 4),
        "error_of_truth": round(table.error_of_truth, 4),
        "is_too_noisy_for_truth": table.error_of_truth > table.spread / 2,
    }


def listed(text: str, known: Sequence[str]) -> list[str]:
    """Names from a comma-separated text."""
    names = text.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(known)}")
    return [name for name in known if name in names]


def at_least_two(text: str) -> int:
    """A number of replays: one alone has no spread."""
    if int(text) < 2:
        raise argparse.ArgumentTypeError("2 replays or more, of which a spread can be told")
    return int(text)


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replays", type=at_least_two, default=1_000, help="per setting (default 1000)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    parser.add_argument("--only", type=partial(listed, known=NAMES), default=list(COMMITTED), help="settings, by comma")
    everyone = list(SEARCHERS)
    parser.add_argument(
        "--searchers", type=partial(listed, known=everyone), default=everyone, help="searchers, by comma"
    )
    parser.add_argument("--out", type=Path, help="write every figure to this JSON file, and go on behind its settings")
    parser.add_argument("--table", action="store_true", help=f"only print what README.md shows of {RESULT.name}")
    return parser.parse_args()


def done_before(given: argparse.Namespace) -> dict[str, dict[str, Figures]]:
    """Settings that the file already holds, of as many replays: a run that was stopped goes on behind them."""
    if not given.out or not given.out.is_file():
        return {}
    before = json.loads(given.out.read_text(encoding="utf-8"))
    return before["settings"] if before["replays"] == given.replays else {}


def main() -> int:
    """Replay, print, and say whether what must hold was met."""
    given = arguments()
    if given.table:
        print(digest(json.loads(RESULT.read_text(encoding="utf-8"))))
        return 0
    start = time.monotonic()
    document: dict[str, Any] = {**machine(), "replays": given.replays, "jobs": given.jobs}
    if RECORDED in given.only:
        document["recorded"] = about_the_table()
    with ProcessPoolExecutor(given.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = done_before(given)
        for name in (name for name in given.only if name not in found):
            found[name] = summed_up(name, given.searchers, given.replays, pool)
            document |= {"seconds": round(time.monotonic() - start), "settings": found}
            if given.out:  # after each setting, so that a run that is stopped keeps what it has
                given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(tables(found))
    missed = [f"NOT MET, row {one.row}: {one.what}: {one.found}" for one in checks(found) if not one.is_met]
    print("\n".join(missed) or "requirements met in the settings that were replayed")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
