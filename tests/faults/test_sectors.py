"""Prepared images on sectors that a disk cannot read any more: a real file system on a device that lost its end."""

import array
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from preparing import follow, smallest_images, smallest_work

from scalesearch.engine.local import LocalExecutor
from scalesearch.engine.slots import Slot
from scalesearch.engine.work import Event
from scalesearch.errors import DataError
from scalesearch.proxy.images import ARRAYS

SIZE = 512 * 2**20
"""Of the device [B]."""
BLOCK = 4096
"""Of the file system [B]."""
FIBMAP = 1
"""Asks for the place of a file's block on its device."""
SPOILT = "train_images.npy"
LINE = f"does not hold the images of a study: {SPOILT}: Input/output error; delete the folder and run again"


class Device:
    """A file system in a file."""

    def __init__(self, place: Path) -> None:
        self.folder, self._image = place / "device", place / "image"
        self.folder.mkdir()
        self._image.touch()
        os.truncate(self._image, SIZE)
        self.is_mounted = not os.geteuid() and self._done("mkfs.ext4", "-qb", BLOCK, "-O", "^has_journal", self._image)
        self.is_mounted = self.is_mounted and self._mount()

    def _done(self, *command: object) -> bool:
        where = shutil.which(str(command[0]))
        return bool(where) and not subprocess.run([*map(str, command)], capture_output=True, check=False).returncode

    def _mount(self) -> bool:
        return self._done("mount", "-o", "loop", self._image, self.folder)

    def close(self) -> None:
        if self.is_mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)

    def hold(self, folder: Path) -> Path:
        """Copy a folder of images here, those that are to be lost behind the others."""
        place = self.folder / "data"
        place.mkdir(parents=True)
        for path in sorted(folder.iterdir(), key=lambda path: (path.name == SPOILT, path.name)):
            with shutil.copy2(path, place / path.name).open("rb") as file:
                os.fsync(file.fileno())  # which gives it its sectors
        return place

    def lose(self, path: Path) -> None:
        """Lose the sectors of a file's last block, and all behind them; none of them is in memory then."""
        number = array.array("i", [(path.stat().st_size - 1) // BLOCK])
        with path.open("rb") as file:
            fcntl.ioctl(file, FIBMAP, number, True)
        assert number[0] > 0
        subprocess.run(["umount", str(self.folder)], check=True)
        assert self._mount()
        os.truncate(self._image, number[0] * BLOCK)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    found = Device(tmp_path)
    if not found.is_mounted:
        pytest.skip("a file system can be made and mounted by root alone, with mkfs.ext4")
    with closing(found):
        yield found


@pytest.fixture
def spoilt(device: Device, tmp_path: Path) -> Path:
    """Prepared images whose last training images cannot be read."""
    place = device.hold(smallest_images(tmp_path / "whole"))
    device.lose(place / SPOILT)
    return place


def test_images_on_bad_sectors_are_told_by_their_file_when_every_byte_is_checked(spoilt: Path):
    code = f"""
from pathlib import Path
from scalesearch.errors import DataError
from scalesearch.proxy.images import open_images
open_images(Path({str(spoilt)!r}))
try:
    open_images(Path({str(spoilt)!r}), verify=True)
except DataError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{spoilt} {LINE}\n", "")


def test_a_worker_that_meets_a_bad_sector_ends_the_run_with_the_file_and_fails_no_trial(spoilt: Path, tmp_path: Path):
    with closing(LocalExecutor([Slot(device="cpu", name="cpu")])) as executor:
        executor.submit(smallest_work(spoilt, tmp_path / "lost", micro_batch=16))
        found: list[Event] = []
        with pytest.raises(DataError, match=re.escape(f"{spoilt} {LINE}")):
            follow(executor, found)
        assert found == []
        assert executor.idle == 1


@pytest.mark.slow
def test_a_run_whose_images_came_to_lie_on_bad_sectors_prepares_them_again(
    device: Device,
    program: Callable[..., Any],
    finished: tuple[Path, Any],
    tiny_options: tuple[str, ...],
    tmp_path: Path,
    files_of: Callable[[Path], dict[str, str]],
):
    whole, folder = finished[0] / "data", tmp_path / "run"
    shutil.copytree(finished[0], folder)
    shutil.rmtree(folder / "data")
    (folder / "data").symlink_to(device.hold(whole))
    device.lose(folder / "data" / SPOILT)
    run = program("run", *tiny_options, "--out", folder)
    assert run.wait() == 0, run.err.read_text()
    assert {name: files_of(folder / "data")[f"{name}.npy"] for name in ARRAYS} == {
        name: files_of(whole)[f"{name}.npy"] for name in ARRAYS
    }
