"""SIGTERM, SIGUSR1 and Ctrl-C at any moment: the exit code, the line that goes on, no process left, the same bytes."""

import json
import os
import random
import shlex
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from judging import FULL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="sees by /proc when a program listens"),
]

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}
STOPS = [
    pytest.param(list(CODES), 3, 3, id="each signal"),
    pytest.param(
        [signal.SIGINT] * 3,
        100,
        9,  # long enough that most meet it at work
        id="a hundred times Ctrl-C",
        marks=pytest.mark.skipif(not FULL, reason="takes half an hour; set SCALESEARCH_FAULTS=full"),
    ),
]
WITHIN = 5 if FULL else 60
"""Time for an end by Ctrl-C [s]; what is promised holds where nothing else uses the cores, as in `make faults`."""


def listens(pid: int) -> bool:
    """Whether a process handles SIGTERM."""
    status = Path(f"/proc/{pid}/status").read_text()
    [mask] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


def listening(program: Callable[..., Any], *command: str) -> Any:
    """The program, as soon as it hears signals."""
    one = program(*command)
    while not listens(one.process.pid):
        time.sleep(0.005)
    return one


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


class Stop(NamedTuple):
    """How a program ended behind a signal."""

    code: int
    """0 if it was done when the signal was sent."""
    seconds: float


def stopped(one: Any, number: int, command: list[str], *, whole_group: bool) -> Stop:
    """Send a signal and hold the program to what it promises; the last word of its command is its run folder."""
    begun, sent = time.monotonic(), time.time_ns()
    (os.killpg if whole_group else os.kill)(one.process.pid, number)
    code = one.wait(120)
    took = time.monotonic() - begun
    print(f"{signal.Signals(number).name}: exit {code} in {took:.2f} s")
    assert number != signal.SIGINT or took < WITHIN
    assert group_is_gone(one.process.pid)
    printed = one.err.read_text()
    assert "Traceback" not in printed
    assert code in (0, CODES[signal.Signals(number)]), printed
    if code:
        [line] = printed.splitlines()
        assert shlex.split(line[line.index("scalesearch run") :]) == ["scalesearch", *command]
    else:  # all work was done: its report, the last file of every run, was written
        assert (Path(command[-1]) / "report.html").stat().st_mtime_ns <= sent, "it went on behind the signal"
    return Stop(code, took)


@pytest.mark.parametrize(("signals", "times", "epochs"), STOPS)
def test_a_run_stopped_again_and_again_at_random_comes_to_the_bytes_of_an_undisturbed_one(
    program: Callable[..., Any],
    tiny_options: tuple[str, ...],
    tmp_path: Path,
    signals: list[int],
    times: int,
    epochs: int,
):
    options = ["run", *tiny_options, "--epochs", str(epochs)]
    assert program(*options, "--out", tmp_path / "undisturbed").wait() == 0
    chance, tried, met = random.Random(times), 0, list[float]()
    while len(met) < times:
        assert tried <= 3 * times + 6, f"{len(met)} of {tried} met it at work"
        folder = tmp_path / f"run-{tried}"
        command = [*options, "--out", str(folder)]
        for number in chance.sample(signals, 3):
            one = listening(program, *command)
            time.sleep(chance.random() * 8)
            # Ctrl-C and Slurm reach the whole group, a spot machine's notice may reach the program alone
            stop = stopped(one, number, command, whole_group=number == signal.SIGINT or chance.random() < 0.5)
            tried += 1
            met += [stop.seconds] if stop.code else []
        last = program(*command)
        assert last.wait() == 0, last.err.read_text()
        for name in ("ranking.json", "trials.csv", "family/manifest.json"):
            assert (folder / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes(), name
        assert list((folder / "checkpoints").iterdir()) == []
    print(f"{len(met)} of {tried} met it at work: median {statistics.median(met):.2f} s, longest {max(met):.2f} s")


def test_ctrl_c_while_the_program_loads_its_libraries_ends_it_as_anywhere(
    program: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    # torch's C++ calls Python while it loads, and aborts the process where Python raises
    command = ["run", *tiny_options, "--out", str(tmp_path / "run")]
    one = listening(program, *command)
    begun = time.monotonic()
    one.wait_for("8 trials in all")
    loading = time.monotonic() - begun
    assert stopped(one, signal.SIGINT, command, whole_group=True).code == 130
    times = 60 if FULL else 6
    for turn in range(times):
        one = listening(program, *command)
        time.sleep(loading * turn / times)
        assert stopped(one, signal.SIGINT, command, whole_group=True).code == 130


LOSING = {
    "a destructor": """
class Held:
    def __del__(self):
        hold()
def lose():
    Held()
""",
    "a library that catches everything": """
def lose():
    try:
        hold()
    except BaseException:
        pass
""",
}


@pytest.mark.parametrize("where", LOSING)
@pytest.mark.parametrize("number", list(CODES))
def test_a_signal_that_a_library_swallows_ends_the_program_all_the_same(
    program: Callable[..., Any], where: str, number: signal.Signals, tiny_options: tuple[str, ...], tmp_path: Path
):
    code = f"""
import time
from scalesearch import cli
def hold():
    print("deaf", flush=True)
    time.sleep(30)
{LOSING[where]}
go_on = cli._run
def run(arguments):
    lose()
    return go_on(arguments)
cli._run = run
cli.main()
"""
    command = ["run", *tiny_options, "--out", str(tmp_path / "run")]
    one = program(*command, entry=("-c", code))
    one.wait_for("deaf")
    assert stopped(one, number, command, whole_group=True).code == CODES[number]
    assert "Traceback" not in one.err.read_text()


@pytest.mark.parametrize("arguments", [["schema"], ["scale", "--base", "nothing"]], ids=["done", "refused"])
@pytest.mark.parametrize("held", ["atexit.register(hold)", "sys.held = type('Held', (), {'__del__': hold})()"])
@pytest.mark.parametrize("number", list(CODES))
def test_a_signal_while_python_winds_down_changes_nothing_that_the_program_came_to(
    program: Callable[..., Any], held: str, arguments: list[str], number: signal.Signals
):
    code = f"""
import atexit, os, sys, time
def hold(*_, write=os.write, wait=time.sleep):
    write(1, b"winding down")
    wait(1)
    write(1, b", done")
{held}
from scalesearch.cli import main
main()
"""
    undisturbed = program(*arguments)
    one = program(*arguments, entry=("-c", code))
    one.wait_for("winding down")
    os.killpg(one.process.pid, number)
    assert one.wait(60) == undisturbed.wait() == (0 if arguments == ["schema"] else 2)
    assert one.out.read_text().partition("winding down")[0] == undisturbed.out.read_text()
    assert one.err.read_text() == undisturbed.err.read_text()


def in_training(folder: Path) -> set[tuple[str, int]]:
    """Trials that have told of an epoch."""
    journal = folder / "journal.jsonl"
    rows = map(json.loads, journal.read_bytes().split(b"\n")[:-1] if journal.exists() else [])
    return {(row["proxy"], row["seed"]) for row in rows if row["kind"] == "epoch"}


@pytest.mark.parametrize("whole_group", [True, False], ids=["group", "coordinator"])
def test_sigterm_in_the_middle_of_training_leaves_a_checkpoint_of_every_running_trial(
    program: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path, whole_group: bool
):
    folder = tmp_path / "run"
    command = ["run", *tiny_options, "--epochs", "200", "--out", str(folder)]  # long enough not to end before
    one = program(*command)
    one.wait_for("8 trials in all")
    end = time.monotonic() + 120
    while len(in_training(folder)) < 2:
        assert time.monotonic() < end, one.err.read_text()
        time.sleep(0.05)
    begun = in_training(folder)
    assert stopped(one, signal.SIGTERM, command, whole_group=whole_group).code == 143
    kept = {path.name.partition("-e200")[0] for path in (folder / "checkpoints").iterdir()}
    assert kept == {f"{proxy}-s{seed}" for proxy, seed in begun}
    told = one.out.read_text()
    assert {line.partition("-e200: stopped behind step ")[0] for line in told.splitlines() if "-e200: " in line} == kept
    if not whole_group:  # workers that hear the signal themselves may have stopped before the coordinator asks them to
        assert "stopping: each running trial writes a checkpoint behind its next step" in told


def test_a_second_ctrl_c_kills_at_once_and_the_folder_goes_on(
    program: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    command = ["run", *tiny_options, "--out", str(tmp_path / "run")]
    one = program(*command)
    one.wait_for("8 trials in all")
    one.interrupt()
    one.interrupt()
    assert one.wait(60) in (130, -signal.SIGINT)
    assert group_is_gone(one.process.pid)
    assert "Traceback" not in one.err.read_text()
    again = program(*command)
    again.wait_for("1/8 ")
    assert stopped(again, signal.SIGUSR1, command, whole_group=False).code == 143
