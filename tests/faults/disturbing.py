"""Searches of the stand-in that tests disturb, and what must hold behind that."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from following import trials_of
from judging import assert_nothing_ran_again, lines, name_of
from optuna.trial import FrozenTrial

from scalesearch.files import UNFINISHED

STANDING_IN = (str(Path(__file__).parent / "standing_in.py"),)
TINY = "--budget 0.5x --preset quick --images 256 --proxy-resolution 12 --threads 1 --together 1 --quiet"
SEARCHES = {
    "fit": "--policy fit --candidates 12 --seeds 2 --epochs 2 --max-epochs-total 60 --margin 0.01",
    "race": "--policy race --candidates 8 --seeds 2 --epochs 4",
    "grid": "--policy grid --candidates 8 --seeds 3 --epochs 2",
    "pairs": "--policy grid --candidates 8 --seeds 4 --epochs 2 --together 2",
}
"""Of some thirty trials each."""
SMALL = Path(__file__).with_name("small.yaml")
FEW = f"--base {SMALL} --policy grid --candidates 2 --seeds 1 --epochs 1"
"""A search of a handful of trials from a small base, for what is tried at each of its file operations."""
ANSWERS = ("ranking.json", "trials.csv", "candidates.csv", "family/manifest.json")


class Run(NamedTuple):
    """A search that a test disturbs."""

    start: Callable[..., Any]
    """Starts the program on a folder; further options of `Program` by name, variables of the environment among them."""
    answers: dict[str, bytes]
    """Of the undisturbed run."""
    driver: str | None
    """The server of its study, for SQLAlchemy; None = a file."""
    begun: Path
    """What its workers note in."""


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ANSWERS}


def gone(pids: list[int], within: float = 60) -> None:
    """Wait for the end of processes [s]."""
    end = time.monotonic() + within
    while any(Path(f"/proc/{pid}/exe").exists() for pid in pids):
        assert time.monotonic() < end, f"left running: {pids}"
        time.sleep(0.02)


def ends(folder: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    return {name_of(line): line for line in lines(folder) if line["kind"] == "ended"}


def assert_study_is_whole(folder: Path, driver: str | None) -> None:
    """Every trial once, none left running."""
    if driver is None:
        trials = trials_of(f"sqlite:///{folder / 'study.db'}", None)
    else:
        [bound] = {line["value"] for line in lines(folder) if line.get("part") == "study"}
        trials = trials_of(driver, bound)
    assert_mirrored(folder, trials)


def assert_mirrored(folder: Path, trials: list[FrozenTrial]) -> None:
    """Every trial that has ended once, none left running."""
    names = [name_of(trial.user_attrs) for trial in trials]
    assert sorted(names) == sorted(ends(folder))
    assert all(trial.state.is_finished() for trial in trials)


def assert_is_whole(run: Run, folder: Path) -> None:
    """A run that was disturbed has the answers of one that was not, and left nothing half done."""
    assert contents(folder) == run.answers, folder
    assert not [path for path in folder.rglob(".*") if UNFINISHED.fullmatch(path.name)], folder
    assert_nothing_ran_again(folder, run.begun)
    assert_study_is_whole(folder, run.driver)
