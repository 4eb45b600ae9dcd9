"""Want of memory: workers that the kernel ends, because another program of their control group takes it; full GPUs."""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from disturbing import STANDING_IN, TINY
from judging import assert_nothing_ran_again

pytestmark = pytest.mark.slow

GROUPS = Path("/sys/fs/cgroup")
ROOM = 64 * 2**20
"""What the group may take beyond what it has when its memory becomes scarce [bytes]."""
HUNGRY = f"input(); bytearray(b'x') * {3 * ROOM}"


class Group:
    """A control group of the first version or the second."""

    def __init__(self) -> None:
        self.is_first = (GROUPS / "memory").is_dir()
        self.place = (GROUPS / "memory" if self.is_first else GROUPS) / f"scalesearch-{os.getpid()}"
        self.place.mkdir()
        limit, used = ("limit_in_bytes", "usage_in_bytes") if self.is_first else ("max", "current")
        self.limit, self.used = self.place / f"memory.{limit}", self.place / f"memory.{used}"
        assert self.limit.exists()

    def add(self, pid: int) -> None:
        (self.place / "cgroup.procs").write_text(str(pid))

    def hunger(self) -> None:
        """Have a program take more than there is left, until the kernel has ended another one for it."""
        self.limit.write_text(str(int(self.used.read_text()) + ROOM))
        with subprocess.Popen([sys.executable, "-c", HUNGRY], stdin=subprocess.PIPE) as hungry:
            self.add(hungry.pid)
            hungry.communicate(b"\n")
        self.limit.write_text("-1" if self.is_first else "max")

    def close(self) -> None:
        end = time.monotonic() + 60
        while (self.place / "cgroup.procs").read_text() and time.monotonic() < end:
            time.sleep(0.1)
        self.place.rmdir()


@pytest.fixture
def group() -> Iterator[Group]:
    try:
        made = Group()
    except (OSError, AssertionError):
        pytest.skip("control groups of memory can be made by root alone, where the system lends them")
    yield made
    made.close()


def test_a_worker_ended_for_want_of_memory_is_named_and_costs_no_byte(
    group: Group,
    begun: Path,
    program: Callable[..., Any],
    finished: tuple[Path, Any],
    tiny_options: tuple[str, ...],
    tmp_path: Path,
):
    folder = tmp_path / "run"
    run = program("run", *tiny_options, "--out", folder)
    group.add(run.process.pid)
    run.wait_for("1/8 ")
    for worker in run.workers():
        Path(f"/proc/{worker}/oom_score_adj").write_text("1000")
    group.hunger()
    assert run.wait() == 0, run.err.read_text()
    assert "worker killed by the kernel: out of memory (host)" in run.out.read_text()
    assert_nothing_ran_again(folder, begun)
    for name in ("ranking.json", "trials.csv"):
        assert (folder / name).read_bytes() == (finished[0] / name).read_bytes()


NO_ROOM = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
MEND = "free memory of the GPU, or take smaller proxies (--proxy-resolution), and run into a new folder"


def test_a_trial_that_finds_no_memory_on_its_gpu_says_so_is_tried_again_and_then_given_up_beside_the_others(
    program: Callable[..., Any], tiny_npz: Path, tmp_path: Path
):
    options = f"{TINY.replace('--quiet', '')} --policy grid --candidates 2 --seeds 2 --epochs 2".split()
    folder = tmp_path / "run"
    run = program("run", "--data", tiny_npz, *options, "--out", folder, entry=STANDING_IN, GPU_FULL_FOR="1")
    assert run.wait() == 3, run.err.read_text()
    with (folder / "trials.csv").open(newline="") as file:
        trials = list(csv.DictReader(file))
    assert len(trials) == 6
    for trial in trials:
        failed = trial["seed"] == "1"
        assert (trial["state"], trial["reason"]) == (("failed", f"{NO_ROOM}; {MEND}") if failed else ("complete", ""))
    printed = run.out.read_text()
    assert printed.count(f"{NO_ROOM}; {MEND}; tried again") == 3 * 2
    assert printed.count(f"{NO_ROOM}; {MEND}; given up") == 3
    assert len([log for log in (folder / "logs").iterdir() if "OutOfMemoryError" in log.read_text()]) == 3
