"""The Optuna study of a run: what optuna-dashboard and others see of its journal. The only door to optuna.

Every step brings a trial nearer to what it ought to be and can be taken again: after a fault the study is opened anew,
and what it holds is looked up.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as Stored

from scalesearch.errors import StudyError
from scalesearch.files import FULL, write_whole
from scalesearch.levelling import TOLERANCE
from scalesearch.scaling import Coefficients
from scalesearch.space import LARGEST_BUDGET
from scalesearch.storage import Storage
from scalesearch.trials import TrialKey, TrialResult, TrialState

DISTRIBUTIONS: dict[str, optuna.distributions.BaseDistribution] = {
    **{
        name: optuna.distributions.FloatDistribution(1 / LARGEST_BUDGET, LARGEST_BUDGET)
        for name in ("alpha", "beta", "gamma")
    },
    "seed": optuna.distributions.IntDistribution(0, 2**31 - 1),
}
"""What the parameters of any study may be: trials come batch by batch, and Optuna wants one answer for all."""
STATES = {
    TrialState.WAITING: Stored.WAITING,
    TrialState.RUNNING: Stored.RUNNING,
    TrialState.COMPLETE: Stored.COMPLETE,
    TrialState.PRUNED: Stored.PRUNED,
    TrialState.FAILED: Stored.FAIL,
}
BUSY = 10.0
"""Time that SQLite waits for others who write, and that a server may take to let us in [s]."""

DAMAGES = ("SQLITE_ERROR", "SQLITE_CORRUPT", "SQLITE_NOTADB")
"""What SQLite says of a file without our tables, a damaged one, and one that is none of its own."""
MADE = ("23505", "42P07", "42710")
"""Codes that PostgreSQL has for a row, a table and a type which another client has made at the same moment."""
NO_ROOM = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")
"""What it says of a disk that has no room for the file or its log, and for the index of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the study keeps of a trial beside its results."""

    key: TrialKey
    rule: Coefficients
    """The rule of the proxy's shares."""
    digest: str
    """Of the trained network."""
    macs: int
    growth: float
    """Realised growth of the trained network."""
    target: float
    """Growth that it ought to have."""


class Study:
    """Trials by key, as Optuna stores them. Belongs to one thread; faults are those of the database (see `reason`)."""

    def __init__(self, storage: Storage) -> None:
        """Open the study, making it if there is none."""
        self._database = _database(storage)
        try:
            optuna.create_study(
                storage=self._database, study_name=storage.study, direction="maximize", load_if_exists=True
            )
            self._study = self._database.get_study_id_from_name(storage.study)
            self._attributes = self._database.get_study_user_attrs(self._study)
            trials = self._database.get_all_trials(self._study, deepcopy=False)
            self._trials = {_key(trial): trial for trial in trials}
            self.is_unique = len(self._trials) == len(trials)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the database."""
        _close(self._database)

    def __contains__(self, key: TrialKey) -> bool:
        return key in self._trials

    def __iter__(self) -> Iterator[TrialKey]:
        return iter(self._trials)

    def __len__(self) -> int:
        return len(self._trials)

    def attribute(self, name: str, value: Any) -> None:
        """Have an attribute of the study."""
        if self._attributes.get(name) != value:
            self._database.set_study_user_attr(self._study, name, value)
            self._attributes[name] = value

    def add(self, entry: Entry, result: TrialResult) -> None:
        """Have a trial that the study does not hold yet, as it is now."""
        trial = _template(entry, result)
        trial._trial_id = self._database.create_new_trial(self._study, trial)
        self._trials[entry.key] = trial

    def bring(self, result: TrialResult) -> bool:
        """Have a trial of the study in its state, with its epochs; returns whether it had to be changed.

        What has ended in a study is not changed any more.
        """
        trial, state = self._trials[result.key], STATES[result.state]
        if trial.state.is_finished() or state is Stored.WAITING:
            return False
        number = trial._trial_id
        is_behind = trial.state is not state
        if trial.state is Stored.WAITING:
            self._database.set_trial_state_values(number, Stored.RUNNING)
            trial.state = Stored.RUNNING
        for name, value in _said(result).items():
            if trial.user_attrs.get(name) != value:
                self._database.set_trial_user_attr(number, name, value)
                trial.user_attrs[name] = value
                is_behind = True
        for epoch in result.epochs[len(trial.intermediate_values) :]:
            self._database.set_trial_intermediate_value(number, epoch.epoch, epoch.accuracy)
            trial.intermediate_values[epoch.epoch] = epoch.accuracy
        if state.is_finished():
            self._database.set_trial_state_values(number, state, _values(result))
            trial.state = state
        return is_behind

    def contradicts(self, result: TrialResult) -> bool:
        """Whether a trial has ended in the study otherwise than it did."""
        trial = self._trials.get(result.key)
        if trial is None or not trial.state.is_finished():
            return False
        said = {name: trial.user_attrs.get(name) for name in ("epochs", "reason") if name in trial.user_attrs}
        return trial.state is not STATES[result.state] or said != _said(result)


def reason(storage: Storage, error: BaseException) -> str:
    """What a database says, in one line without passwords."""
    inner = _said_by(error)
    return storage.told(inner) or type(inner).__name__


def is_damage(error: BaseException) -> bool:
    """Whether a fault comes of what a study holds, and not of a lock, a permission, a disk or a connection."""
    inner = _said_by(error)
    if isinstance(inner, sqlite3.Error):
        return getattr(inner, "sqlite_errorname", DAMAGES[0]).startswith(DAMAGES)  # none for text that is no UTF-8
    return not isinstance(inner, OSError) and not hasattr(error.__cause__ or error, "orig")


def is_full(error: BaseException) -> bool:
    """Whether a fault comes of a disk without room for the file of a study."""
    inner = _said_by(error)
    if isinstance(inner, OSError):
        return inner.errno in FULL
    return getattr(inner, "sqlite_errorname", "") in NO_ROOM


def _said_by(error: BaseException) -> BaseException:
    """The fault as the driver of the database raised it."""
    inner = error.__cause__ or error
    return getattr(inner, "orig", None) or inner


def reach(storage: Storage) -> None:
    """Look for a study once, making none; where there are no tables of Optuna yet, they are made.

    Raises:
        StudyError: it could not be had.
    """
    with _named(storage):
        database = _database(storage)
        try:
            with suppress(KeyError):
                database.get_study_id_from_name(storage.study)
        finally:
            _close(database)


def try_out(storage: Storage) -> None:
    """Open a study once, making it if there is none.

    Raises:
        StudyError: it cannot be had.
    """
    with _named(storage):
        Study(storage).close()


@contextmanager
def _named(storage: Storage) -> Iterator[None]:
    """Faults inside are told of in one line, with their mend."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  whatever a driver or a server says, each of its own kind
        if isinstance(_said_by(error), ModuleNotFoundError):
            raise StudyError("--storage needs psycopg", mend="pip install 'scalesearch[postgres]'") from None
        raise StudyError(
            f"no study can be kept in {storage.shown}: {reason(storage, error)}",
            mend="mend the URL or the server, or leave out --storage for a file in the run folder",
        ) from None


def _database(storage: Storage, attempts: int = 5) -> optuna.storages.RDBStorage:
    """The database, with Optuna's tables; runs that begin together in an empty one make them one step each."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if storage.file is not None and _is_unmade(storage.file):
        _make(storage.file)
    try:
        return optuna.storages.RDBStorage(_address(storage), engine_kwargs=_engine(storage))
    except Exception as error:
        if attempts == 1 or getattr(_said_by(error), "sqlstate", "") not in MADE:
            raise
    return _database(storage, attempts - 1)


def _is_unmade(path: Path) -> bool:
    """Whether there is no file, or an empty one, as whoever looks too early makes it."""
    return not os.path.lexists(path) or (path.is_file() and not path.stat().st_size)


def _make(path: Path) -> None:
    """Make the file of a study, with Optuna's tables, whole or not at all.

    In its place SQLite would make them one by one. A kill or a full disk between a table and its indexes leaves one
    without them for good, and then a study of the same name may be there twice.
    """
    memory = sqlite3.connect(":memory:")
    database = optuna.storages.RDBStorage("sqlite://", {"creator": lambda: memory})
    content = memory.serialize()
    _close(database)
    for end in ("-wal", "-shm", "-journal"):  # of a file that is gone: SQLite would read them into this one
        path.with_name(path.name + end).unlink(missing_ok=True)
    write_whole(path, content)


def _close(database: optuna.storages.RDBStorage) -> None:
    database.remove_session()
    database.engine.dispose()


def _address(storage: Storage) -> str:
    return storage.url.replace("postgresql://", "postgresql+psycopg://", 1)


ALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
"""Has a connection end within about a minute whose other side is gone without a word [s; the last one ms]."""


def _engine(storage: Storage) -> dict[str, Any]:
    """Options of the database; a file is opened by a function, so that its path may hold any character."""
    if storage.file:
        path = storage.file
        return {"creator": lambda: _connected(path)}
    return {"pool_pre_ping": True, "connect_args": {"connect_timeout": round(BUSY), **ALIVE}}


def _connected(path: Path) -> sqlite3.Connection:
    """With a log beside the file: who reads never holds up who writes."""
    connection = sqlite3.connect(path, timeout=BUSY, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _key(trial: FrozenTrial) -> TrialKey:
    stored = trial.user_attrs
    return TrialKey(proxy=stored["proxy"], seed=stored["seed"], rung=stored["rung"], stage=stored["stage"])


def _said(result: TrialResult) -> dict[str, Any]:
    """Attributes that come of the training."""
    epochs = {"epochs": [asdict(epoch) for epoch in result.epochs]} if result.epochs else {}
    return epochs | ({"reason": result.reason} if result.reason else {})


def _values(result: TrialResult) -> list[float] | None:
    return None if result.accuracy is None else [result.accuracy]


def _template(entry: Entry, result: TrialResult) -> FrozenTrial:
    """A trial as Optuna keeps it, with the times of the journal."""
    costs = {"digest": entry.digest, "macs": entry.macs, "growth": entry.growth, "target": entry.target}
    trial = optuna.trial.create_trial(
        state=STATES[result.state],
        values=_values(result),
        params={**asdict(entry.rule), "seed": entry.key.seed},
        distributions=DISTRIBUTIONS,
        user_attrs={**asdict(entry.key), **costs, **_said(result)},
        constraints={"compute": abs(entry.growth / entry.target - 1) - TOLERANCE},
        intermediate_values={epoch.epoch: epoch.accuracy for epoch in result.epochs},
    )
    local = [one and one.astimezone().replace(tzinfo=None) for one in (result.started, result.ended)]
    trial.datetime_start, trial.datetime_complete = local  # Optuna's own are local times without a zone
    return trial
