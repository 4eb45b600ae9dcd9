"""The journal of a run: what became of its trials, one line for each thing that happened. The truth of a run folder.

A line is a JSON object whose last field, `crc`, is the CRC-32 of what stands before it. One coordinator appends lines;
none is ever changed. What lines come to is one fold, the same when they are written and when they are read: an epoch
counts if it is the trial's next one, an end if all its epochs count, and what a trial has come to stays. So a line that
is damaged is not believed and takes nothing else with it but an end that rests on it: that trial is trained again.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from scalesearch.decision import Decision, decision_of
from scalesearch.errors import StudyError
from scalesearch.files import T, Told, patiently, write_whole
from scalesearch.recipe import EpochResult
from scalesearch.story import Name, Row, Story, key_of, name_of, text
from scalesearch.trials import TrialKey, TrialResult, TrialState

NAME = "journal.jsonl"
"""File in the run folder."""
MOST = 2**31
"""Most bytes of a journal; 10,000 trials write some 10 million."""
TOGETHER = 1000
"""Lines that are parsed at a time."""
CHECK = b',"crc":"'
CHECKED = len(CHECK) + len(b'00000000"}')
"""Bytes of a line that hold its checksum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a journal says."""

    trials: Mapping[TrialKey, TrialResult]
    bound: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What the run is tied to, by part: the fingerprints of its images, the place of its study."""
    decided: Mapping[str, Decision] = field(default_factory=lambda: MappingProxyType({}))
    """What the search has decided, by the digest of the results that it rests on."""
    damaged: tuple[int, ...] = ()
    """Lines that are not believed, counted from 1."""
    whole: int = 0
    """Bytes up to the end of the last line; what follows is torn."""

    @property
    def results(self) -> list[TrialResult]:
        """Every trial that was started, in the order of the starts."""
        return list(self.trials.values())


def read_journal(path: Path) -> Record:
    """What a journal says; nothing where there is none.

    Raises:
        StudyError: it cannot be read, none of its lines is whole, or one holds what no run has written.
    """
    found = _read(path)
    trials = {story.key: story.result for story in found.stories.values()}
    return Record(
        trials=trials,
        bound=found.bound,
        decided=found.decided,
        damaged=tuple(found.damaged),
        whole=found.whole,
    )


def refuse_link(path: Path, mend: str = "put the file itself in its place, or run into a new folder") -> None:
    """Refuse to write a file of a run in place where it is a link.

    Raises:
        StudyError: it is one, wherever it leads.
    """
    if path.is_symlink():
        raise StudyError(f"{path} is a link, and a file that it leads to is not written", mend=mend)


@dataclass(slots=True)
class _Found:
    """What lines come to, while they are read."""

    stories: dict[Name, Story] = field(default_factory=lambda: {})
    bound: dict[str, str] = field(default_factory=lambda: {})
    decided: dict[str, Decision] = field(default_factory=lambda: {})
    damaged: list[int] = field(default_factory=lambda: [])
    whole: int = 0

    def tell(self, row: Row) -> bool:
        """One more row; returns whether it says anything new."""
        kind = row["kind"]
        if kind == "bound":
            part, value = text(row["part"]), text(row["value"])
            is_new = self.bound.get(part) != value
            self.bound[part] = value
            return is_new
        if kind == "decided":
            return self._tell_decision(text(row["on"]), decision_of(row))
        name = name_of(row)
        story = self.stories.get(name)
        if story is None:
            story = self.stories[name] = Story(key_of(*name))
        return story.tell(row)

    def _tell_decision(self, on: str, said: Decision) -> bool:
        is_new = on not in self.decided
        if self.decided.setdefault(on, said) != said:
            raise ValueError("another decision on the same results stands before it")
        return is_new


def _read(path: Path) -> _Found:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise StudyError(f"{path} is not a file", mend="restore it, or run into a new folder")
    try:
        if path.exists() and path.stat().st_size > MOST:
            raise StudyError(f"{path} is larger than any run writes", mend="restore it, or run into a new folder")
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}", mend="mend its permissions") from None
    *lines, torn = content.split(b"\n")
    found = _Found(whole=len(content) - len(torn))
    numbered = {number: line for number, line in enumerate(lines, start=1) if is_whole(line)}
    found.damaged += [number for number in range(1, len(lines) + 1) if number not in numbered]
    rows = _rows([*numbered.values()])
    for number in numbered:
        try:
            found.tell(next(rows))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = f"no field {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
            raise StudyError(f"{path}, line {number}: {reason}", mend=f"remove line {number}") from None
    if lines and len(found.damaged) == len(lines):
        raise StudyError(f"{path} is damaged: none of its lines is whole", mend="restore it, or run into a new folder")
    return found


def _rows(lines: Sequence[bytes]) -> Iterator[Any]:
    """What whole lines hold, parsed many at a time, which takes half the time; one by one where one of them is bad."""
    for first in range(0, len(lines), TOGETHER):
        some = lines[first : first + TOGETHER]
        try:
            rows: list[Any] = json.loads(b"[%b]" % b",".join(some))
            is_each_a_row = [row["crc"].encode() for row in rows] == [line[-10:-2] for line in some]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            rows, is_each_a_row = [], False
        yield from rows if is_each_a_row else map(json.loads, some)


def is_whole(line: bytes) -> bool:
    """Whether the checksum of a line is that of its content."""
    body, check = line[:-CHECKED], line[-CHECKED:]
    return check == b'%b%08x"}' % (CHECK, zlib.crc32(body))


def _line(row: Row) -> bytes:
    body = json.dumps(row, separators=(",", ":")).encode()[:-1]
    return b'%b%b%08x"}\n' % (body, CHECK, zlib.crc32(body))


class Journal:
    """The journal of a run folder, held by its coordinator. An end is on the disk when the call returns.

    When it is opened, a tail that was torn by a loss of power or a kill is cut, and the rest is written anew: lines
    that an earlier coordinator had not brought to the disk, or that a failed fsync has lost there, may stand in memory
    alone.
    """

    def __init__(self, path: Path, tell: Told = lambda _: None, check: Callable[[], None] = lambda: None) -> None:
        """Open a journal, making it if there is none. A full disk is waited out, see `patiently`.

        Raises:
            StudyError: see `read_journal`; or it cannot be written, or is a link.
        """
        refuse_link(path)
        self._found = _read(path)
        self._path, self._tell, self._check = path, tell, check
        self._since: dict[TrialKey, float] = {}
        self._settled, self._unsettled = self._found.whole, bytearray()
        """Bytes that are on the disk for good, and those behind them."""
        believed = self._do(path.read_bytes)[: self._found.whole] if path.exists() else b""
        self._do(partial(write_whole, path, believed))
        self._file = self._do(partial(os.open, path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW))

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    @property
    def results(self) -> list[TrialResult]:
        """Every trial that was started, in the order of the starts."""
        return [story.result for story in self._found.stories.values()]

    @property
    def bound(self) -> Mapping[str, str]:
        """What the run is tied to, by part."""
        return MappingProxyType(self._found.bound)

    def result(self, key: TrialKey) -> TrialResult:
        """What a trial that was started has come to."""
        return self._found.stories[astuple(key)].result

    def bind(self, part: str, value: str) -> None:
        """Tie the run to something, in the place of what it was tied to before."""
        if self._note({"kind": "bound", "part": part, "value": value}):
            self._settle()

    @property
    def decided(self) -> Mapping[str, Decision]:
        """What the search has decided, by the digest of the results that it rests on."""
        return MappingProxyType(self._found.decided)

    def decide(self, decided: Mapping[str, Decision]) -> None:
        """Note what is decided, before anything that follows from it. What a loss of power takes is decided again."""
        for on, said in decided.items():
            if on not in self._found.decided:
                self._note({"kind": "decided", "on": on, **asdict(said)})

    def start(self, key: TrialKey) -> None:
        """A trial starts, or goes on in this coordinator."""
        story = self._found.stories.get(astuple(key))
        spent = story.seconds if story and story.seconds else 0.0
        self._since[key] = time.monotonic() - spent
        self._note({"kind": "started", **asdict(key), "time": _now()})

    def report(self, key: TrialKey, result: EpochResult) -> bool:
        """An epoch of a trial is trained; returns False for one that is not the next."""
        return self._note({"kind": "epoch", **asdict(key), **asdict(result), "seconds": self._seconds(key)})

    def end(self, key: TrialKey, state: TrialState, reason: str = "", *, beside: Sequence[TrialKey] = ()) -> None:
        """Nothing more is to come of a trial, nor of those beside it. When this returns, that is on the disk.

        It is written at once for all of them: who is killed between the ends of a group would train the ended again.
        """
        rows: list[Row] = []
        for one in (key, *beside):
            said = {"state": state.value, "reason": reason, "epochs": len(self.result(one).epochs)}
            rows.append({"kind": "ended", **asdict(one), **said, "seconds": self._seconds(one), "time": _now()})
        if self._note(*rows):
            self._settle()

    def _seconds(self, key: TrialKey) -> float:
        return round(time.monotonic() - self._since[key], 6)

    def _note(self, *rows: Row) -> bool:
        new = [row for row in rows if self._found.tell(row)]
        self._write(b"".join(map(_line, new)))
        return bool(new)

    def _write(self, left: bytes) -> None:
        self._unsettled += left
        while left:
            left = left[self._do(partial(os.write, self._file, left)) :]

    def _settle(self) -> None:
        """Bring to the disk what is written.

        After an fsync that failed the system takes for clean what is not there, and a second one would find nothing to
        do: it is written again.
        """
        is_again = False

        def act() -> None:
            nonlocal is_again
            if is_again:
                os.ftruncate(self._file, self._settled)
                left = bytes(self._unsettled)
                while left:
                    left = left[os.write(self._file, left) :]
            is_again = True
            os.fsync(self._file)

        self._do(act)
        self._settled += len(self._unsettled)
        self._unsettled.clear()

    def _do(self, act: Callable[[], T]) -> T:
        try:
            return patiently(act, self._path, self._tell, self._check)
        except OSError as error:
            raise StudyError(f"{self._path} cannot be written: {error.strerror}", mend="mend that and go on") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
