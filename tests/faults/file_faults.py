"""Faults in single file operations of a program and of every process it starts: what `file_faults.c` does, and met."""

import shutil
import struct
import subprocess
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).with_name("file_faults.c")
HEADER, NOTED = struct.Struct("=16Q"), struct.Struct("=4i16s104s")
MOST = 20_000
"""Operations that are noted one by one."""


class Fault(IntEnum):
    """What happens at an operation."""

    NONE = 0
    KILL = 1
    FULL = 2


class Kind(IntEnum):
    """Whose an operation is; those on the files of the study are the coordinator's too."""

    COORDINATOR = 0
    WORKERS = 1
    STUDY = 2


class Operation(NamedTuple):
    """One operation on a file."""

    kind: Kind
    name: str
    path: str
    """Below the folder."""
    needs_room: bool
    refused: bool
    """It found no room."""


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
        self, folder: Path, fault: Fault = Fault.NONE, kind: Kind = Kind.COORDINATOR, at: int = 0, every: int = 0
    ) -> dict[str, str]:
        """Have a fault at an operation in a folder, counted from 1; returns the environment of the program.

        With `every` a disk is full again, so many operations after each full one; counted are those that need room.
        """
        self._file.write_bytes(HEADER.pack(fault, kind, at, every, *[0] * 11, MOST))
        with self._file.open("r+b") as file:
            file.truncate(HEADER.size + MOST * NOTED.size)
        return {"LD_PRELOAD": str(self._library), "FILE_FAULTS": str(self._file), "FILE_FAULTS_IN": str(folder)}

    def met(self) -> Met:
        """What came of it."""
        *_, by, _, coordinator, workers, study, _, _ = self._header()
        return Met(by, (coordinator, workers, study))

    def operations(self) -> list[Operation]:
        """All that were made, in their order."""
        *_, every, most = self._header()
        assert every <= most
        rows = self._file.read_bytes()[HEADER.size : HEADER.size + every * NOTED.size]
        return [
            Operation(Kind(kind), *(text.rstrip(b"\0").decode() for text in texts), bool(needs_room), bool(refused))
            for _, kind, needs_room, refused, *texts in NOTED.iter_unpack(rows)
        ]

    def _header(self) -> tuple[int, ...]:
        return HEADER.unpack(self._file.read_bytes()[: HEADER.size])
