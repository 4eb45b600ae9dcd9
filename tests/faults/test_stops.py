"""SIGTERM, SIGUSR1 and Ctrl-C at any moment: the exit code, the line that goes on, no process left, the same bytes."""

import os
import random
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="sees by /proc when a program listens"),
]

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}
ROUNDS = 34 if os.environ.get("SCALESEARCH_FAULTS") == "full" else 1
"""Of a stop by each signal."""


def listens(pid: int) -> bool:
    """Whether a process handles SIGTERM."""
    status = Path(f"/proc/{pid}/status").read_text()
    [mask] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


def group_is_gone(group: int, within: float = 60.0) -> bool:
    """Whether no process of a group is left in time."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def stopped(one: Any, number: int, command: list[str], *, whole_group: bool) -> int:
    """Send a signal and hold the program to what it promises; returns its exit code."""
    (os.killpg if whole_group else os.kill)(one.process.pid, number)
    code = one.wait(120)
    assert group_is_gone(one.process.pid)
    printed = one.err.read_text()
    assert "Traceback" not in printed
    assert code in (0, CODES[signal.Signals(number)]), printed
    if code:
        [line] = printed.splitlines()
        assert shlex.split(line[line.index("scalesearch run") :]) == ["scalesearch", *command]
    return code


def test_a_run_stopped_again_and_again_at_random_comes_to_the_bytes_of_an_undisturbed_one(
    program: Callable[..., Any], finished: tuple[Path, Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    chance = random.Random(ROUNDS)
    for turn in range(ROUNDS):
        folder = tmp_path / f"run-{turn}"
        command = ["run", *tiny_options, "--out", str(folder)]
        for number in chance.sample(list(CODES), 3):
            one = program(*command)
            while not listens(one.process.pid):
                time.sleep(0.005)
            time.sleep(chance.random() * 8)
            # Ctrl-C and Slurm reach the whole group, a spot machine's notice may reach the program alone
            stopped(one, number, command, whole_group=number == signal.SIGINT or chance.random() < 0.5)
        last = program(*command)
        assert last.wait() == 0, last.err.read_text()
        for name in ("ranking.json", "trials.csv", "family/manifest.json"):
            assert (folder / name).read_bytes() == (finished[0] / name).read_bytes(), name
        assert list((folder / "checkpoints").iterdir()) == []


def test_sigterm_in_the_middle_of_training_is_told_and_ends_with_143(
    program: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    folder = tmp_path / "run"
    command = ["run", *tiny_options, "--epochs", "200", "--out", str(folder)]  # long enough not to end before
    one = program(*command)
    one.wait_for("at most 8 trials in all")
    time.sleep(5)  # whatever it is at: what is not begun yet leaves nothing
    assert stopped(one, signal.SIGTERM, command, whole_group=True) == 143
    assert "stopping: each running trial writes a checkpoint behind its next step" in one.out.read_text()


def test_a_second_ctrl_c_kills_at_once_and_the_folder_goes_on(
    program: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    command = ["run", *tiny_options, "--out", str(tmp_path / "run")]
    one = program(*command)
    one.wait_for("at most 8 trials in all")
    one.interrupt()
    one.interrupt()
    assert one.wait(60) in (130, -signal.SIGINT)
    assert group_is_gone(one.process.pid)
    assert "Traceback" not in one.err.read_text()
    again = program(*command)
    again.wait_for("1/8 ")
    assert stopped(again, signal.SIGUSR1, command, whole_group=False) == 143
