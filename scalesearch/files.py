"""Files written whole or not at all: whoever opens one meanwhile sees the old content or the new, nothing between."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

Answer = TypeVar("Answer")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What a write fails of where a disk or a quota is full."""
PAUSE = 2.0
"""Time between two tries to write on a full disk [s]."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that exists in whole, also after a loss of power, or stays as it was."""
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def whole_file(path: Path) -> Generator[IO[bytes]]:
    """A new file under a name of its own beside `path`, which takes that place when all is written.

    An exception inside leaves `path` as it was and removes the new file; a killed process leaves the new file behind.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # another for every writer, on any machine
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _settle(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def patiently(write: Callable[[], Answer], tell: Callable[[str], None]) -> Answer:
    """What a write returns, tried again while the disk or the quota is full, which is told once."""
    is_told = False
    while True:
        try:
            return write()
        except OSError as error:
            if error.errno not in FULL:
                raise
            if not is_told:
                tell(f"{error.strerror}: waiting for room, nothing is lost; free some space and the run goes on")
            is_told = True
            time.sleep(PAUSE)


def _settle(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the file system can; the files are in place either way."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
