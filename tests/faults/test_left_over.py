"""What a killed run leaves lying, torn and spoilt: the log of its study, checkpoints, logs and curves.

SCALESEARCH_FAULTS=full tries more than a thousand offsets; without it a spread of them.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import Program
from disturbing import SEARCHES, STANDING_IN, TINY, Run, assert_is_whole, contents, ends, gone
from following import expected, states
from judging import FULL
from spoiling import spoiled, torn

from scalesearch.repair import repair

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds workers by /proc")]
pytest.importorskip("tensorboard")

STUDY = ("study.db", "study.db-wal", "study.db-shm")
FRAME = 24 + 4096
"""Of SQLite's log: a header and a page [B]."""


class Left(NamedTuple):
    """What is left of a run whose coordinator was killed, and how to have it again."""

    run: Run
    folder: Path
    saved: Path

    def again(self) -> None:
        """As it was at the kill."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.saved, self.folder)


@pytest.fixture(scope="module")
def left(tiny_npz: Path, begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Left:
    place, started = tmp_path_factory.mktemp("left"), list[Any]()

    def start(folder: Path, **environment: str) -> Program:
        options = ["--data", tiny_npz, *TINY.split(), *SEARCHES["grid"].split(), "--log", "tensorboard"]
        where = place / f"program-{len(started)}"
        started.append(Program("run", *options, "--out", folder, place=where, entry=STANDING_IN, **environment))
        return started[-1]

    plain = start(place / "plain", STEP_SECONDS="0")
    assert plain.wait() == 0, plain.err.read_text()
    folder, log = place / "run", place / "run" / "study.db-wal"
    going, end = start(folder, STUDY_REST="0.05", STEP_SECONDS="0.1"), time.monotonic() + 120

    def leaves_much() -> bool:
        has_log = log.exists() and log.stat().st_size >= 3 * FRAME
        return has_log and len(ends(folder)) >= 3 and len(kept(folder)) >= 3

    while True:
        assert going.process.poll() is None, going.err.read_text()
        assert time.monotonic() < end
        if leaves_much():
            os.kill(going.process.pid, signal.SIGSTOP)  # none but the coordinator removes a file
            if leaves_much():
                break
            os.kill(going.process.pid, signal.SIGCONT)
        time.sleep(0.01)
    workers = going.workers()
    going.process.kill()
    going.wait()
    gone(workers)
    shutil.copytree(folder, place / "saved")
    return Left(Run(start, contents(place / "plain"), None, begun), folder, place / "saved")


def kept(folder: Path) -> list[Path]:
    """Files of checkpoints."""
    return sorted((folder / "checkpoints").glob("*.safetensors*"))


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", STUDY[1:])
def test_the_log_of_a_killed_study_torn_anywhere_costs_no_trial_of_it(left: Left, name: str):
    left.again()
    content = (left.saved / name).read_bytes()
    for damaged in beginnings(content) if name == "study.db-wal" else torn(content, few=4, many=100):
        for one in left.folder.glob("study*"):
            one.unlink()
        for other in STUDY:
            shutil.copy(left.saved / other, left.folder)
        (left.folder / name).write_bytes(damaged)
        told = repair(left.folder)
        assert told.trials == len(states(left.folder))
        assert [seen for seen in states(left.folder) if seen[1] != "WAITING"] == expected(left.folder)


def beginnings(content: bytes) -> Iterator[bytes]:
    """Torn in the headers of the log and of its first frame, and in the rest."""
    for end in range(0, 32 + 24, 1 if FULL else 11):
        yield content[:end]
        yield content[:end] + bytes(len(content) - end)
    yield from torn(content, few=8, many=600)


SPOILT: dict[str, Callable[[Left], list[Path]]] = {
    "checkpoints": lambda left: kept(left.folder),
    "curves": lambda left: [path for path in (left.folder / "tensorboard").rglob("*") if path.is_file()],
    "study": lambda left: [left.folder / name for name in STUDY],
}


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("what", SPOILT)
def test_what_a_kill_leaves_may_be_spoilt_in_its_bytes_and_costs_no_byte_of_the_answer(left: Left, what: str):
    for seed in range(25 if FULL else 1):
        left.again()
        files = SPOILT[what](left)
        assert len(files) >= 3
        for number, path in enumerate(files):
            path.write_bytes(spoiled(path.read_bytes(), 1000 * seed + number))
        before = ends(left.folder)
        last = left.run.start(left.folder, STEP_SECONDS="0")
        assert last.wait() == 0, (seed, last.err.read_text())
        after = ends(left.folder)
        assert {name: after[name] for name in before} == before
        repair(left.folder)  # of a spoilt study the run says so, and leaves it
        assert_is_whole(left.run, left.folder)
        assert list((left.folder / "checkpoints").iterdir()) == []


def test_logs_of_an_earlier_failure_that_are_torn_change_nothing(left: Left):
    left.again()
    logs = [left.folder / "logs" / f"{path.name.partition('.safetensors')[0]}.log" for path in kept(left.folder)]
    for log in logs:
        log.write_bytes(b"Traceback (most recent call last):\n  File \xc3" + bytes(300))
    last = left.run.start(left.folder, STEP_SECONDS="0")
    assert last.wait() == 0, last.err.read_text()
    assert_is_whole(left.run, left.folder)
