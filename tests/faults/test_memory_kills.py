"""Workers that the kernel ends for want of memory, because another program of their control group takes it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
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
