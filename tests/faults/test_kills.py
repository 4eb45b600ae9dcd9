"""SIGKILL, at random and at every file operation: nothing that has ended is lost or run again, no byte changes."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from disturbing import SEARCHES, STANDING_IN, TINY, Run, assert_is_whole, assert_study_is_whole, contents, ends
from judging import assert_nothing_ran_again
from servers import Server

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds workers by /proc")]

IS_FULL = os.environ.get("SCALESEARCH_FAULTS") == "full"
KILLS = 35 if IS_FULL else 4
"""Of each policy on each storage."""
CASES = [(policy, storage) for policy in SEARCHES for storage in ("sqlite", "postgresql")]
FEW = [("fit", "sqlite"), ("fit", "postgresql"), ("pairs", "sqlite")]
OPERATIONS = None if IS_FULL else 6
"""File operations that the coordinator is killed in; None = all."""
EARLY = (7, 11)
"""Operations before the plan is written down, behind which nobody could say whose folder it is."""
SHARES = {"worker": 70, "coordinator": 20, "both": 10}


@pytest.fixture(scope="session")
def searches(tiny_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, bytes]]:
    """The answers of a search that nothing disturbs, by policy."""
    from conftest import Program

    found: dict[str, dict[str, bytes]] = {}

    def answers(policy: str) -> dict[str, bytes]:
        if policy not in found:
            place = tmp_path_factory.mktemp(f"undisturbed-{policy}")
            options = ["--data", tiny_npz, *TINY.split(), *SEARCHES[policy].split(), "--out", place / "run"]
            plain = Program("run", *options, place=place, entry=STANDING_IN)
            assert plain.wait() == 0, plain.err.read_text()
            found[policy] = contents(place / "run")
        return found[policy]

    return answers


@pytest.fixture
def disturbed(
    begun: Path,
    program: Callable[..., Any],
    tiny_npz: Path,
    searches: Callable[[str], dict[str, bytes]],
    request: pytest.FixtureRequest,
) -> Callable[[str, str], Run]:
    def prepared(policy: str, storage: str) -> Run:
        server: Server | None = request.getfixturevalue("postgres") if storage == "postgresql" else None
        options = ["--data", tiny_npz, *TINY.split(), *SEARCHES[policy].split()]
        options += ["--storage", server.url] if server else []
        return Run(
            start=lambda folder, **environment: program(
                "run", *options, "--out", folder, entry=STANDING_IN, **environment
            ),
            answers=searches(policy),
            driver=server.driver if server else None,
            begun=begun,
        )

    return prepared


def gone(pids: list[int], within: float = 60) -> None:
    end = time.monotonic() + within
    while any(Path(f"/proc/{pid}/exe").exists() for pid in pids):
        assert time.monotonic() < end, f"left running: {pids}"
        time.sleep(0.02)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("policy", "storage"), CASES if IS_FULL else FEW)
def test_random_kills_lose_nothing_run_nothing_again_and_change_no_byte(
    disturbed: Callable[[str, str], Run], policy: str, storage: str, tmp_path: Path
):
    chance, run, killed, number = random.Random(policy), disturbed(policy, storage), 0, 0
    while killed < KILLS:
        number += 1
        folder = tmp_path / f"{policy}-{storage}-{number}"
        killed += kill_until_done(run, folder, chance, KILLS - killed)
        assert contents(folder) == run.answers
        assert_nothing_ran_again(folder, run.begun)
        assert_study_is_whole(folder, run.driver)
        assert list((folder / "checkpoints").iterdir()) == []


def kill_until_done(run: Run, folder: Path, chance: random.Random, most: int) -> int:
    """Kill at random until a run has come to its end or enough are killed; returns the kills."""
    kills, before = 0, {}
    going = run.start(folder)
    while going.process.poll() is None:
        time.sleep(chance.uniform(0.1, 2.5))
        if kills == most:
            assert going.wait() == 0, going.err.read_text()
            break
        [what] = chance.choices([*SHARES], [*SHARES.values()])
        workers = going.workers()
        if (what == "worker" and not workers) or going.process.poll() is not None:
            continue
        if what != "coordinator" and workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
        if what != "worker":
            going.process.kill()
            going.wait()
            gone(workers)
            now = ends(folder)
            assert {name: now[name] for name in before} == before
            before, going = now, run.start(folder)
        kills += 1
    assert going.wait() == 0, going.err.read_text()
    after = ends(folder)
    assert {name: after[name] for name in before} == before
    return kills


UNKEPT = {"STEP_SECONDS": "0.25", "KEEP_FROM": "9"}
"""Environment of trials of two seconds that have no checkpoint, as those of real networks have none at first."""
TIMES = 5


def test_a_trial_whose_worker_is_killed_again_and_again_before_it_can_keep_anything_costs_no_byte(
    begun: Path, program: Callable[..., Any], tiny_npz: Path, tmp_path: Path
):
    few = "--policy grid --candidates 2 --seeds 1 --epochs 2"
    options = ["--data", tiny_npz, *TINY.split(), *few.split()]

    def start(folder: Path) -> Any:
        return program("run", *options, "--out", folder, entry=STANDING_IN, cores=1, **UNKEPT)

    undisturbed, folder = start(tmp_path / "undisturbed"), tmp_path / "run"
    assert undisturbed.wait() == 0, undisturbed.err.read_text()
    going = start(folder)
    for number in range(TIMES):
        while len(taken_up(folder, begun)) <= number:
            assert going.process.poll() is None, going.err.read_text()
            time.sleep(0.02)
        [worker] = going.workers()
        os.kill(worker, signal.SIGKILL)
        gone([worker])
    assert going.wait() == 0, going.err.read_text()
    assert_is_whole(Run(start, contents(tmp_path / "undisturbed"), None, begun), folder)


def taken_up(folder: Path, begun: Path) -> list[Any]:
    """How often the first trial of a run has been taken up, as its workers note it."""
    rows = [json.loads(line) for line in begun.read_text().splitlines()] if begun.exists() else []
    trials = [row["trials"] for row in rows if row["folder"] == str(folder)]
    return [one for one in trials if one == trials[0]]


def chosen_operations(run: Run, place: Path) -> list[int]:
    """Operations of a run that a fault is tried in, counted from 1: all, or some, the first ones among them."""
    counted = place / "count.txt"
    assert run.start(place / "counted", COUNT_IN=str(counted)).wait() == 0
    made = int(counted.read_text())
    assert made > 100
    return [*range(1, made + 1)] if OPERATIONS is None else [*range(1, made + 1, made // OPERATIONS), *EARLY]


@pytest.mark.timeout(7200)
def test_a_kill_inside_any_file_operation_of_the_coordinator_changes_no_byte(
    disturbed: Callable[[str, str], Run], tmp_path: Path
):
    run = disturbed("grid", "sqlite")
    for number in chosen_operations(run, tmp_path):
        folder = tmp_path / f"at-{number}"
        assert run.start(folder, DIE_AT=str(number), STEP_SECONDS="0").wait() in (-signal.SIGKILL, 0), number
        before = ends(folder)
        again = run.start(folder, STEP_SECONDS="0")
        assert again.wait() == 0, (number, again.err.read_text())
        after = ends(folder)
        assert {name: after[name] for name in before} == before, number
        assert_is_whole(run, folder)


@pytest.mark.timeout(7200)
def test_a_disk_that_is_full_at_any_file_operation_is_waited_for_or_named_and_changes_no_byte(
    disturbed: Callable[[str, str], Run], tmp_path: Path
):
    run = disturbed("grid", "sqlite")
    for number in chosen_operations(run, tmp_path):
        folder = tmp_path / f"at-{number}"
        first = run.start(folder, FULL_AT=str(number), STEP_SECONDS="0")
        if first.wait():
            assert first.process.returncode == 2, (number, first.err.read_text())
            [line] = first.err.read_text().splitlines()
            assert "No space left on device" in line, number
            again = run.start(folder, STEP_SECONDS="0")
            assert again.wait() == 0, (number, again.err.read_text())
        assert_is_whole(run, folder)
