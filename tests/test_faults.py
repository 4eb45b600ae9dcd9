"""Kills, Ctrl-C and rivals, on the real program with real signals: nothing is trained twice and no bit changes."""

import json
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from scalesearch.cli import _code
from scalesearch.journal import NAME, read_journal
from scalesearch.trials import TrialKey, TrialResult

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds workers by /proc")

TRIALS = 8


def complete(folder: Path) -> dict[TrialKey, TrialResult]:
    """Everything the journal knows of the finished trials."""
    return {key: one for key, one in read_journal(folder / NAME).trials.items() if one.has_ended}


def left_over(folder: Path) -> list[str]:
    """Trials that Optuna does not take for finished."""
    study = optuna.load_study(study_name="scalesearch", storage=f"sqlite:///{folder / 'study.db'}")
    return [trial.state.name for trial in study.get_trials(deepcopy=False) if not trial.state.is_finished()]


def ended(pids: list[int], within: float = 5.0) -> bool:
    """Whether all processes are gone in time."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.slow
def test_kills_of_workers_and_coordinator_train_nothing_twice_and_change_no_byte_of_the_ranking(
    program: Callable[..., Any], finished: tuple[Path, Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    folder = tmp_path / "run"
    command = ["run", *tiny_options, "--out", folder]
    first = program(*command)
    first.wait_for("1/8 ")
    os.kill(first.workers()[0], signal.SIGKILL)
    first.wait_for("worker killed by SIGKILL; tried again")
    first.wait_for("3/8 ")
    workers = first.workers()
    assert len(workers) == 2
    os.kill(first.process.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert ended(workers)
    before = complete(folder)
    assert 3 <= len(before) < TRIALS
    assert not (folder / "ranking.json").exists()

    second = program(*command)
    assert second.wait() == 0, second.err.read_text()
    assert f"trials done before: {len(before)}," in second.out.read_text()
    after = complete(folder)
    assert len(after) == TRIALS
    assert {key: after[key] for key in before} == before
    assert left_over(folder) == []
    assert (folder / "ranking.json").read_bytes() == (finished[0] / "ranking.json").read_bytes()
    assert (folder / "trials.csv").read_bytes() == (finished[0] / "trials.csv").read_bytes()
    assert list((folder / "checkpoints").iterdir()) == []


CHOOSING = {
    "fit": "--candidates 20 --seeds 1 --epochs 1 --confirm 1",
    "race": "--candidates 6 --seeds 2 --epochs 2",
}
"""Searches that go by what they find, of some twenty trials of a second each."""


@pytest.fixture(scope="module")
def both_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with a test part."""
    path = tmp_path_factory.mktemp("data") / "both.npz"
    labels = np.arange(560) % 3
    images = np.random.default_rng(0).integers(0, 128, (560, 12, 12, 3), np.uint8)
    images += (100 * np.eye(3, dtype=np.uint8)[labels])[:, None, None, :]
    parts = {"train": slice(0, 400), "test": slice(400, 560)}
    arrays = {f"{name}_{what}": values[part] for name, part in parts.items()
              for what, values in (("images", images), ("labels", labels))}  # fmt: skip
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("policy", CHOOSING)
def test_a_search_that_chooses_its_trials_comes_to_the_same_killed_stopped_and_on_one_slot_or_two(
    program: Callable[..., Any], both_parts: Path, policy: str, tmp_path: Path
):
    tiny = "--budget 0.5x --preset quick --images 256 --proxy-resolution 12 --threads 1 --together 1"
    options = ["--data", both_parts, "--policy", policy, *tiny.split(), *CHOOSING[policy].split()]
    plain, folder = tmp_path / "plain", tmp_path / "run"
    undisturbed = program("run", *options, "--out", plain, cores=1)
    assert undisturbed.wait(500) == 0, undisturbed.err.read_text()

    first = program("run", *options, "--out", folder)
    first.wait_for("\n4/")
    os.kill(first.process.pid, signal.SIGKILL)
    first.wait()
    before = complete(folder)
    stopped = program("run", *options, "--out", folder, "--max-hours", 10 / 3600, cores=1)
    assert stopped.wait() in (0, 2)  # 2: no candidate has finished in time
    last = program("run", *options, "--out", folder)
    assert last.wait(500) == 0, last.err.read_text()
    after = complete(folder)
    assert {key: after[key] for key in before} == before
    for name in ("ranking.json", "trials.csv", "candidates.csv", "family/manifest.json"):
        assert (folder / name).read_bytes() == (plain / name).read_bytes(), name
    found = json.loads((folder / "ranking.json").read_text())
    assert found["search"]["unfinished"] is None
    assert bool(found["confirmation"]) is (policy == "fit")
    assert list((folder / "checkpoints").iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_the_line_that_goes_on(
    program: Callable[..., Any], finished: tuple[Path, Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    folder = tmp_path / "a run"
    first = program("run", *tiny_options, "--out", folder)
    first.wait_for("2/8 ")
    workers = first.workers()
    first.interrupt()
    assert ended(workers)  # within 5 s
    assert first.wait(15) == 130
    printed = first.err.read_text()
    assert "Traceback" not in printed
    [line] = printed.splitlines()
    before = complete(folder)
    assert 2 <= len(before) < TRIALS

    name, *arguments = shlex.split(line[line.index("scalesearch run") :])
    assert (name, arguments) == ("scalesearch", ["run", *tiny_options, "--out", str(folder)])
    second = program(*arguments)
    second.wait_for("family")  # the ranking is written before the family
    after = complete(folder)
    assert len(after) == TRIALS
    assert {key: after[key] for key in before} == before
    assert (folder / "ranking.json").read_bytes() == (finished[0] / "ranking.json").read_bytes()
    second.interrupt()
    assert second.wait(15) in (130, 0)


def test_ctrl_c_before_the_first_trial_ends_with_130_too(
    program: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    run = program("run", *tiny_options, "--out", tmp_path / "run")
    while not (tmp_path / "run" / "plan.yaml").exists():
        time.sleep(0.01)
    run.interrupt()
    assert run.wait(15) == 130
    assert "Traceback" not in run.err.read_text()
    assert "scalesearch run" in run.err.read_text()


@pytest.mark.slow
def test_ctrl_c_while_a_family_is_written_ends_with_130(program: Callable[..., Any], tmp_path: Path):
    emit = program("emit", "--base", "b0", "--published", "--out", tmp_path / "family")
    emit.wait_for("wrote B0")
    emit.interrupt()
    assert emit.wait(15) == 130
    assert "Traceback" not in emit.err.read_text()


@pytest.mark.slow
def test_a_second_run_on_the_same_folder_is_refused_and_the_first_goes_on(
    program: Callable[..., Any],
    tiny_options: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    folder = tmp_path / "run"
    options = (*tiny_options, "--seeds", "12")  # long enough to be still at work when the second has waited
    first = program("run", *options, "--out", folder)
    first.wait_for("policy grid, ")
    assert _code(["run", *options, "--out", str(folder), "--quiet"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    holder = f"{folder} is in use by pid {first.process.pid} on {platform.node()} since "
    assert line.startswith(f"scalesearch: {holder}")
    assert line.endswith(" UTC; wait for it, or stop it first")
    first.wait_for("1/48 ")
    assert _code(["status", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("running: ")
    first.interrupt()
    assert first.wait(15) == 130
    assert _code(["status", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("interrupted: ")


def test_a_reader_that_stops_listening_ends_the_program_quietly(finished: tuple[Path, Any], tmp_path: Path):
    err = tmp_path / "err.txt"
    command = shlex.join([sys.executable, "-m", "scalesearch", "rank", str(finished[0]), "--json"])
    os.system(f"{command} 2> {shlex.quote(str(err))} | head -c 1 > {os.devnull}")
    assert err.read_text() == ""
