"""A run folder mended: its journal without damaged lines, its study as the journal has it."""

from __future__ import annotations

import csv
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import cast

from scalesearch.agenda import Agenda, agenda, player
from scalesearch.errors import ScaleSearchError, StudyError
from scalesearch.files import T, Told, patiently, settle, write_whole
from scalesearch.journal import NAME, Journal, Record, is_whole, refuse_link
from scalesearch.plan import Layout, Plan, lay_out, read_plan
from scalesearch.runfolder import bind_storage, held, is_torn, placed, recorded
from scalesearch.search import entries
from scalesearch.storage import Storage
from scalesearch.study import Study, is_damage, is_full, reach, reason
from scalesearch.trials import Stage, TrialKey, TrialResult, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What was found and done."""

    storage: str
    """Where the study is, without a password."""
    study: str
    """Name of the study there."""
    damaged: tuple[int, ...]
    """Lines of the journal that were left out, counted from 1."""
    is_torn: bool
    """Whether the last line of the journal was cut off."""
    trials: int
    """Trials of the study now."""
    added: int
    """Those that the study did not have."""
    changed: int
    """Those of which it had an earlier state."""
    ended: int
    """Trials of which nothing more is to come."""
    begun: tuple[TrialKey, ...]
    """Trials that have begun and not ended."""
    lost: tuple[TrialKey, ...]
    """Those of them that lack nothing but their end."""
    is_finished: bool
    """Whether nothing is left to train."""
    ahead: tuple[str, ...]
    """Trials that `trials.csv` has as ended and the journal has not."""
    aside: tuple[Path, ...]
    """Damaged files, where they are kept."""

    @property
    def waiting(self) -> int:
        """Trials that have not begun."""
        return self.trials - self.ended - len(self.begun)


def repair(folder: Path, url: str | None = None, told: Told = lambda _: None) -> Repaired:
    """Bring the study of a run folder to its journal, from nothing if it must be.

    Args:
        folder: the run folder; nobody else may work in it.
        url: of a PostgreSQL database for the study; None = where it is.
        told: hears of a full disk, which is waited for.

    Raises:
        StudyError: no run in that folder, one that is in use, or no place for its study.
    """
    plan = read_plan(folder)
    refuse_link(folder / NAME)  # what is refused changes nothing
    recorded(folder)
    placed(folder, url)
    with held(folder):
        record, place = recorded(folder), placed(folder, url)
        if place.file is None:
            reach(place)
        layout = lay_out(plan)
        now = agenda(plan, layout, record.results, player(plan, layout, record.decided))
        place, kept = _with_room(place, now, record.results, told)
        torn, aside = is_torn(folder, record), _mended(folder, record, told)
        with closing(Journal(folder / NAME, told)) as journal:
            bind_storage(journal, place)
            brought = _brought(place, plan, layout, now, journal, told)
            results = journal.results
    begun = [result for result in results if result.state is TrialState.RUNNING]
    ended = {str(result.key) for result in results if result.has_ended}
    return Repaired(
        storage=place.shown,
        study=place.study,
        damaged=record.damaged,
        is_torn=torn,
        trials=brought.trials,
        added=len(brought.added),
        changed=len(brought.changed - brought.added),
        ended=len(ended),
        begun=tuple(result.key for result in begun),
        lost=tuple(result.key for result in begun if len(result.epochs) == result.key.rung),
        is_finished=now.stage is None,
        ahead=tuple(name for name in _told_as_ended(folder / "trials.csv") if name not in ended),
        aside=(*aside, *kept),
    )


def _told_as_ended(table: Path) -> Iterator[str]:
    """Names of the trials that a table of them has as ended; none behind its first fault."""
    with suppress(OSError, ValueError, KeyError, TypeError, csv.Error):
        if table.is_file():
            with table.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    if row["state"] in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED):
                        key = TrialKey(proxy=row["proxy"], seed=int(row["seed"]), rung=int(row["epochs"]))
                        yield str(replace(key, stage=cast("Stage", row["stage"])))


def _mended(folder: Path, record: Record, told: Told) -> list[Path]:
    """Take damaged lines out of the journal; where it is kept as it was."""
    path = folder / NAME
    if not record.damaged:
        return []
    content, aside = path.read_bytes(), _beside(path)
    write_whole(aside, content, told)
    write_whole(path, b"".join(line + b"\n" for line in content.split(b"\n")[:-1] if is_whole(line)), told)
    return [aside]


def _unusable(place: Storage, error: Exception, what: str) -> StudyError:
    fault = f"the study in {place.shown} cannot be {what}: {reason(place, error)}"
    return StudyError(fault, mend="mend that, then repair again")


def _waiting(act: Callable[[], T], place: Storage, told: Told) -> T:
    """Do something with a study again and again until the disk of its file has room; a server sees to its own."""
    file = place.file
    if file is None:
        return act()

    def tried() -> T:
        try:
            return act()
        except Exception as error:
            if not is_full(error):
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file)) from error

    return patiently(tried, file, told)


def _with_room(place: Storage, now: Agenda, results: list[TrialResult], told: Told) -> tuple[Storage, list[Path]]:
    """A place whose study can be brought to the results, and the files that had to leave it.

    Raises:
        StudyError: the study cannot be looked at now, which says nothing of what it holds.
    """
    try:
        fits = _waiting(partial(_fits, place, now, results), place, told)
    except Exception as error:  # noqa: BLE001  whatever is in a damaged file
        if not is_damage(error):
            raise _unusable(place, error, "read") from None
        fits = False
    if fits:
        return place, []
    if place.file is None:  # what is there stays, under its name
        return replace(place, study=f"{place.study.rpartition('-')[0] or place.study}-{secrets.token_hex(4)}"), []
    aside = _beside(place.file)
    for end in ("-wal", "-shm", ""):
        part = place.file.with_name(place.file.name + end)
        if part.exists():
            part.rename(aside.with_name(aside.name + end))
    settle(place.file.parent)
    return place, [aside]


def _fits(place: Storage, now: Agenda, results: list[TrialResult]) -> bool:
    """Whether a study holds trials of a run alone, each once, and none that ended otherwise."""
    with closing(Study(place)) as study:
        is_ours = study.is_unique and set(study) <= set(now.planned)
        return is_ours and not any(map(study.contradicts, results))


def _beside(path: Path) -> Path:
    """A free name for a damaged file: `study.damaged-1.db`."""
    names = (path.with_name(f"{path.stem}.damaged-{number}{path.suffix}") for number in range(1, 10_000))
    return next(name for name in names if not name.exists())


@dataclass(slots=True)
class _Brought:
    """What a study has been brought to so far; behind a full disk it is opened anew and gone on with."""

    added: set[TrialKey] = field(default_factory=set[TrialKey])
    changed: set[TrialKey] = field(default_factory=set[TrialKey])
    trials: int = 0
    """Of the study, when all is done."""


def _brought(place: Storage, plan: Plan, layout: Layout, now: Agenda, journal: Journal, told: Told) -> _Brought:
    """Bring a study to a journal.

    Raises:
        StudyError: it cannot be written.
    """
    brought = _Brought()
    try:
        _waiting(partial(_bring, brought, place, plan, layout, now, journal), place, told)
    except ScaleSearchError:
        raise
    except Exception as error:  # noqa: BLE001  whatever a storage that goes away says
        raise _unusable(place, error, "written") from None
    return brought


def _bring(brought: _Brought, place: Storage, plan: Plan, layout: Layout, now: Agenda, journal: Journal) -> None:
    known = {result.key: result for result in journal.results}
    with closing(Study(place)) as study:
        for name, value in {**journal.bound, "left": [asdict(leave) for leave in now.search.leaves]}.items():
            study.attribute(name, value)
        new = {entry.key: entry for entry in entries(plan, layout, [key for key in now.planned if key not in study])}
        for key in now.planned:
            result = known.get(key) or TrialResult(key=key, state=TrialState.WAITING)
            if key in new:
                study.add(new[key], result)
                brought.added.add(key)
            elif study.bring(result):
                brought.changed.add(key)
        brought.trials = len(study)
