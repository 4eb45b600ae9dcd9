"""Faults in single file operations of a program and of every process it starts: what `file_faults.c` does, and met."""

import re
import shutil
import struct
import subprocess
from collections.abc import Collection
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).with_name("file_faults.c")
NAMED = 256
"""Operations that may be named."""
HEADER, LIST, NOTED = struct.Struct("=12Q"), struct.Struct(f"={NAMED}Q"), struct.Struct("=4i16s104s")
BEFORE = HEADER.size + LIST.size
MOST = 20_000
"""Operations that are noted one by one."""


class Fault(IntEnum):
    """What happens at an operation."""

    NONE = 0
    KILL = 1
    FULL = 2
    FULL_ONCE = 3


class Kind(IntEnum):
    """Whose an operation is; those on the files of the study are the coordinator's too."""

    COORDINATOR = 0
    WORKERS = 1
    STUDY = 2


class What(NamedTuple):
    """What an operation does to which file, whatever a file is called until it has its place."""

    name: str
    path: str

    @property
    def number(self) -> int:
        """FNV-1a of both."""
        found = 14695981039346656037
        for byte in (self.name + self.path).encode():
            found = (found ^ byte) * 1099511628211 % 2**64
        return found


class Operation(NamedTuple):
    """One operation on a file."""

    kind: Kind
    name: str
    path: str
    """Below the folder."""
    needs_room: bool
    refused: bool
    """It found no room."""

    @property
    def what(self) -> What:
        """Without the random end of a file that has no name yet."""
        return What(self.name, re.sub(r"\.[0-9a-f]{8}$", "", self.path))


class Met(NamedTuple):
    """What came of a fault."""

    by: int
    """The process that met it last; 0 = none, which made fewer operations."""
    made: tuple[int, ...]
    """Operations by kind."""


class FileFaults:
    """The library and the file that it shares with a test."""

    def __init__(self, place: Path) -> None:
        """Build the library."""
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("needs a C compiler")
        self._library, self._file = place / "file_faults.so", place / "faults"
        command = [compiler, "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", self._library, SOURCE]
        subprocess.run([*command, "-ldl"], check=True)

    def set(
        self,
        folder: Path,
        fault: Fault = Fault.NONE,
        kind: Kind = Kind.COORDINATOR,
        at: int = 0,
        *,
        every: int = 0,
        named: Collection[What] = (),
    ) -> dict[str, str]:
        """Have a fault at an operation in a folder, counted from 1; returns the environment of the program.

        With `every` a disk is full again, so many operations after each full one. FULL_ONCE is of the named ones.
        """
        numbers = [one.number for one in named] + [0] * (NAMED - len(named))
        self._file.write_bytes(HEADER.pack(fault, kind, at, every, *[0] * 7, MOST) + LIST.pack(*numbers))
        with self._file.open("r+b") as file:
            file.truncate(BEFORE + MOST * NOTED.size)
        return {"LD_PRELOAD": str(self._library), "FILE_FAULTS": str(self._file), "FILE_FAULTS_IN": str(folder)}

    def met(self) -> Met:
        """What came of it."""
        *_, by, _, coordinator, workers, study, _, _ = self._header()
        return Met(by, (coordinator, workers, study))

    def operations(self) -> list[Operation]:
        """All that were made, in their order."""
        *_, every, most = self._header()
        assert every <= most
        rows = self._file.read_bytes()[BEFORE : BEFORE + every * NOTED.size]
        return [
            Operation(Kind(kind), _text(name), _text(path), bool(needs_room), bool(refused))
            for _, kind, needs_room, refused, name, path in NOTED.iter_unpack(rows)
        ]

    def _header(self) -> tuple[int, ...]:
        return HEADER.unpack(self._file.read_bytes()[: HEADER.size])


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode()
