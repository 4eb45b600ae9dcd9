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
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from scalesearch.errors import StudyError, shown
from scalesearch.files import patiently, write_whole
from scalesearch.recipe import EpochResult
from scalesearch.trials import Stage, TrialKey, TrialResult, TrialState

NAME = "journal.jsonl"
"""File in the run folder."""
CHECK = b',"crc":"'
CHECKED = len(CHECK) + len(b'00000000"}')
"""Bytes of a line that hold its checksum."""
STAGES = get_args(Stage)
ENDS = frozenset({TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED})
Row = dict[str, Any]


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
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}", mend="mend its permissions") from None
    lines = content.split(b"\n")
    torn = len(lines.pop())
    trials: dict[TrialKey, TrialResult] = {}
    bound: dict[str, str] = {}
    damaged: list[int] = []
    keys: dict[tuple[Any, ...], TrialKey] = {}
    for number, line in enumerate(lines, start=1):
        if not is_whole(line):
            damaged.append(number)
            continue
        try:
            row = json.loads(line)
            if row["kind"] == "bound":
                bound[_text(row["part"])] = _text(row["value"])
            else:
                key = _known(row, keys)
                told = _told(trials.get(key), key, row)
                if told is not None:
                    trials[key] = told
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = f"no field {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
            raise StudyError(f"{path}, line {number}: {reason}", mend=f"remove line {number}") from None
    if lines and len(damaged) == len(lines):
        raise StudyError(f"{path} is damaged: none of its lines is whole", mend="restore it, or run into a new folder")
    return Record(trials=trials, bound=bound, damaged=tuple(damaged), whole=len(content) - torn)


def is_whole(line: bytes) -> bool:
    """Whether the checksum of a line is that of its content."""
    body, check = line[:-CHECKED], line[-CHECKED:]
    return check == b'%b%08x"}' % (CHECK, zlib.crc32(body))


def _line(row: Row) -> bytes:
    body = json.dumps(row, separators=(",", ":")).encode()[:-1]
    return b'%b%b%08x"}\n' % (body, CHECK, zlib.crc32(body))


def _known(row: Row, keys: dict[tuple[Any, ...], TrialKey]) -> TrialKey:
    """The key of a row, checked once for all its rows."""
    named = (row["proxy"], row["seed"], row["rung"], row["stage"])
    key = keys.get(named)
    if key is None:
        proxy, seed, rung, stage = named
        if stage not in STAGES:
            raise ValueError(f"stage = {shown(stage)} is none of {', '.join(STAGES)}")
        key = TrialKey(proxy=_text(proxy), seed=_count(seed), rung=_count(rung, least=1), stage=stage)
        keys[named] = key
    return key


def _told(before: TrialResult | None, key: TrialKey, row: Row) -> TrialResult | None:
    """What a trial has come to with one more row; None where that says nothing new, or rests on what is not there."""
    kind = row["kind"]
    now = before or TrialResult(key=key, state=TrialState.RUNNING)
    if kind == "started":
        started = _moment(row["time"])
        return replace(now, started=started) if before is None or before.started is None else None
    if kind == "epoch":
        epoch, seconds = _epoch(row), _real(row["seconds"])
        if now.has_ended or epoch.epoch != len(now.epochs) + 1:
            return None
        return replace(now, epochs=(*now.epochs, epoch), seconds=seconds)
    if kind == "ended":
        state, reason, epochs = _state(row["state"]), _text(row["reason"]), _count(row["epochs"])
        seconds, ended = _real(row["seconds"]), _moment(row["time"])
        if now.has_ended or epochs != len(now.epochs):
            return None
        return replace(now, state=state, reason=reason, seconds=seconds, ended=ended)
    raise ValueError(f"kind = {shown(kind)} is none of bound, started, epoch, ended")


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

    def __init__(self, path: Path, tell: Callable[[str], None] = lambda _: None) -> None:
        """Open a journal, making it if there is none; `tell` hears of a full disk, which is waited out.

        Raises:
            StudyError: see `read_journal`; or it cannot be written.
        """
        found = read_journal(path)
        self._trials, self._bound = dict(found.trials), dict(found.bound)
        self._tell = tell
        self._since: dict[TrialKey, float] = {}
        try:
            if not path.exists():
                patiently(partial(write_whole, path, b""), tell)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.ftruncate(self._file, found.whole)
        except OSError as error:
            raise StudyError(f"{path} cannot be written: {error.strerror}", mend="mend its permissions") from None

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    @property
    def results(self) -> list[TrialResult]:
        """Every trial that was started, in the order of the starts."""
        return list(self._trials.values())

    @property
    def bound(self) -> Mapping[str, str]:
        """What the run is tied to, by part."""
        return MappingProxyType(self._bound)

    def result(self, key: TrialKey) -> TrialResult:
        """What a trial that was started has come to."""
        return self._trials[key]

    def bind(self, part: str, value: str) -> None:
        """Tie the run to something, in the place of what it was tied to before."""
        if self._bound.get(part) != value:
            self._bound[part] = value
            self._write({"kind": "bound", "part": part, "value": value})
            self._settle()

    def start(self, key: TrialKey) -> None:
        """A trial starts, or goes on in this coordinator."""
        before = self._trials.get(key)
        spent = before.seconds if before and before.seconds else 0.0
        self._since[key] = time.monotonic() - spent
        self._note("started", key, time=_now())

    def report(self, key: TrialKey, result: EpochResult) -> bool:
        """An epoch of a trial is trained; returns False for one that is not the next."""
        return self._note("epoch", key, **asdict(result), seconds=self._seconds(key))

    def end(self, key: TrialKey, state: TrialState, reason: str = "") -> None:
        """Nothing more is to come of a trial. When this returns, that is on the disk."""
        epochs = len(self._trials[key].epochs)
        seconds = self._seconds(key)
        self._note("ended", key, state=state.value, reason=reason, epochs=epochs, seconds=seconds, time=_now())
        self._settle()

    def _seconds(self, key: TrialKey) -> float:
        return round(time.monotonic() - self._since[key], 6)

    def _note(self, kind: str, key: TrialKey, **said: object) -> bool:
        row = {"kind": kind, **asdict(key), **said}
        told = _told(self._trials.get(key), key, row)
        if told is None:
            return False
        self._trials[key] = told
        self._write(row)
        return True

    def _write(self, row: Row) -> None:
        left = _line(row)
        while left:
            left = left[patiently(partial(os.write, self._file, left), self._tell) :]

    def _settle(self) -> None:
        patiently(partial(os.fsync, self._file), self._tell)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
