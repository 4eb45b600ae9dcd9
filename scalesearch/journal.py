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
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from scalesearch.errors import StudyError, shown
from scalesearch.files import T, Told, patiently, write_whole
from scalesearch.recipe import EpochResult
from scalesearch.trials import STAGES, TrialKey, TrialResult, TrialState

NAME = "journal.jsonl"
"""File in the run folder."""
CHECK = b',"crc":"'
CHECKED = len(CHECK) + len(b'00000000"}')
"""Bytes of a line that hold its checksum."""
ENDS = frozenset({TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED})
Row = dict[str, Any]
Name = tuple[Any, Any, Any, Any]
"""A trial's key as its rows have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a journal says."""

    trials: Mapping[TrialKey, TrialResult]
    bound: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What the run is tied to, by part: the fingerprints of its images, the place of its study."""
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
    return Record(trials=trials, bound=found.bound, damaged=tuple(found.damaged), whole=found.whole)


@dataclass(slots=True)
class _Found:
    """What lines come to, while they are read."""

    stories: dict[Name, _Story] = field(default_factory=lambda: {})
    bound: dict[str, str] = field(default_factory=lambda: {})
    damaged: list[int] = field(default_factory=lambda: [])
    whole: int = 0

    def tell(self, row: Row) -> bool:
        """One more row; returns whether it says anything new."""
        if row["kind"] != "bound":
            name = _name(row)
            story = self.stories.get(name)
            if story is None:
                story = self.stories[name] = _Story(_key(*name))
            return story.tell(row)
        part, value = _text(row["part"]), _text(row["value"])
        is_new = self.bound.get(part) != value
        self.bound[part] = value
        return is_new


def _read(path: Path) -> _Found:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise StudyError(f"{path} is not a file", mend="restore it, or run into a new folder")
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}", mend="mend its permissions") from None
    *lines, torn = content.split(b"\n")
    found = _Found(whole=len(content) - len(torn))
    for number, line in enumerate(lines, start=1):
        if not is_whole(line):
            found.damaged.append(number)
            continue
        try:
            found.tell(json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = f"no field {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
            raise StudyError(f"{path}, line {number}: {reason}", mend=f"remove line {number}") from None
    if lines and len(found.damaged) == len(lines):
        raise StudyError(f"{path} is damaged: none of its lines is whole", mend="restore it, or run into a new folder")
    return found


def is_whole(line: bytes) -> bool:
    """Whether the checksum of a line is that of its content."""
    body, check = line[:-CHECKED], line[-CHECKED:]
    return check == b'%b%08x"}' % (CHECK, zlib.crc32(body))


def _line(row: Row) -> bytes:
    body = json.dumps(row, separators=(",", ":")).encode()[:-1]
    return b'%b%b%08x"}\n' % (body, CHECK, zlib.crc32(body))


def _name(row: Row) -> Name:
    return row["proxy"], row["seed"], row["rung"], row["stage"]


def _key(proxy: Any, seed: Any, rung: Any, stage: Any) -> TrialKey:
    if stage not in STAGES:
        raise ValueError(f"stage = {shown(stage)} is none of {', '.join(STAGES)}")
    return TrialKey(proxy=_text(proxy), seed=_count(seed), rung=_count(rung, least=1), stage=stage)


class _Story:
    """What the rows of a trial come to, told one by one."""

    __slots__ = ("_result", "ended", "epochs", "key", "reason", "seconds", "started", "state")

    def __init__(self, key: TrialKey) -> None:
        self.key, self.state, self.reason = key, TrialState.RUNNING, ""
        self.epochs: list[EpochResult] = []
        self.seconds: float | None = None
        self.started: datetime | None = None
        self.ended: datetime | None = None
        self._result: TrialResult | None = None

    def tell(self, row: Row) -> bool:
        """One more row; returns whether it says something new that rests on what is there."""
        kind = row["kind"]
        if kind == "epoch":
            is_new = self._tell_epoch(_epoch(row), _real(row["seconds"]))
        elif kind == "started":
            is_new = self._tell_start(_moment(row["time"]))
        elif kind == "ended":
            epochs, seconds, ended = _count(row["epochs"]), _real(row["seconds"]), _moment(row["time"])
            is_new = self._tell_end(_state(row["state"]), _text(row["reason"]), epochs, seconds, ended)
        else:
            raise ValueError(f"kind = {shown(kind)} is none of bound, started, epoch, ended")
        if is_new:
            self._result = None
        return is_new

    def _tell_start(self, started: datetime) -> bool:
        if self.started is not None:
            return False
        self.started = started
        return True

    def _tell_epoch(self, epoch: EpochResult, seconds: float) -> bool:
        if self.ended is not None or epoch.epoch != len(self.epochs) + 1:
            return False
        self.epochs.append(epoch)
        self.seconds = seconds
        return True

    def _tell_end(self, state: TrialState, reason: str, epochs: int, seconds: float, ended: datetime) -> bool:
        if self.ended is not None or epochs != len(self.epochs):
            return False
        self.state, self.reason, self.seconds, self.ended = state, reason, seconds, ended
        return True

    @property
    def result(self) -> TrialResult:
        """What has been told, as a record."""
        self._result = self._result or TrialResult(
            key=self.key,
            state=self.state,
            epochs=tuple(self.epochs),
            reason=self.reason,
            seconds=self.seconds,
            started=self.started,
            ended=self.ended,
        )
        return self._result


def _epoch(row: Row) -> EpochResult:
    return EpochResult(
        epoch=_count(row["epoch"], least=1),
        train_loss=_real(row["train_loss"]),
        accuracy=_real(row["accuracy"]),
        loss=_real(row["loss"]),
    )


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"{shown(value)} is no text")
    return value


def _count(value: Any, least: int = 0) -> int:
    if type(value) is not int or not least <= value < 2**31:
        raise TypeError(f"{shown(value)} is no whole number from {least} on")
    return value


def _real(value: Any) -> float:
    if type(value) is not float:
        raise TypeError(f"{shown(value)} is no number with a point")
    return value


def _state(value: Any) -> TrialState:
    if value not in ENDS:
        raise ValueError(f"state = {shown(value)} is none of {', '.join(sorted(ENDS))}")
    return TrialState(value)


def _moment(value: Any) -> datetime:
    return datetime.fromisoformat(_text(value))


class Journal:
    """The journal of a run folder, held by its coordinator. An end is on the disk when the call returns.

    A tail that was torn by a loss of power or a kill is cut when the journal is opened.
    """

    def __init__(self, path: Path, tell: Told = lambda _: None, check: Callable[[], None] = lambda: None) -> None:
        """Open a journal, making it if there is none. A full disk is waited out, see `patiently`.

        Raises:
            StudyError: see `read_journal`; or it cannot be written.
        """
        self._found = _read(path)
        self._path, self._tell, self._check = path, tell, check
        self._since: dict[TrialKey, float] = {}
        if not path.exists():
            self._do(partial(write_whole, path, b""))
        self._file = self._do(partial(os.open, path, os.O_WRONLY | os.O_APPEND))
        self._do(partial(os.ftruncate, self._file, self._found.whole))

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
            self._do(partial(os.fsync, self._file))

    def start(self, key: TrialKey) -> None:
        """A trial starts, or goes on in this coordinator."""
        story = self._found.stories.get(astuple(key))
        spent = story.seconds if story and story.seconds else 0.0
        self._since[key] = time.monotonic() - spent
        self._note({"kind": "started", **asdict(key), "time": _now()})

    def report(self, key: TrialKey, result: EpochResult) -> bool:
        """An epoch of a trial is trained; returns False for one that is not the next."""
        return self._note({"kind": "epoch", **asdict(key), **asdict(result), "seconds": self._seconds(key)})

    def end(self, key: TrialKey, state: TrialState, reason: str = "") -> None:
        """Nothing more is to come of a trial. When this returns, that is on the disk."""
        said = {"state": state.value, "reason": reason, "epochs": len(self.result(key).epochs)}
        row = {"kind": "ended", **asdict(key), **said, "seconds": self._seconds(key), "time": _now()}
        if self._note(row):
            self._do(partial(os.fsync, self._file))

    def _seconds(self, key: TrialKey) -> float:
        return round(time.monotonic() - self._since[key], 6)

    def _note(self, row: Row) -> bool:
        if not self._found.tell(row):
            return False
        self._write(row)
        return True

    def _write(self, row: Row) -> None:
        left = _line(row)
        while left:
            left = left[self._do(partial(os.write, self._file, left)) :]

    def _do(self, act: Callable[[], T]) -> T:
        try:
            return patiently(act, self._path, self._tell, self._check)
        except OSError as error:
            raise StudyError(f"{self._path} cannot be written: {error.strerror}", mend="mend that and go on") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
