"""Trials on a real Ray cluster of several nodes on this host: the bytes of a local run, whatever nodes are lost."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from calling import Call
from conftest import RECORDING, children
from judging import FULL, assert_nothing_ran_again

from scalesearch.search import ATTEMPTS

pytest.importorskip("ray", reason="needs scalesearch[ray]")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds workers by /proc"),
]

RAYLETS = Path(__file__).parents[1] / "raylets.py"
PACKAGE = Path(__file__).parents[2]


class Raylets:
    """A cluster whose nodes are processes; each is killed as a machine that loses its power."""

    def __init__(self, **environment: str) -> None:
        paths = os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, RAYLETS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # as many GPUs as a node is told to have
            env={**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "0", **environment},
            start_new_session=True,
        )
        self.nodes: list[int] = []
        self.address = self._told()

    def _told(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline().strip()
        assert line, "the cluster ended"
        return line

    def add(self, *places: Path, gpus: int = 0) -> None:
        assert self.process.stdin
        self.process.stdin.write(" ".join([f"add 1 {gpus}", *map(str, places)]) + "\n")
        self.process.stdin.flush()
        self.nodes.append(int(self._told()))

    def kill(self, index: int) -> None:
        raylet = self.nodes.pop(index)
        for pid in [raylet, *children(raylet)]:
            os.kill(pid, signal.SIGKILL)

    def clear(self) -> None:
        """Kill every node."""
        while self.nodes:
            self.kill(0)

    def trainers(self) -> list[int]:
        """Process ids of those who train."""
        workers = [worker for raylet in self.nodes for worker in children(raylet)]
        return [pid for pid in workers if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::RayTrainer")]

    def freeze(self) -> None:
        """Stop all that trains, so that no run ends by itself."""
        for pid in [worker for raylet in self.nodes for worker in children(raylet)]:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it train on."""
        for pid in [worker for raylet in self.nodes for worker in children(raylet)]:
            os.kill(pid, signal.SIGCONT)

    def lose_head(self) -> None:
        [head] = [pid for pid in children(self.process.pid) if "gcs_server" in os.readlink(f"/proc/{pid}/exe")]
        os.kill(head, signal.SIGKILL)

    def end(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture(scope="module")
def cluster(begun: Path) -> Iterator[Raylets]:
    """A cluster, without any node yet that trains. Its nodes inherit where to note what they begin."""
    raylets = Raylets()
    yield raylets
    raylets.end()


@pytest.fixture(autouse=True)
def _loopback_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the programs take themselves for a node of a cluster that listens there."""
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


@pytest.fixture
def nodes(cluster: Raylets) -> Raylets:
    """With two nodes of one CPU each."""
    while len(cluster.nodes) < 2:
        cluster.add()
    return cluster


def on(raylets: Raylets) -> tuple[str, ...]:
    return ("--engine", "ray", "--address", raylets.address)


@pytest.fixture
def emptied(
    cluster: Raylets, program: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path
) -> Iterator[Callable[[], Any]]:
    """Starts a run of the cluster, which has no node before and behind the test."""
    cluster.clear()
    yield lambda: program("run", *tiny_options, "--out", tmp_path / "run", *on(cluster))
    cluster.clear()


def same_answer(folder: Path, other: Path) -> bool:
    return all((folder / name).read_bytes() == (other / name).read_bytes() for name in ("ranking.json", "trials.csv"))


def test_a_stop_a_node_killed_and_one_that_joins_change_no_byte_and_no_trial_runs_twice(
    nodes: Raylets,
    begun: Path,
    program: Callable[..., Any],
    finished: tuple[Path, Any],
    tiny_options: tuple[str, ...],
    tmp_path: Path,
):
    folder, store = tmp_path / "run", tmp_path / "store"
    command = ("run", *tiny_options, "--out", folder, *on(nodes), "--checkpoints", store.as_uri())
    first = program(*command)
    first.wait_for("1/8 ", 300)
    first.process.send_signal(signal.SIGTERM)
    assert first.wait(60) == 143, first.err.read_text()
    done = first.out.read_text().count("/8 ")
    [place] = store.iterdir()
    kept = {path.name: path.read_bytes() for path in place.iterdir()}
    assert kept
    others = shutil.copytree(place, store / "others")  # of a run of the same trials
    assert list((folder / "checkpoints").iterdir()) == []
    second = program(*command)
    second.wait_for(f"{done + 2}/8 ", 300)
    nodes.kill(0)
    nodes.add()
    assert second.wait() == 0, second.err.read_text()
    assert "is lost; it goes on later" in second.out.read_text()  # Ray's words of it are as we know them
    assert "its process died" not in second.out.read_text()
    assert same_answer(folder, finished[0])
    assert_nothing_ran_again(folder, begun)
    assert "Traceback" not in first.out.read_text() + second.out.read_text() + second.err.read_text()
    assert list(store.iterdir()) == [others]
    assert {path.name: path.read_bytes() for path in others.iterdir()} == kept


def test_a_run_in_a_relative_folder_keeps_its_checkpoints_there_though_nodes_were_started_elsewhere(
    nodes: Raylets,
    begun: Path,
    program: Callable[..., Any],
    finished: tuple[Path, Any],
    tiny_options: tuple[str, ...],
    tmp_path: Path,
):
    first = program("run", *tiny_options, "--out", "run", *on(nodes))
    folder = tmp_path / "program-0" / "run"
    first.wait_for("1/8 ", 300)
    first.process.send_signal(signal.SIGTERM)
    assert first.wait(60) == 143, first.err.read_text()
    assert list((folder / "checkpoints").iterdir())
    second = program("run", *tiny_options, "--out", "../program-0/run", *on(nodes))
    assert second.wait() == 0, second.err.read_text()
    assert same_answer(folder, finished[0])
    for run in (first, second):
        assert str(tmp_path) not in run.out.read_text() + run.err.read_text()  # paths are shown as they were typed


RESTORING = """
import time
from pathlib import Path
from scalesearch.engine import node, worker

answers, place = node.answers, Path({place!r})

def noted(*given):
    from scalesearch.engine import trial

    class Keeper(trial.Keeper):
        def restored(self):
            found = super().restored()
            with (place / "restored").open("a") as file:
                file.write(f"{{self._training.step}}\\n")
            return found

    kept, trial.Keeper = trial.Keeper, Keeper
    for answer in answers(*given):
        if not (place / "killed").exists():
            time.sleep(1)
        yield answer
    trial.Keeper = kept

worker.answers = node.answers = noted  # Ray brings the trainer's methods with the names that they were given here
"""
"""Has a trainer note the step that it goes on from, and take long over each step until one was killed."""


def test_a_trainer_killed_by_sigkill_is_named_and_its_trial_goes_on_from_its_checkpoint(
    cluster: Raylets,
    begun: Path,
    program: Callable[..., Any],
    finished: tuple[Path, Any],
    tiny_options: tuple[str, ...],
    tmp_path: Path,
):
    place, folder = tmp_path / "place", tmp_path / "run"
    cluster.clear()
    place.mkdir()
    change(place, RESTORING.format(place=str(place)))
    cluster.add(place)
    run = program("run", *tiny_options, "--out", folder, *on(cluster))
    run.wait_for("8 trials in all", 300)
    while not list(folder.glob("checkpoints/*.safetensors")):
        assert run.process.poll() is None, run.err.read_text()
        time.sleep(0.1)
    [trainer] = cluster.trainers()
    (place / "killed").touch()
    os.kill(trainer, signal.SIGKILL)
    run.wait_for("ended: its process died; tried again")
    assert run.wait() == 0, run.err.read_text()
    steps = [int(step) for step in (place / "restored").read_text().split()]
    assert len(steps) == 8 + 1
    assert len([step for step in steps if step > 0]) == 1
    assert same_answer(folder, finished[0])
    assert_nothing_ran_again(folder, begun)
    cluster.clear()


def test_of_a_coordinator_killed_by_sigkill_no_trainer_is_left_and_the_same_command_goes_on(
    nodes: Raylets,
    begun: Path,
    program: Callable[..., Any],
    finished: tuple[Path, Any],
    tiny_options: tuple[str, ...],
    tmp_path: Path,
):
    command = ("run", *tiny_options, "--out", tmp_path / "run", *on(nodes))
    first = program(*command)
    first.wait_for("2/8 ", 300)
    left = nodes.trainers()
    assert left
    first.process.kill()
    assert first.wait() == -signal.SIGKILL
    second = program(*command)
    assert second.wait() == 0, second.err.read_text()
    assert not set(left).intersection(nodes.trainers())
    assert same_answer(tmp_path / "run", finished[0])
    assert_nothing_ran_again(tmp_path / "run", begun)


def test_of_a_run_whose_head_is_lost_all_is_kept_and_ctrl_c_is_heard(
    begun: Path,
    program: Callable[..., Any],
    finished: tuple[Path, Any],
    tiny_options: tuple[str, ...],
    tmp_path: Path,
):
    commands = [("run", *tiny_options, "--out", tmp_path / name) for name in ("left", "interrupted")]
    clusters = [Raylets() for _ in commands]
    try:
        for raylets in clusters:
            raylets.add()
        left, interrupted = [program(*command, *on(own)) for command, own in zip(commands, clusters, strict=True)]
        for run, raylets in zip((left, interrupted), clusters, strict=True):
            run.wait_for("1/8 ", 120)
            raylets.freeze()
            raylets.lose_head()
        interrupted.interrupt()
        assert interrupted.wait(60) == 130, interrupted.err.read_text()
        assert left.wait(120) == 1, left.err.read_text()
    finally:
        for raylets in clusters:
            raylets.end()
    [line] = left.err.read_text().splitlines()
    assert line.startswith(f"scalesearch: the head of the Ray cluster at {clusters[0].address} is gone; ")
    assert "to go on: " in line
    again = program(*commands[0])
    assert again.wait() == 0, again.err.read_text()
    assert same_answer(tmp_path / "left", finished[0])
    assert_nothing_ran_again(tmp_path / "left", begun)


JOBS = """
from pathlib import Path
from scalesearch.engine.connecting import connected
with connected(None):
    from ray._private.state import jobs
    from ray._private.worker import global_worker
    session = Path(global_worker.node.get_session_dir_path())
    print([job["Entrypoint"] for job in jobs()])
    print([path for path in session.rglob("*") if path.is_file() and b"hunter22" in path.read_bytes()])
"""


def test_a_password_on_the_command_line_is_in_no_table_of_jobs_and_no_log_of_ray(program: Callable[..., Any]):
    options = ("--storage", "postgresql://me:hunter22@host/db", "--checkpoints=ftp://me:hunter22@host/folder")
    run = program(*options, entry=("-c", JOBS))
    assert run.wait() == 0, run.err.read_text()
    jobs, files = run.out.read_text().splitlines()
    assert "--storage postgresql://me@host/db --checkpoints=ftp://me@host/folder" in jobs
    assert files == "[]"


def test_addresses_without_a_cluster_and_shares_that_are_none_are_one_line_each(call: Call, tiny_npz: Path):
    for options, fault in {
        ("--address", "127.0.0.1:9"): "nothing answers at --address 127.0.0.1:9",
        ("--gpus-per-trial", "1.5"): "--gpus-per-trial 1.5",
        ("--cpus-per-trial", "0"): "--cpus-per-trial 0",
    }.items():
        told = call("run", "--data", tiny_npz, "--engine", "ray", *options)
        assert told.code == 2
        assert fault in told.err
        assert len(told.err.splitlines()) == 1


TASK = """
from scalesearch.engine.connecting import connected
with connected(None):
    import ray
    print(ray.get(ray.remote(lambda: "done").remote()))
"""
WITHOUT_TMP = """
import os, sys

is_open = os.access
os.access = lambda path, mode: path != "/tmp" and is_open(path, mode)
from scalesearch.cli import main

main(sys.argv[1:])
"""
"""The program where nothing may be written to /tmp."""


def with_a_long_name(folder: Path) -> Path:
    """A folder whose path is longer than that of a socket may be."""
    long = folder / ("x" * 100)
    long.mkdir()
    return long


def test_a_ray_of_this_machine_starts_wherever_temporary_files_lie(program: Callable[..., Any], tmp_path: Path):
    run = program(entry=("-c", TASK), TMPDIR=str(with_a_long_name(tmp_path)))
    assert run.wait() == 0, run.err.read_text()
    assert run.out.read_text() == "done\n"


def test_a_place_too_long_for_sockets_is_one_line_and_leaves_no_run_folder(
    program: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    options = ("run", *tiny_options, "--out", tmp_path / "run", "--engine", "ray")
    run = program(*options, entry=("-c", WITHOUT_TMP), TMPDIR=str(with_a_long_name(tmp_path)))
    assert run.wait() == 2, run.err.read_text()
    [line] = run.err.read_text().splitlines()
    assert line.startswith("scalesearch: a local Ray cluster cannot be used: ")
    assert "see that /tmp can be written" in line
    assert not (tmp_path / "run").exists()


def test_a_cluster_whose_token_is_not_known_here_is_one_line_that_tells_of_it(
    program: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    guarded = Raylets(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="hunter22" * 4)
    try:
        lacking = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token"}
        run = program("run", *tiny_options, "--out", tmp_path / "run", *on(guarded), **lacking)
        assert run.wait() == 2, run.err.read_text()
    finally:
        guarded.end()
    [line] = run.err.read_text().splitlines()
    assert line.startswith(f"scalesearch: the Ray cluster at {guarded.address} asks for a token, ")
    assert "; set RAY_AUTH_MODE=token, with its token in RAY_AUTH_TOKEN" in line
    assert not (tmp_path / "run").exists()


def test_a_machine_without_room_for_a_trial_is_one_line(
    program: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    options = ("--engine", "ray", "--gpus-per-trial", "1")
    run = program("run", *tiny_options, "--out", tmp_path / "run", *options)
    assert run.wait() == 2, run.err.read_text()
    [line] = run.err.read_text().splitlines()
    assert "no node of the Ray cluster has 1 CPU and 1 GPU free" in line


def with_another_version(place: Path) -> None:
    described = place / "scalesearch-0.0.9.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: scalesearch\nVersion: 0.0.9\n")


BROKEN_GPU = """
from scalesearch.engine import node

def place(self):
    raise RuntimeError("CUDA error: no device")

node.Trainer.place = place
"""


def change(place: Path, code: str) -> None:
    """Have the processes of a node with this place run code when they start, behind what has them note their works."""
    (place / "sitecustomize.py").write_text((RECORDING / "sitecustomize.py").read_text() + code)


def with_a_broken_gpu(place: Path) -> None:
    place.mkdir()
    change(place, BROKEN_GPU)


WRONG: dict[Callable[[Path], None], str] = {
    with_another_version: "has other versions: scalesearch 0.0.9 there",
    with_a_broken_gpu: "cannot train: RuntimeError: CUDA error: no device",
}
"""Nodes that cannot train, and what is said of them."""
wrong_nodes = pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)


@wrong_nodes
def test_a_cluster_without_any_node_that_can_train_is_refused_by_name(
    wrong: Callable[[Path], None], cluster: Raylets, emptied: Callable[[], Any], tmp_path: Path
):
    wrong(tmp_path / "place")
    cluster.add(tmp_path / "place")
    run = emptied()
    assert run.wait() == 2, run.err.read_text()
    [line] = run.err.read_text().splitlines()
    assert WRONG[wrong] in line


def test_a_run_that_waits_for_its_first_node_says_so_and_takes_the_one_that_joins(
    cluster: Raylets, emptied: Callable[[], Any], finished: tuple[Path, Any], tmp_path: Path
):
    run = emptied()
    run.wait_for("no node of the Ray cluster has 1 CPU free; waiting for one", 120)
    cluster.add()
    assert run.wait() == 0, run.err.read_text()
    assert run.out.read_text().count("waiting for one") == 1
    assert same_answer(tmp_path / "run", finished[0])


@wrong_nodes
def test_a_node_that_joins_and_cannot_train_is_told_of_and_the_others_go_on(
    wrong: Callable[[Path], None],
    cluster: Raylets,
    emptied: Callable[[], Any],
    finished: tuple[Path, Any],
    tmp_path: Path,
):
    cluster.add()
    run = emptied()
    run.wait_for("1/8 ", 300)
    cluster.freeze()
    wrong(tmp_path / "place")
    cluster.add(tmp_path / "place")
    run.wait_for(WRONG[wrong])
    cluster.thaw()
    assert run.wait() == 0, run.err.read_text()
    assert run.out.read_text().count(WRONG[wrong]) == 1
    assert same_answer(tmp_path / "run", finished[0])


STARTING_SLOWLY = """
import time
from scalesearch.engine import node

place = node.Trainer.place

def slowly(self):
    time.sleep(20)
    return place(self)

node.Trainer.place = slowly
"""
"""Has a trainer tell late where it is."""


@pytest.mark.skipif(not FULL, reason="takes minutes; set SCALESEARCH_FAULTS=full")
def test_a_node_of_another_version_that_answers_first_keeps_no_run_from_the_others(
    cluster: Raylets, emptied: Callable[[], Any], finished: tuple[Path, Any], tmp_path: Path
):
    with_another_version(tmp_path / "wrong")
    (tmp_path / "slow").mkdir()
    change(tmp_path / "slow", STARTING_SLOWLY)
    cluster.add(tmp_path / "wrong")
    cluster.add(tmp_path / "slow")
    run = emptied()
    assert run.wait() == 0, run.err.read_text()
    assert run.out.read_text().count(WRONG[with_another_version]) == 1
    assert same_answer(tmp_path / "run", finished[0])


IMPATIENT = """
import sys
from scalesearch.engine import local

local.SILENCE = 5.0
from scalesearch.cli import main

main(sys.argv[1:])
"""
"""The program, with little patience for workers that are silent."""


def test_a_trainer_that_hangs_is_replaced_and_its_trial_comes_to_the_same_elsewhere(
    cluster: Raylets,
    begun: Path,
    program: Callable[..., Any],
    finished: tuple[Path, Any],
    tiny_options: tuple[str, ...],
    tmp_path: Path,
):
    cluster.clear()
    cluster.add()
    cluster.add()
    folder = tmp_path / "run"
    run = program("run", *tiny_options, "--out", folder, *on(cluster), entry=("-c", IMPATIENT))
    run.wait_for("2/8 ", 300)
    hanging = cluster.trainers()[0]
    os.kill(hanging, signal.SIGSTOP)
    try:
        run.wait_for("worker hung: no sign of life for ")
        assert run.wait() == 0, run.err.read_text()
    finally:
        with suppress(ProcessLookupError):  # the program has ended it, as it should
            os.kill(hanging, signal.SIGKILL)
    assert same_answer(folder, finished[0])
    assert_nothing_ran_again(folder, begun)
    cluster.clear()


FREEZING = """
import os, signal
from pathlib import Path

follow, place = node.Trainer.follow, Path({place!r})

def stay(self, *given):
    answer = follow(self, *given)
    if not (place / "frozen").exists():
        (place / "frozen").touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return answer

node.Trainer.follow = stay
"""
"""Has the trainer that follows another one freeze at the end of a work, the first time."""


@pytest.mark.skipif(not FULL, reason="takes minutes; set SCALESEARCH_FAULTS=full")
def test_a_trainer_that_freezes_while_the_first_one_ends_their_work_is_replaced(
    cluster: Raylets, begun: Path, program: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    place = tmp_path / "place"
    options = ("run", *tiny_options, *two_gpus(cluster, place, WITHOUT_GPUS + FREEZING.format(place=str(place))))
    run = program(*options, "--out", tmp_path / "run", entry=("-c", IMPATIENT))
    run.wait_for("3/8 ", 600)
    assert (place / "frozen").exists()  # in the only place that trials have
    run.process.send_signal(signal.SIGTERM)
    assert run.wait(60) == 143, run.err.read_text()
    assert_nothing_ran_again(tmp_path / "run", begun)
    cluster.clear()


HUNGRY = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "20000"}
"""Has Ray's own monitor take the memory of a node for full, and end a process of it each time it looks."""
SLOWLY = """
import time

answers = node.answers

def slowly(*given):
    for answer in answers(*given):
        time.sleep(0.05)
        yield answer

worker.answers = node.answers = slowly  # Ray brings the trainer's methods with the names that they were given here
"""
"""Has a step take long, and a run longer than it takes Ray's monitor to look."""


def test_trainers_that_ray_ends_for_want_of_memory_are_named_and_cost_no_byte(
    begun: Path,
    program: Callable[..., Any],
    finished: tuple[Path, Any],
    tiny_options: tuple[str, ...],
    tmp_path: Path,
):
    (tmp_path / "place").mkdir()
    change(tmp_path / "place", SLOWLY)
    full = Raylets(**HUNGRY)
    try:
        full.add(tmp_path / "place")
        run = program("run", *tiny_options, "--out", tmp_path / "run", *on(full))
        run.wait_for("ended: out of memory (host); tried again", 300)
        assert run.wait() == 0, run.err.read_text()
    finally:
        full.end()
    assert same_answer(tmp_path / "run", finished[0])
    assert_nothing_ran_again(tmp_path / "run", begun)


OTHER_RAY = """
import sys
from ray._private import utils

del utils.get_entrypoint_name
from scalesearch.cli import main

main(sys.argv[1:])
"""


def test_a_ray_whose_table_of_jobs_cannot_be_kept_free_of_passwords_is_refused_in_one_line(
    program: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    run = program("run", *tiny_options, "--out", tmp_path / "run", "--engine", "ray", entry=("-c", OTHER_RAY))
    assert run.wait() == 2, run.err.read_text()
    [line] = run.err.read_text().splitlines()
    assert "shows command lines, and passwords on them" in line
    assert line.endswith(f"; pip install 'ray[client]>=2.52,<{version('ray')}'")


WITHOUT_GPUS = """
from scalesearch.engine import node

begin = node.Trainer.__init__
node.Trainer.__init__ = lambda self, *, uses_gpu, afar=None: begin(self, uses_gpu=False, afar=afar)
"""
"""Has the trainers of a node use its CPU where they are to use a GPU: all else is as it is with GPUs."""


def two_gpus(cluster: Raylets, place: Path, code: str) -> tuple[str, ...]:
    """Have the cluster be two nodes of a GPU each that run code; the options of trials over both."""
    cluster.clear()
    place.mkdir()
    change(place, code)
    cluster.add(place, gpus=1)
    cluster.add(place, gpus=1)
    return *on(cluster), "--gpus-per-trial", "2", "--cpus-per-trial", "2"


BLIND = """
from pathlib import Path

def not_here(*_):
    Path({note!r}).touch()
    return False

node._is_here = not_here
"""
"""Has a node see no folder of images, and note that it was asked for one."""


def test_nodes_that_do_not_see_the_images_get_them_through_ray_and_come_to_the_same(
    cluster: Raylets, emptied: Callable[[], Any], finished: tuple[Path, Any], tmp_path: Path
):
    place, note = tmp_path / "place", tmp_path / "asked"
    place.mkdir()
    change(place, BLIND.format(note=str(note)))
    cluster.add(place)
    run = emptied()
    assert run.wait() == 0, run.err.read_text()
    assert note.exists()
    assert same_answer(tmp_path / "run", finished[0])


SPOILT = """
from pathlib import Path

def spoilt(folder, _):
    place = Path(folder) / "train_images.npy"
    content = bytearray(place.read_bytes())
    content[-1] ^= 1
    place.write_bytes(content)
    return False

node._is_here = spoilt
"""
"""Has a node see no folder of images, which are damaged by the time that it is asked for one."""


def test_images_that_are_damaged_when_a_node_wants_them_end_the_run_in_a_line_at_once(
    cluster: Raylets, emptied: Callable[[], Any], tmp_path: Path
):
    (tmp_path / "place").mkdir()
    change(tmp_path / "place", SPOILT)
    cluster.add(tmp_path / "place")
    run = emptied()
    assert run.wait() == 2
    (line,) = run.err.read_text().splitlines()
    fault = f"{tmp_path / 'run' / 'data'} does not hold the images of a study: its bytes have changed"
    assert line == f"scalesearch: {fault}; delete the folder and run again"
    assert "stop" not in run.out.read_text()


def test_a_trial_over_two_gpus_of_two_nodes_shares_its_batches_and_goes_on_when_one_node_is_lost(
    cluster: Raylets, program: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    place, note = tmp_path / "place", tmp_path / "asked"
    options = ("run", *tiny_options, *two_gpus(cluster, tmp_path / "seeing", WITHOUT_GPUS))
    undisturbed = program(*options, "--out", tmp_path / "undisturbed")
    assert undisturbed.wait() == 0, undisturbed.err.read_text()
    options = ("run", *tiny_options, *two_gpus(cluster, place, WITHOUT_GPUS + BLIND.format(note=str(note))))
    run = program(*options, "--out", tmp_path / "run")
    run.wait_for("2/8 ", 300)
    assert note.exists()  # its images come through Ray
    cluster.kill(1)
    cluster.add(place, gpus=1)
    assert run.wait() == 0, run.err.read_text()
    assert "is lost" in run.out.read_text()
    assert "failed" not in run.out.read_text()  # as the other trainer does, for want of the lost one
    assert same_answer(tmp_path / "run", tmp_path / "undisturbed")
    pace = yaml.safe_load((tmp_path / "run" / "plan.yaml").read_text())["pace"]
    recipe = yaml.safe_load((tmp_path / "run" / "plan.yaml").read_text())["recipe"]
    assert pace["micro_batch"] == recipe["batch_size"] / 2
    cluster.clear()


SLOW_STEPS = """
import os, time
from pathlib import Path

answers, works = node.answers, Path({works!r})

def slowly(*given):
    for answer in answers(*given):
        (works / str(os.getpid())).touch()
        time.sleep(0.5)
        yield answer

worker.answers = node.answers = slowly
"""
"""Has the first of a trial's trainers note that it trains, and take so long that none is trained before a kill."""


@pytest.mark.skipif(not FULL, reason="takes minutes; set SCALESEARCH_FAULTS=full")
def test_nodes_lost_under_a_trial_over_two_gpus_are_never_charged_to_it(
    cluster: Raylets, program: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    place, works = tmp_path / "place", tmp_path / "works"
    works.mkdir()
    options = ("run", *tiny_options, *two_gpus(cluster, place, WITHOUT_GPUS + SLOW_STEPS.format(works=str(works))))
    run = program(*options, "--out", tmp_path / "run")
    for number in range(1, ATTEMPTS + 2):
        while len(list(works.iterdir())) < number:
            assert run.process.poll() is None, run.err.read_text()
            time.sleep(0.1)
        cluster.kill(number % 2)  # the node of the first trainer, or of the one that follows
        if number > ATTEMPTS:
            change(place, WITHOUT_GPUS)
        cluster.add(place, gpus=1)
    assert run.wait() == 0, run.err.read_text()
    assert run.out.read_text().count("is lost") >= ATTEMPTS
    assert "failed" not in (tmp_path / "run" / "trials.csv").read_text()
    cluster.clear()


BROKEN_CONTEXT = """
from pathlib import Path

answers, place = node.answers, Path({place!r})

def broken(*_):
    raise RuntimeError("CUDA error: an illegal memory access was encountered")
    yield

def answer(*given):
    from scalesearch.engine import trial

    if not (place / "broken").exists():
        (place / "broken").touch()
        trial.train_trials = broken
    return answers(*given)

worker.answers = node.answers = answer  # Ray brings the trainer's methods with the names that they were given here
"""
"""Has no training succeed any more in the first process that trains, as behind a fault of its GPU."""


def test_a_trainer_whose_gpu_failed_is_replaced_and_spoils_no_other_trial(
    cluster: Raylets,
    begun: Path,
    program: Callable[..., Any],
    finished: tuple[Path, Any],
    tiny_options: tuple[str, ...],
    tmp_path: Path,
):
    place = tmp_path / "place"
    cluster.clear()
    place.mkdir()
    change(place, WITHOUT_GPUS + BROKEN_CONTEXT.format(place=str(place)))
    cluster.add(place, gpus=1)
    run = program("run", *tiny_options, "--out", tmp_path / "run", *on(cluster), "--gpus-per-trial", "1")
    assert run.wait() == 0, run.err.read_text()
    assert run.out.read_text().count("illegal memory access") == 1
    assert same_answer(tmp_path / "run", finished[0])
    assert_nothing_ran_again(tmp_path / "run", begun)
    cluster.clear()


MEETING = """
import os, time
from pathlib import Path

meet, place = node.Trainer.meet, Path({place!r})

def stay(self, address, rank, count):
    from scalesearch.proxy import ranks

    there = place / str(rank)
    is_first = not there.exists()
    there.write_text(str(os.getppid()))
    if rank == 0 and is_first:
        time.sleep(600)
    return meet(self, address, rank, count)

node.Trainer.meet = stay
"""
"""Has the trainers of a trial tell their nodes, and the first one not arrive, the first time, where they meet."""


def test_a_node_lost_while_the_trainers_of_a_trial_meet_costs_them_their_places_and_no_run(
    cluster: Raylets, program: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    place = tmp_path / "place"
    options = ("run", *tiny_options, *two_gpus(cluster, place, WITHOUT_GPUS + MEETING.format(place=str(place))))
    run = program(*options, "--out", tmp_path / "run")
    while not all((place / rank).exists() for rank in ("0", "1")):
        assert run.process.poll() is None, run.err.read_text()
        time.sleep(0.1)
    time.sleep(5)  # by when the other one waits for the first
    cluster.kill(cluster.nodes.index(int((place / "0").read_text())))
    cluster.add(place, gpus=1)
    assert run.wait() == 0, run.err.read_text()
    cluster.clear()


@pytest.mark.skipif(not FULL, reason="takes ten minutes; set SCALESEARCH_FAULTS=full")
@pytest.mark.timeout(3600)
def test_twenty_nodes_killed_in_runs_of_sixty_trials_lose_nothing_and_run_nothing_twice(
    cluster: Raylets, begun: Path, program: Callable[..., Any], tiny_npz: Path, tmp_path: Path
):
    tiny = "--budget 0.5x --preset quick --policy grid --candidates 14 --seeds 4 --epochs 2 --images 256"
    options = ("--data", str(tiny_npz), *f"{tiny} --proxy-resolution 12 --threads 1 --together 1".split())
    plain = tmp_path / "plain"
    assert program("run", *options, "--out", plain).wait(1200) == 0
    total = len((plain / "trials.csv").read_text().splitlines()) - 1
    assert total == 60
    chance, killed = random.Random(0), 0
    while killed < 20:
        folder = tmp_path / f"run-{killed}"
        run = program("run", *options, "--out", folder, *on(cluster))
        while run.process.poll() is None:
            while len(cluster.nodes) < 3:
                cluster.add()
            time.sleep(chance.uniform(2, 12))
            if run.process.poll() is None and f"\n{total}/" not in run.out.read_text():
                cluster.kill(chance.randrange(3))
                killed += 1
        assert run.wait() == 0, run.err.read_text()
        assert same_answer(folder, plain)
        assert_nothing_ran_again(folder, begun)
        assert json.loads((folder / "ranking.json").read_text())["failed"] == []
    print(f"nodes killed: {killed}")
