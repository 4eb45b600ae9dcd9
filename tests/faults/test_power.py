"""A disk that loses its power or turns read-only in the middle of a run: what is told of as done is there behind it.

The disk is a real ext4 in a file. Its kernel drops what is not yet on it, as a loss of power would, or takes it for
damaged and lets nobody write any more.
"""

import fcntl
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from disturbing import ANSWERS
from judging import FULL, assert_nothing_ran_again, lines

pytestmark = [pytest.mark.slow]

LOSSES = 60 if FULL else 4
"""Of power."""
SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN of Linux."""
WITHOUT_LOG = struct.pack("I", 2)
"""EXT4_GOING_FLAGS_NOLOGFLUSH: what the log of the file system holds in memory is lost too."""


@dataclass(frozen=True)
class Disk:
    """A file system in a file."""

    image: Path
    place: Path

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop,errors=remount-ro", self.image, self.place], check=True)

    def unmount(self) -> None:
        """As soon as the last process that holds it is gone: killed ones take a moment."""
        end = time.monotonic() + 60
        while subprocess.run(["umount", self.place], capture_output=True, check=False).returncode:
            assert time.monotonic() < end, "somebody holds the disk"
            time.sleep(0.1)

    def lose_power(self) -> None:
        """From here on nothing is read or written; what had been written and not synced is lost."""
        root = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(root, SHUTDOWN, WITHOUT_LOG)
        finally:
            os.close(root)

    def turn_read_only(self) -> None:
        """As ext4 does when it finds itself damaged."""
        found = subprocess.run(["findmnt", "-no", "SOURCE", self.place], capture_output=True, text=True, check=True)
        Path("/sys/fs/ext4", Path(found.stdout.strip()).name, "trigger_fs_error").write_text("1")

    def mended(self) -> None:
        """Checked and mounted anew."""
        self.unmount()
        assert subprocess.run(["e2fsck", "-fy", self.image], capture_output=True, check=False).returncode in (0, 1)
        self.mount()


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Disk]:
    """A disk of its own."""
    disk = Disk(tmp_path / "image", tmp_path / "ext4")
    disk.place.mkdir()
    with disk.image.open("wb") as file:
        file.truncate(512 * 2**20)
    try:
        subprocess.run(["mkfs.ext4", "-qF", disk.image], check=True)
        disk.mount()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("an ext4 in a file can be mounted by root alone, where the kernel lets it")
    yield disk
    subprocess.run(["umount", "-l", disk.place], check=True)


def told_of(one: Any) -> set[str]:
    """Trials that the program has told of as ended."""
    return set(re.findall(r"^\d+/\d+ ([^\s,]+)", one.out.read_text(), re.MULTILINE))


def let_go_on(one: Any, chance: random.Random) -> None:
    """Until it has told of up to two more trials; half of the time that very instant, else a while longer."""
    count = chance.randrange(3)
    while len(told_of(one)) < count and one.process.poll() is None:
        time.sleep(0.002)
    time.sleep(chance.choice((0.0, chance.random() * (1 if count else 5))))


def kept(folder: Path) -> set[str]:
    """Trials that have ended by the journal."""
    return {f"{row['proxy']}-s{row['seed']}-e{row['rung']}" for row in lines(folder) if row["kind"] == "ended"}


def assert_ends_by_itself(one: Any, fault: str, place: Path) -> None:
    """With one line that names a file and what is wrong with it."""
    assert one.wait(60) == 2, one.err.read_text()
    [line] = one.err.read_text().splitlines()
    assert fault in line
    assert str(place) in line
    assert "; " in line


def assert_same_answers(folder: Path, undisturbed: Path, begun: Path) -> None:
    for name in ANSWERS:
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert_nothing_ran_again(folder, begun)
    assert list((folder / "checkpoints").iterdir()) == []


@pytest.mark.timeout(3600)
def test_a_loss_of_power_at_any_moment_takes_nothing_that_was_told_of_and_changes_no_byte(
    begun: Path,
    program: Callable[..., Any],
    ext4: Disk,
    finished: tuple[Path, Any],
    tiny_options: tuple[str, ...],
):
    chance, lost, number = random.Random(1), 0, 0
    while lost < LOSSES:
        number += 1
        folder = ext4.place / f"run-{number}"
        for _ in range(3):
            going = program("run", *tiny_options, "--out", folder)
            let_go_on(going, chance)
            told = told_of(going)
            ext4.lose_power()
            lost += 1
            if chance.random() < 0.5:
                os.killpg(going.process.pid, signal.SIGKILL)
                going.wait()
            elif going.process.poll() is None:
                assert_ends_by_itself(going, "Input/output error", folder)
            ext4.unmount()
            ext4.mount()
            assert kept(folder) >= told
        last = program("run", *tiny_options, "--out", folder)
        assert last.wait() == 0, last.err.read_text()
        assert_same_answers(folder, finished[0], begun)
        shutil.rmtree(folder)


def test_a_disk_that_turns_read_only_ends_the_run_in_a_line_and_loses_nothing(
    begun: Path,
    program: Callable[..., Any],
    ext4: Disk,
    finished: tuple[Path, Any],
    tiny_options: tuple[str, ...],
):
    folder = ext4.place / "run"
    going = program("run", *tiny_options, "--out", folder)
    going.wait_for("\n2/")
    told = told_of(going)
    ext4.turn_read_only()
    assert_ends_by_itself(going, "Read-only file system", folder)
    ext4.mended()
    assert kept(folder) >= told
    again = program("run", *tiny_options, "--out", folder)
    assert again.wait() == 0, again.err.read_text()
    assert_same_answers(folder, finished[0], begun)
