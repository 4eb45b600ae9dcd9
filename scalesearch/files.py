"""Files written whole or not at all: whoever opens one meanwhile sees the old content or the new, nothing between."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Faults of a disk that has no more room for us: full, or beyond a quota or a limit of the process."""
PAUSE = 1.0
"""Between looks at a full disk [s]."""

UNSETTLED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM})
"""Answers of file systems that cannot settle a folder, or do not let us open it for that."""

LOCKLESS = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK})
"""Answers of file systems that have no file locks."""

UNFINISHED = re.compile(r"\.(.+)\.[0-9a-f]{8}")
"""Names of files that are being written, or that a killed writer left behind. The group is the name they are to get;
others' hidden files may be called so too."""

Told = Callable[[str], None]
"""Hears a line for people."""


def remedy(error: OSError) -> str:
    """What a person may do where an output folder cannot be written."""
    return "make room on its disk, or lift its limit" if error.errno in FULL else "choose another folder with --out"


T = TypeVar("T")


def write_whole(path: Path, content: bytes, told: Told | None = None) -> None:
    """Write a file that exists in whole, also after a loss of power, or stays as it was.

    Args:
        path: of the file.
        content: all of it.
        told: where given, a full disk is waited for, as `patiently` does; else it is a fault.
    """
    if told is not None:
        return patiently(partial(write_whole, path, content), path, told)
    with whole_file(path) as file:
        file.write(content)


def patiently(act: Callable[[], T], where: Path, told: Told, check: Callable[[], None] = lambda: None) -> T:
    """Do something again and again until the disk has room for it.

    Args:
        act: leaves nothing behind when it fails.
        where: what it writes.
        told: hears once that the disk is full, and once that it goes on.
        check: called between looks at the disk; what it raises ends the wait.
    """
    is_waiting = False
    while True:
        try:
            done = act()
        except OSError as error:
            if error.errno not in FULL:
                raise
            if not is_waiting:
                told(f"{where} cannot be written: {error.strerror}; waiting for room on the disk")
            is_waiting = True
            check()
            time.sleep(PAUSE)
            continue
        if is_waiting:
            told(f"{where} is written; going on")
        return done


def generations(path: Path) -> tuple[Path, Path]:
    """A file that is kept in two generations: the newer one, and the one before."""
    return path, path.with_name(f"{path.name}.before")


@contextmanager
def whole_file(path: Path, *, before: Path | None = None) -> Generator[IO[bytes]]:
    """A new file under a name of its own beside `path`, which takes that place when all is written.

    An exception inside leaves `path` as it was and removes the new file; a killed process leaves the new file behind,
    for `sweep`. Where the disk fails at the very last, over the name, that may be the old file's or the new one's. An
    OSError names a file.

    Args:
        path: of the file.
        before: where the old file is kept; a process killed between leaves it there and none at `path`.
    """
    unfinished, file = _begun(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if before is not None:
                with suppress(FileNotFoundError):
                    os.replace(path, before)
            os.replace(unfinished, path)
        settle(path.parent)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # that a disk is full is told without a name
    finally:
        unfinished.unlink(missing_ok=True)


def _begun(path: Path) -> tuple[Path, IO[bytes]]:
    """An empty file beside `path`, see UNFINISHED, that is locked until it has its place: `sweep` leaves it alone."""
    while True:
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # another for every writer, on any machine
        file = unfinished.open("xb")
        with suppress(OSError):  # a file system without locks, where nobody sweeps either
            fcntl.flock(file, fcntl.LOCK_EX)
        if unfinished.exists():  # not swept before it was locked
            return unfinished, file
        file.close()


def sweep(unfinished: Path) -> None:
    """Remove a file that a killed writer left behind; one that is being written stays."""
    with suppress(OSError), unfinished.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        unfinished.unlink()


def listed(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where it cannot be listed, or is a link."""
    try:
        return [] if folder.is_symlink() else list(folder.iterdir())
    except OSError:
        return []


def remove(path: Path, told: Told) -> None:
    """Remove a file that is needed no more; one that cannot be removed stays, and is told of."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        told(f"{path} cannot be removed: {error.strerror}; it is needed no more")


def has_locks(folder: Path) -> bool:
    """Whether the file system of a folder has file locks; tried on a file without a name.

    Raises:
        OSError: the folder cannot be written.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in LOCKLESS:
                raise
            return False
    return True


def settle(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the file system can; they are in place either way."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in UNSETTLED:
            raise


def nearest(folder: Path) -> Path:
    """A folder, or where it is not there the nearest of its parents that is."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def make_folder(folder: Path) -> None:
    """Make a folder with its parents, all of which outlive a loss of power; one that is there is left as it is."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in new:
        settle(path.parent)


def append(path: Path, text: str) -> None:
    """Put a text behind what is in a file, never through a link, nor into what is no file.

    A full disk costs the text and nothing else.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK  # no wait for who reads a pipe
    with suppress(OSError), os.fdopen(os.open(path, flags, 0o666), "a", encoding="utf-8") as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.write(text)
