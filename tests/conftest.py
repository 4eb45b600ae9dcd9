"""What tests of whole runs share: the real program in a process, images learnt in seconds, one finished run."""

import compileall
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calling import Call, Told
from servers import IS_THERE, Server

import scalesearch
from scalesearch.cli import _code
from scalesearch.presets import gpu_listed

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it, and so would what tests start

# Programs that tests start would compile it each time where PYTHONDONTWRITEBYTECODE is set.
compileall.compile_dir(Path(scalesearch.__file__).parent, quiet=2)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tests share the cores, and threads would wait
if not gpu_listed():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton is imported: the kernels run on the CPU

TINY_OPTIONS = (
    "--budget 0.5x --preset quick --policy grid --candidates 3 --seeds 2 --epochs 3 --images 256 --proxy-resolution 12"
    " --threads 1 --together 1"
)
"""8 trials of a second each, and a family of two small members; bits are the same in every run."""

ENTRY = ("-m", "scalesearch")
RECORDING = Path(__file__).parent / "faults" / "recording"


class Program:
    """`python -m scalesearch` on the CPU with a slot per core, in a process group of its own; output goes to files."""

    def __init__(
        self, *arguments: object, place: Path, cores: int = 2, entry: Sequence[str] = ENTRY, **environment: str
    ) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.out, self.err = place / "out.txt", place / "err.txt"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, *entry, *map(str, arguments)],
                stdout=out,
                stderr=err,
                cwd=place,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200", **environment},
                start_new_session=True,
                preexec_fn=partial(_confined, cores),
            )

    def wait(self, timeout: float = 300) -> int:
        return self.process.wait(timeout)

    def wait_for(self, text: str, timeout: float = 120) -> None:
        """Until the program has printed a text."""
        end = time.monotonic() + timeout
        while text not in self.out.read_text():
            assert self.process.poll() is None, f"ended before {text!r}: {self.err.read_text()}"
            assert time.monotonic() < end, f"no {text!r} in {timeout} s: {self.out.read_text()}"
            time.sleep(0.02)

    def workers(self) -> list[int]:
        """Process ids of the program's trial workers."""
        return [pid for pid in children(self.process.pid) if b"spawn_main" in _command(pid)]

    def interrupt(self) -> None:
        """What Ctrl-C does: SIGINT to the whole foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)


def _confined(cores: int) -> None:
    """Confine a program to some of the cores, others for each process of pytest-xdist."""
    if hasattr(os, "sched_setaffinity"):
        every, first = sorted(os.sched_getaffinity(0)), int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
        os.sched_setaffinity(0, {every[(first + number) % len(every)] for number in range(min(cores, len(every)))})


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def children(parent: int) -> list[int]:
    """Process ids of the living children of a process, by Linux's /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid = entry.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        if int(ppid) == parent and state != "Z":
            found.append(int(entry.parent.name))
    return sorted(found)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file in which workers of programs note what they begin to train, see `recording`."""
    file = tmp_path_factory.mktemp("begun") / "begun.jsonl"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(RECORDING), prepend=os.pathsep)
        environment.setenv("BEGUN_IN", str(file))
        yield file


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts the program; whatever of it is left at the end of the test is killed."""
    started: list[Program] = []

    def start(*arguments: object, **options: Any) -> Program:
        started.append(Program(*arguments, place=tmp_path / f"program-{len(started)}", **options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()


def _coloured(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, 12, 12, 3) of three classes that differ in their colour under noise."""
    labels = np.arange(count) % 3
    tints = 100 * np.eye(3, dtype=np.uint8)[labels]
    noise = np.random.default_rng(seed).integers(0, 128, (count, 12, 12, 3), np.uint8)
    return noise + tints[:, None, None, :], labels


@pytest.fixture(scope="session")
def tiny_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that a proxy learns in a second."""
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    (train, labels), (held, held_labels) = _coloured(320, 0), _coloured(60, 1)
    np.savez_compressed(path, train_images=train, train_labels=labels, val_images=held, val_labels=held_labels)
    return path


@pytest.fixture(scope="session")
def tiny_options(tiny_npz: Path) -> tuple[str, ...]:
    """Options of `run` and `plan` that make a whole search take seconds."""
    return ("--data", str(tiny_npz), *TINY_OPTIONS.split())


@pytest.fixture(scope="session")
def finished(tiny_options: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Program]:
    """A run folder that nothing disturbed, and the program that made it. Not to be changed."""
    place = tmp_path_factory.mktemp("finished")
    program = Program("run", *tiny_options, "--out", place / "run", place=place)
    assert program.wait() == 0, program.err.read_text()
    return place / "run", program


@pytest.fixture(scope="session")
def files_of() -> Callable[[Path], dict[str, str]]:
    """Every file under a folder with the digest of its content, but those that SQLite keeps while somebody reads."""

    def digests(folder: Path) -> dict[str, str]:
        files = sorted(
            path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".db-shm", ".db-wal")
        )
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return digests


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Inodes of the files and folders that are brought to the disk, in that order."""
    found: list[int] = []
    settle = os.fsync

    def noted(descriptor: int) -> None:
        settle(descriptor)
        found.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", noted)
    return found


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """The program in this process, in an empty folder, without a GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("COLUMNS", "200")  # as `Program` has it: sentences stay on a line
    monkeypatch.chdir(tmp_path)

    def told(*arguments: object) -> Told:
        capsys.readouterr()
        code = _code([str(one) for one in arguments])
        return Told(code, *capsys.readouterr())

    return told


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server of the session's own."""
    if not IS_THERE:
        pytest.skip("needs a PostgreSQL server's binaries")
    server = Server()
    yield server
    server.stop("immediate")
    server.remove()
