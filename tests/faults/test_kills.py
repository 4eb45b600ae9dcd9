"""SIGKILL, at random and at every file operation: nothing that has ended is lost or run again, no byte changes."""

import json
import math
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from disturbing import (
    FEW,
    SEARCHES,
    STANDING_IN,
    TINY,
    Run,
    assert_is_whole,
    assert_study_is_whole,
    contents,
    ends,
    gone,
)
from file_faults import Fault, FileFaults, Kind, Operation, What
from judging import FULL, assert_nothing_ran_again
from servers import Server

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds workers by /proc")]

KILLS = 40 if FULL else 4
"""Of each policy on each storage."""
SHARES = 7 * ("worker",) + 2 * ("coordinator",) + ("both",)
"""Whom kills meet; of forty they meet 28 workers, 8 coordinators, and both 4 times."""
CASES = [(policy, storage) for policy in SEARCHES for storage in ("sqlite", "postgresql")]
SOME = [("fit", "sqlite"), ("fit", "postgresql"), ("pairs", "sqlite")]
"""Cases of the smaller set."""
PARTS = 8 if FULL else 1
"""Of the tests at file operations, which may run beside each other."""
ALL = 10_000
KILLED_AT = (
    {Kind.COORDINATOR: ALL, Kind.WORKERS: ALL, Kind.STUDY: 40}
    if FULL
    else {Kind.COORDINATOR: 3, Kind.WORKERS: 3, Kind.STUDY: 2}
)
"""Operations of a kind that a process is killed at; on the study's files they are SQLite's, which answers for them."""
FULL_AT = ALL if FULL else 3
"""Operations of a coordinator that prepares images at which the disk is full."""
EVERY = (
    {Kind.COORDINATOR: 12, Kind.WORKERS: 12, Kind.STUDY: 60}
    if FULL
    else {Kind.COORDINATOR: 25, Kind.WORKERS: 25, Kind.STUDY: 75}
)
"""Operations of a kind from one full disk to the next; a study that could not be written is opened anew."""
TURNS = 8 if FULL else 0
"""Runs at most in which what no full disk has met finds no room: what is not tried again waits for the next run."""
OPTIONS = {**SEARCHES, "few": FEW}


@pytest.fixture(scope="session")
def searches(tiny_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, bytes]]:
    """The answers of a search that nothing disturbs, by policy."""
    from conftest import Program

    found: dict[str, dict[str, bytes]] = {}

    def answers(policy: str) -> dict[str, bytes]:
        if policy not in found:
            place = tmp_path_factory.mktemp(f"undisturbed-{policy}")
            options = ["--data", tiny_npz, *TINY.split(), *OPTIONS[policy].split(), "--out", place / "run"]
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
        options = ["--data", tiny_npz, *TINY.split(), *OPTIONS[policy].split()]
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


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("policy", "storage"), CASES if FULL else SOME)
def test_random_kills_lose_nothing_run_nothing_again_and_change_no_byte(
    disturbed: Callable[[str, str], Run], policy: str, storage: str, tmp_path: Path
):
    chance, run, number = random.Random(policy), disturbed(policy, storage), 0
    due = dealt(chance)
    while due:
        number += 1
        folder = tmp_path / f"{policy}-{storage}-{number}"
        kill_until_done(run, folder, chance, due)
        assert contents(folder) == run.answers
        assert_nothing_ran_again(folder, run.begun)
        assert_study_is_whole(folder, run.driver)
        assert list((folder / "checkpoints").iterdir()) == []


def dealt(chance: random.Random) -> list[str]:
    """Whom the kills are to meet, in random order."""
    every = [*SHARES] * math.ceil(KILLS / len(SHARES))
    chance.shuffle(every)
    return every[:KILLS]


def kill_until_done(run: Run, folder: Path, chance: random.Random, due: list[str]) -> None:
    """Kill at random until a run has come to its end or nobody is due; takes away who was met."""
    before: dict[str, Any] = {}
    going = run.start(folder)
    while due:
        time.sleep(chance.uniform(0.1, 2.5))
        workers = going.workers()
        if going.process.poll() is not None:
            break
        if due[-1] != "coordinator" and not workers:  # they are still to begin, or have ended
            continue
        what = due.pop()
        if what != "coordinator":
            os.kill(chance.choice(workers), signal.SIGKILL)
        if what != "worker":
            going.process.kill()
            going.wait()
            gone(workers)
            now = ends(folder)
            assert {name: now[name] for name in before} == before
            before, going = now, run.start(folder)
    assert going.wait() == 0, going.err.read_text()
    after = ends(folder)
    assert {name: after[name] for name in before} == before


UNKEPT = {"STEP_SECONDS": "1", "KEEP_FROM": "9"}
"""Environment of trials of four seconds that have no checkpoint, as those of real networks have none at first."""
TIMES = 5


def test_a_trial_whose_worker_is_killed_again_and_again_before_it_can_keep_anything_costs_no_byte(
    begun: Path, program: Callable[..., Any], tiny_npz: Path, tmp_path: Path
):
    options = ["--data", tiny_npz, *TINY.split(), *FEW.split()]

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


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> FileFaults:
    return FileFaults(tmp_path_factory.mktemp("faults"))


def counted(run: Run, faults: FileFaults, place: Path) -> list[Operation]:
    """The operations of a run that meets no fault."""
    plain = run.start(place / "counted", cores=1, STEP_SECONDS="0", **faults.set(place / "counted"))
    assert plain.wait() == 0, plain.err.read_text()
    return faults.operations()


def ours(made: list[Operation], kind: Kind) -> list[Operation]:
    return [one for one in made if one.kind == kind]


def preparing(made: list[Operation]) -> list[Operation]:
    """The coordinator's operations up to the last one on prepared images: until then a full disk may end a command."""
    coordinator = ours(made, Kind.COORDINATOR)
    return coordinator[: max(place for place, one in enumerate(coordinator, 1) if one.path.startswith("data"))]


def spread(numbers: Sequence[int], most: int) -> list[int]:
    """All of them, or as many as are asked for."""
    some = min(most, len(numbers))
    assert len(numbers) > 20
    return [numbers[place * len(numbers) // some] for place in range(some)]


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(PARTS))
def test_a_kill_inside_any_file_operation_of_coordinator_or_workers_changes_no_byte(
    disturbed: Callable[[str, str], Run], faults: FileFaults, part: int, tmp_path: Path
):
    run, late = disturbed("few", "sqlite"), 0
    made = counted(run, faults, tmp_path)
    numbers = {kind: range(1, len(ours(made, kind)) + 1) for kind in Kind}
    tried = [(kind, one) for kind in Kind for one in spread(numbers[kind], KILLED_AT[kind])][part::PARTS]
    for kind, number in tried:
        folder = tmp_path / f"{kind.name}-{number}"
        first = run.start(folder, cores=1, STEP_SECONDS="0", **faults.set(folder, Fault.KILL, kind, number))
        code, met = first.wait(), faults.met()
        assert code == (-signal.SIGKILL if met.by == first.process.pid else 0), (number, first.err.read_text())
        assert met.by or met.made[kind] < number
        late += not met.by
        before = ends(folder)
        if code:
            again = run.start(folder, cores=1, STEP_SECONDS="0")
            assert again.wait() == 0, (kind, number, again.err.read_text())
        assert "Traceback" not in first.err.read_text(), (kind, number)
        after = ends(folder)
        assert {name: after[name] for name in before} == before, (kind, number)
        assert_is_whole(run, folder)
    assert_met(len(tried), late)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(PARTS))
def test_a_disk_that_is_full_while_images_are_prepared_is_waited_for_or_named_and_changes_no_byte(
    disturbed: Callable[[str, str], Run], faults: FileFaults, part: int, tmp_path: Path
):
    run, late = disturbed("few", "sqlite"), 0
    made = preparing(counted(run, faults, tmp_path))
    tried = spread([number for number, one in enumerate(made, 1) if one.needs_room], FULL_AT)[part::PARTS]
    for number in tried:
        folder = tmp_path / f"run-{number}"
        environment = faults.set(folder, Fault.FULL, Kind.COORDINATOR, number)
        first = run.start(folder, cores=1, STEP_SECONDS="0", **environment)
        code, met = first.wait(), faults.met()
        assert met.by or met.made[Kind.COORDINATOR] < number, number
        late += not met.by
        if code:
            assert code == 2, (number, first.err.read_text())
            [line] = first.err.read_text().splitlines()
            assert "No space left on device" in line, number
            again = run.start(folder, cores=1, STEP_SECONDS="0")
            assert again.wait() == 0, (number, again.err.read_text())
        assert_is_whole(run, folder)
    assert_met(len(tried), late)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", Kind)
def test_a_disk_that_is_full_again_and_again_is_waited_for_and_changes_no_byte(
    disturbed: Callable[[str, str], Run], faults: FileFaults, kind: Kind, tmp_path: Path
):
    run = disturbed("few", "sqlite")
    made = counted(run, faults, tmp_path)
    before = len(preparing(made)) if kind == Kind.COORDINATOR else 0

    def refused(name: str, fault: Fault, first: int, **which: Any) -> list[What]:
        """What found no room in a run that came to its end all the same."""
        folder = tmp_path / f"{kind.name}-{name}"
        environment = faults.set(folder, fault, kind, before + first, **which)
        waiting = run.start(folder, cores=1, STEP_SECONDS="0", **environment)
        assert waiting.wait() == 0, (name, waiting.err.read_text())
        assert_is_whole(run, folder)
        return [one.what for one in faults.operations() if one.refused]

    every, found = EVERY[kind], list[What]()
    for first in range(1, every + 1) if FULL else [every]:
        found += refused(f"again-{first}", Fault.FULL, first, every=every)
    wanted = {one.what for one in ours(made, kind)[before:] if one.needs_room}
    missed = wanted - set(found)
    for turn in range(TURNS):
        met = refused(f"each-{turn}", Fault.FULL_ONCE, 1, named=missed) if missed else []
        found, missed = found + met, missed - set(met)
    print(f"{len(found)} operations refused; never refused: {sorted(missed)}")
    assert not missed if FULL else missed < wanted


def assert_met(tried: int, late: int) -> None:
    """A run may make a few operations fewer than the counted one, so that a fault in its last ones is not met."""
    print(f"{tried - late} of {tried} faults met")
    assert late <= tried // 50
