"""Full and read-only disks, as real small file systems: what waits, what is refused, and nothing half written."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from conftest import Program
from disturbing import FEW, SEARCHES, STANDING_IN, TINY, Run, assert_is_whole, contents
from following import expected, states
from judging import FULL
from servers import Server

from scalesearch import emit
from scalesearch.bases import find
from scalesearch.boards import Boards
from scalesearch.engine.work import Progress
from scalesearch.files import write_whole
from scalesearch.journal import NAME
from scalesearch.limits import Limits
from scalesearch.members import published
from scalesearch.recipe import EpochResult
from scalesearch.repair import repair
from scalesearch.trials import TrialKey

ROOM = 2**20
FILLINGS = 60 if FULL else 4
"""Of the disk of runs."""
PAGE = 4096
"""The least that a file takes of such a disk [B]."""
TOO_FEW = 76
"""For a repair of these runs: it writes a study, its log beside it, and a journal twice [pages]."""
ROOMS = range(1, 130, 3) if FULL else (1, 16, 70, 127)
"""What a disk has left when a repair begins [pages]."""
WAITS = ["study.db", "journal.damaged-1.jsonl", NAME, NAME, "study.db"]
"""What a repair waits with where that is one page, for who holds the folder; the journal is mended, then opened."""


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of a megabyte, or as many bytes as a test asks for."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={getattr(request, 'param', ROOM)}", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system can be mounted by root alone")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(ballast: Path) -> None:
    """Have a file take what room there is."""
    with ballast.open("ab") as file:
        for size in (4096, 1):
            while True:
                try:
                    os.write(file.fileno(), b"\0" * size)
                except OSError:
                    break


class Filler:
    """Fills a disk, and makes room when it hears that somebody waits."""

    def __init__(self, disk: Path) -> None:
        self.ballast = disk / "ballast"
        self.heard: list[str] = []
        self.fill()

    def empty(self) -> None:
        self.ballast.unlink()

    def fill(self) -> None:
        fill(self.ballast)

    def __call__(self, text: str) -> None:
        self.heard.append(text)
        if text.endswith("waiting for room on the disk"):
            self.empty()
        else:
            self.fill()


class Crowder(Filler):
    """Leaves a disk no room for another file or folder, though there is room for bytes."""

    def empty(self) -> None:
        shutil.rmtree(self.ballast)

    def fill(self) -> None:
        with suppress(OSError):
            self.ballast.mkdir()
            for number in count():
                (self.ballast / str(number)).touch()


def test_a_file_that_finds_no_room_is_a_fault_and_leaves_nothing(disk: Path):
    filler = Filler(disk)
    with pytest.raises(OSError, match="No space left"):
        write_whole(disk / "file", b"x" * 10_000)
    assert list(disk.iterdir()) == [filler.ballast]


def test_a_patient_writer_tells_once_and_writes_when_there_is_room(disk: Path):
    filler = Filler(disk)
    ballast, told = filler.ballast, list[str]()
    writer = threading.Thread(target=write_whole, args=(disk / "file", b"x" * 10_000, told.append))
    writer.start()
    writer.join(3)
    assert writer.is_alive()
    assert told == [f"{disk / 'file'} cannot be written: No space left on device; waiting for room on the disk"]
    ballast.unlink()
    writer.join(60)
    assert (disk / "file").read_bytes() == b"x" * 10_000
    assert told[1:] == [f"{disk / 'file'} is written; going on"]


def test_ctrl_c_ends_the_wait(disk: Path):
    filler = Filler(disk)
    code = f"""
from pathlib import Path
from scalesearch.files import write_whole
write_whole(Path({str(disk / "file")!r}), b"x" * 10_000, lambda text: print(text, flush=True))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
        assert writer.stdout is not None
        assert b"waiting for room" in writer.stdout.readline()
        writer.send_signal(signal.SIGINT)
        assert writer.wait(60) == -signal.SIGINT
    assert list(disk.iterdir()) == [filler.ballast]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_a_search_whose_journal_waits(disk: Path, number: signal.Signals):
    code = f"""
from pathlib import Path
from scalesearch.journal import Journal
from scalesearch.stopping import Asked, TerminatedError, noting
asked = Asked()
journal = Journal(Path({str(disk / NAME)!r}), lambda text: print(text, flush=True), asked.check)
print("open", flush=True)
input()
try:
    with noting(asked):
        journal.bind("images", "x" * 10_000)
except (KeyboardInterrupt, TerminatedError) as error:
    print(type(error).__name__)
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        Filler(disk)
        writer.stdin.write("\n")
        writer.stdin.flush()
        assert "waiting for room" in writer.stdout.readline()
        writer.send_signal(number)
        told = "CtrlCError\n" if number is signal.SIGINT else "TerminatedError\n"
        assert writer.stdout.readline() == told
        assert writer.wait(60) == 0


FILES = ["config.yaml", "network.py", "manifest.json"]
WRITES = {Filler: FILES, Crowder: ["family", "B0", *FILES]}
"""What of a family of one member finds no room, by what fills the disk: folders need no bytes there."""


@pytest.mark.slow
@pytest.mark.parametrize("fills", WRITES)
def test_a_family_is_whole_though_every_write_of_it_finds_the_disk_full(
    disk: Path, tmp_path: Path, fills: type[Filler]
):
    subprocess.run(["mount", "-o", "remount,nr_inodes=64", str(disk)], check=True)
    found = published(find("b0"), classes=None, limits=Limits())[:1]
    filler = fills(disk)
    emit.write(found, None, "b0", disk / "family", lambda _: None, weights=False, full=filler)
    emit.write(found, None, "b0", tmp_path / "family", lambda _: None, weights=False)
    assert [Path(text.split(" ")[0]).name for text in filler.heard[::2]] == WRITES[fills]
    assert [text.endswith(" is written; going on") for text in filler.heard] == [False, True] * len(WRITES[fills])
    for path in (tmp_path / "family").rglob("*"):
        if path.is_file():
            assert (disk / "family" / path.relative_to(tmp_path / "family")).read_bytes() == path.read_bytes()


WAITING, GOING_ON = "; waiting for room on the disk", " is written; going on"
"""How a program tells that it waits for a disk, and that it has room."""


def told(one: Any, text: str) -> int:
    """How often a program has told something."""
    return sum(path.read_text().count(text) for path in (one.out, one.err))


def let_begin(one: Any) -> None:
    while "trials in all" not in one.out.read_text() and one.process.poll() is None:
        time.sleep(0.02)


def fill_until_done(run: Run, folder: Path, chance: random.Random) -> tuple[Any, int]:
    """Fill a disk whole at random, each time until it is waited for or the program ends.

    Returns:
        The program that came to the end, and how many fillings were met.
    """
    met, ballast = 0, folder.with_name("ballast")
    going = run.start(folder)
    if chance.random() < 0.5:
        let_begin(going)
    while going.process.poll() is None:
        time.sleep(chance.random())
        before = told(going, WAITING)
        while told(going, WAITING) == before and going.process.poll() is None:
            fill(ballast)
            time.sleep(0.005)
        ballast.unlink(missing_ok=True)  # the program may have ended before it was filled
        met += told(going, WAITING) > before
        while told(going, GOING_ON) < told(going, WAITING) and going.process.poll() is None:
            time.sleep(0.005)
    if going.process.returncode:
        assert_names_the_disk(going, folder)
        last, more = fill_until_done(run, folder, chance)
        return last, met + 1 + more
    return going, met


def assert_names_the_disk(one: Any, folder: Path) -> None:
    """A program that the full disk ended has told so in a line."""
    *_, line = one.err.read_text().splitlines() or [""]
    assert one.process.returncode == 2, one.err.read_text()
    assert "Traceback" not in one.err.read_text()
    assert str(folder) in line
    assert "No space left on device" in line


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("disk", [16 * ROOM], indirect=True)
def test_a_disk_that_is_full_at_random_moments_is_waited_for_or_named_and_changes_no_byte(
    disk: Path, begun: Path, program: Callable[..., Any], tiny_npz: Path, tmp_path: Path
):
    options = ["--data", tiny_npz, *TINY.replace("--quiet", "").split(), *SEARCHES["grid"].split()]
    options += ["--cache", tmp_path / "cache"]  # images are decoded only where much stays free

    def start(folder: Path) -> Any:
        return program("run", *options, "--out", folder, entry=STANDING_IN)

    assert start(tmp_path / "undisturbed").wait() == 0
    run = Run(start=start, answers=contents(tmp_path / "undisturbed"), driver=None, begun=begun)
    chance, met, number = random.Random(2), 0, 0
    while met < FILLINGS:
        number += 1
        folder = disk / f"run-{number}"
        last, fillings = fill_until_done(run, folder, chance)
        met += fillings
        if told(last, f"is behind; `scalesearch repair {folder}` brings it up"):
            assert program("repair", folder).wait() == 0
        assert_is_whole(run, folder)
        shutil.rmtree(folder)
    print(f"{met} times full in {number} runs")


@pytest.fixture(scope="module")
def finished_run(tiny_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("finished")
    options = ["--data", tiny_npz, *TINY.split(), *FEW.split()]
    one = Program("run", *options, "--out", place / "run", place=place, entry=STANDING_IN, STEP_SECONDS="0")
    assert one.wait() == 0, one.err.read_text()
    return place / "run"


@pytest.fixture
def spoilt(finished_run: Path, tmp_path: Path) -> Path:
    """A run whose journal lost an epoch to a damaged line, so that its study contradicts it."""
    folder = shutil.copytree(finished_run, tmp_path / "spoilt")
    content = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(content.replace(b'"epoch":1,', b'"epoch":?,', 1))
    return folder


def assert_is_repaired(folder: Path, spoilt: Path) -> None:
    """The study follows a journal that lost its damaged line alone, and what there was is kept aside."""
    lines = (spoilt / NAME).read_bytes().splitlines(keepends=True)
    assert (folder / NAME).read_bytes() == b"".join(line for line in lines if b'"epoch":?,' not in line)
    assert (folder / "journal.damaged-1.jsonl").read_bytes() == b"".join(lines)
    assert (folder / "study.damaged-1.db").read_bytes() == (spoilt / "study.db").read_bytes()
    assert states(folder) == expected(folder)
    again = repair(folder)
    assert (again.added, again.changed, again.aside, again.damaged) == (0, 0, (), ())


def leave(ballast: Path, pages: int) -> None:
    """Make a little room on a full disk."""
    os.truncate(ballast, ballast.stat().st_size - pages * PAGE)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("disk", [8 * ROOM], indirect=True)
def test_a_repair_waits_wherever_it_finds_the_disk_full_and_loses_nothing(disk: Path, spoilt: Path):
    for pages in ROOMS:
        folder = shutil.copytree(spoilt, disk / f"run-{pages}")
        filler = Filler(disk)
        leave(filler.ballast, pages)
        found = repair(folder, told=filler)
        waits = [Path(text.split(" ")[0]).name for text in filler.heard[::2]]
        assert [text.endswith(GOING_ON) for text in filler.heard] == [False, True] * len(waits)
        assert waits == WAITS if pages == 1 else bool(waits) == (pages <= TOO_FEW)
        filler.ballast.unlink()
        assert (found.trials, found.added, found.changed) == (len(expected(folder)), len(expected(folder)), 0)
        assert_is_repaired(folder, spoilt)
        shutil.rmtree(folder)


def until_it_waits(start: Callable[[], Any], ballast: Path) -> Any:
    """A program that has told that it waits for a disk, which has room for no more than who holds the folder."""
    fill(ballast)
    leave(ballast, 1)
    one = start()
    while not told(one, WAITING):
        assert one.process.poll() is None, one.err.read_text()
        time.sleep(0.02)
    time.sleep(2)  # it looks for room more than once
    return one


@pytest.mark.slow
@pytest.mark.parametrize("disk", [8 * ROOM], indirect=True)
def test_a_repair_says_once_that_it_waits_until_ctrl_c_or_room_comes(
    disk: Path, finished_run: Path, program: Callable[..., Any]
):
    folder, ballast = shutil.copytree(finished_run, disk / "run"), disk / "ballast"
    journal, study = folder / NAME, folder / "study.db"
    study.write_bytes(b"garbage" * 1000)
    content = journal.read_bytes()
    one = until_it_waits(lambda: program("repair", folder), ballast)
    one.interrupt()
    assert one.wait() == 130
    assert one.err.read_text().splitlines() == [
        f"{journal} cannot be written: No space left on device{WAITING}",
        f"scalesearch: interrupted; to start again: scalesearch repair {folder}",
    ]
    assert journal.read_bytes() == content
    ballast.unlink()
    one = until_it_waits(lambda: program("repair", folder), ballast)
    ballast.unlink()
    assert one.wait() == 0
    said = f"{study} cannot be written: No space left on device{WAITING}", f"{study}{GOING_ON}"
    assert one.err.read_text().splitlines() == [*said]
    assert journal.read_bytes() == content
    assert states(folder) == expected(folder)


CURVES = TrialKey(proxy="d16-w1.000-r312", seed=1, rung=99_999)


def learn(boards: Boards, epochs: Iterable[int]) -> None:
    """Have a trial tell of epochs."""
    for number in epochs:
        boards.happened(Progress(CURVES, EpochResult(epoch=number, train_loss=1.0, accuracy=number, loss=2.0)))


def curve(folder: Path) -> list[int]:
    """The epochs that TensorBoard reads, each with its own accuracy, and whole where one of its values is there."""
    read = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    found = read(str(folder / "tensorboard" / str(CURVES)), size_guidance={"scalars": 0})
    found.Reload()
    accuracies, *losses = (found.Scalars(name) for name in ("accuracy", "loss", "train_loss"))
    assert [point.value for point in accuracies] == [point.step for point in accuracies]
    assert [[point.step for point in points] for points in losses] == 2 * [[point.step for point in accuracies]]
    return [point.step for point in accuracies]


def test_epochs_that_find_no_room_are_left_out_of_the_curves_without_a_word_and_later_ones_are_written(
    disk: Path, capfd: pytest.CaptureFixture[str]
):
    pytest.importorskip("tensorboard")
    filler, threads = Filler(disk), threading.active_count()
    with Boards(disk) as boards:
        learn(boards, range(1, 50))
        leave(filler.ballast, 3)
        learn(boards, range(50, 1000))
        filler.empty()
        learn(boards, range(1000, 1100))
    assert threading.active_count() == threads
    assert capfd.readouterr() == ("", "")
    *_, last = filled = [number for number in curve(disk) if number < 1000]
    assert filled == list(range(50, last + 1))
    assert last < 999
    assert curve(disk)[len(filled) :] == list(range(1000, 1100))


@pytest.mark.slow
def test_a_run_whose_curves_lie_on_a_full_disk_says_nothing_of_it_and_is_as_without(
    disk: Path, program: Callable[..., Any], finished: tuple[Path, Any], tiny_options: tuple[str, ...], tmp_path: Path
):
    pytest.importorskip("tensorboard")
    folder, filler = shutil.copytree(finished[0], tmp_path / "run"), Filler(disk)
    for name in (NAME, "study.db", "ranking.json", "trials.csv"):  # plan and images stay
        (folder / name).unlink()
    (folder / "tensorboard").symlink_to(disk)
    run = program("run", *tiny_options, "--log", "tensorboard", "--out", folder)
    assert run.wait() == 0
    assert run.err.read_text() == ""
    assert sum(path.stat().st_size for path in disk.rglob("*tfevents*")) == 0
    filler.empty()
    for name in ("ranking.json", "trials.csv"):
        assert (folder / name).read_bytes() == (finished[0] / name).read_bytes()


def test_curves_on_a_disk_that_is_read_only_for_a_while_are_left_out_meanwhile(
    disk: Path, capfd: pytest.CaptureFixture[str]
):
    pytest.importorskip("tensorboard")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with Boards(disk) as boards:
        learn(boards, range(1, 50))
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        learn(boards, range(50, 60))
    assert capfd.readouterr() == ("", "")
    assert curve(disk) == list(range(50, 60))


def test_a_read_only_folder_is_refused_in_one_line(disk: Path, call: Callable[..., Any], tiny_options: tuple[str, ...]):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    told = call("run", *tiny_options, "--out", disk / "run")
    assert (
        told.refusal
        == f"scalesearch: {disk / 'run'} cannot be written: Read-only file system; choose another folder with --out"
    )


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Path]:
    """A folder that a program serves, as sshfs would."""
    place, behind = tmp_path / "remote", tmp_path / "behind"
    place.mkdir()
    behind.mkdir()
    command = ["bindfs", "-o", "subtype=sshfs", str(behind), str(place)]
    if not shutil.which("bindfs") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs Debian's bindfs, and leave to mount")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
def test_on_a_network_file_system_a_study_in_a_file_is_refused_and_one_on_a_server_costs_no_byte(
    remote: Path,
    postgres: Server,
    call: Callable[..., Any],
    program: Callable[..., Any],
    finished: tuple[Path, Any],
    tiny_options: tuple[str, ...],
):
    folder = remote / "run"
    told = call("run", *tiny_options, "--out", folder)
    assert told.code == 2
    [line] = told.err.splitlines()
    assert "lies on a network file system (fuse.sshfs)" in line
    assert "--storage postgresql://" in line
    assert not folder.exists()
    run = program("run", *tiny_options, "--out", folder, "--storage", postgres.url)
    assert run.wait() == 0, run.err.read_text()
    for name in ("ranking.json", "trials.csv"):
        assert (folder / name).read_bytes() == (finished[0] / name).read_bytes()
