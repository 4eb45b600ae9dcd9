"""Make the table of real trainings that search_efficiency.py replays, from the folder of a finished run.

Command:

    python benchmarks/record_trials.py RUN_FOLDER --out benchmarks/results/recorded_trials.csv

One row per candidate, seed and epoch: validation accuracy after that epoch [%], the log-compute shares of the trained
proxy and its multiply-adds. The anchor and failed trials are left out; a candidate must have every seed.

The run folders, on a CPU (quick preset, about 25 minutes on two cores; too noisy for truth) and on a GPU:

    scalesearch run --base b0 --preset quick --seeds 6 --policy grid --out b0-12x6
    scalesearch run --base b0 --preset standard --candidates 24 --seeds 8 --epochs 16 --images 10000 --policy grid \
        --data cifar10 --out b0-24x8
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna

LARGEST = 1_000_000
"""Bytes of a table that can be committed."""
COLUMNS: tuple[str, ...] = (
    "candidate",
    "depth_share",
    "width_share",
    "resolution_share",
    "off_budget",
    "macs",
    "seed",
    "epoch",
    "accuracy",
)


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """One row per candidate, seed and epoch, in that order, from the stored study and `candidates.csv`.

    Raises:
        SystemExit: no study there, or a training is missing.
    """
    if not (folder / "study.db").is_file():
        raise SystemExit(f"{folder} holds no study.db: give the folder of a run")
    with (folder / "candidates.csv").open(encoding="utf-8", newline="") as file:
        trained = [row for row in csv.DictReader(file) if row["trained"] == "True" and row["id"] == row["proxy.id"]]
    found = {(attrs["proxy"], attrs["seed"]): attrs for attrs in _finished(folder / "study.db")}
    seeds = range(1 + max((seed for _, seed in found), default=0))
    missing = [f"{row['id']} seed {seed}" for row in trained for seed in seeds if (row["id"], seed) not in found]
    if missing or not trained:
        raise SystemExit(f"{folder}: {len(missing)} trainings have not finished, such as {(missing or ['any'])[0]}")
    for row in trained:
        fixed = {"candidate": row["id"], "off_budget": row["off_budget"], "macs": row["proxy.macs"]}
        for name, share in zip(COLUMNS[1:4], row["shares"].split(), strict=True):
            fixed[name] = f"{float(share):.6g}"
        for seed in seeds:
            for epoch in found[row["id"], seed]["epochs"]:
                yield {**fixed, "seed": seed, "epoch": epoch["epoch"], "accuracy": f"{epoch['accuracy']:.6g}"}


def _finished(file: Path) -> Iterator[dict[str, Any]]:
    """The longest finished training of every proxy and seed, as the study keeps it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
    study = optuna.load_study(study_name=None, storage=storage)
    done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    yield from sorted((trial.user_attrs for trial in done), key=lambda attrs: attrs["rung"])


def main() -> int:
    """Write the table; 1 if it is too large to be committed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of a finished run")
    parser.add_argument("--out", type=Path, required=True, help="the CSV file")
    given = parser.parse_args()
    found = list(rows(given.folder))
    with given.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    size = given.out.stat().st_size
    print(f"{given.out}: {size:,} bytes")
    if size >= LARGEST:
        print(f"too large to be committed: at least {LARGEST:,} bytes", file=sys.stderr)
    return int(size >= LARGEST)


if __name__ == "__main__":
    sys.exit(main())
