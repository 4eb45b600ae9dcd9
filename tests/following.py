"""Searches without training whose study follows them, and what plain Optuna sees of it."""

import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path

import optuna
from test_search import REQUEST, Heard, Unruly

from scalesearch.engine.work import Event, Noticed
from scalesearch.journal import NAME, Journal
from scalesearch.mirror import Mirror
from scalesearch.pace import Pace
from scalesearch.plan import Layout, Plan
from scalesearch.request import resolve
from scalesearch.runfolder import bind_storage, claimed
from scalesearch.search import mirrored, search
from scalesearch.storage import Storage, in_folder
from scalesearch.stored import read_run

Seen = tuple[str, str, float | None]
"""Proxy, state and value of a trial."""


@cache
def small() -> tuple[Plan, Layout]:
    """Eight trials of two epochs."""
    plan, layout = resolve(replace(REQUEST, policy="grid", candidates=3, seeds=2))
    return replace(plan, pace=Pace()), layout


def searched(
    folder: Path, storage: Storage | None = None, heard: Callable[[Event], None] = lambda _: None
) -> tuple[list[str], Mirror]:
    """A whole search in a run folder, without training; returns what was noticed, and the study that follows it."""
    notices: list[str] = []

    def happened(event: Event) -> None:
        notices.extend([event.text] if isinstance(event, Noticed) else [])
        heard(event)

    plan, layout = small()
    with claimed(folder, plan), closing(Journal(folder / NAME)) as journal:
        study = mirrored(storage or in_folder(folder), plan, layout)
        engine = Unruly(2, random.Random(0))
        assert search(plan, layout, journal, study, engine, folder, Heard(happened), images=lambda _: folder)
    return notices, study


def begun(folder: Path, place: Storage | None = None) -> None:
    """A run folder before its first trial, with its study."""
    with claimed(folder, small()[0]), closing(Journal(folder / NAME)) as journal:
        study = mirrored(place or in_folder(folder), *small())
        if place:
            bind_storage(journal, place)
        study.follow(images="x")
        assert study.close(within=120)


def states(folder: Path) -> list[Seen]:
    """Proxy, state and value of every trial, as plain Optuna sees them."""
    return stored(f"sqlite:///{folder / 'study.db'}", "scalesearch")


def trials_of(url: str, name: str | None) -> list[optuna.trial.FrozenTrial]:
    """The trials of a study; without a name of the only one there. No connection stays open."""
    database = optuna.storages.RDBStorage(url)
    try:
        return optuna.load_study(study_name=name, storage=database).trials
    finally:
        database.remove_session()
        database.engine.dispose()


def stored(url: str, name: str) -> list[Seen]:
    """The same of any study."""
    trials = trials_of(url, name)
    return [(trial.user_attrs["proxy"], trial.state.name, trial.value) for trial in trials]


def expected(folder: Path) -> list[Seen]:
    """The same, by the journal."""
    names = {"failed": "FAIL"}
    results = read_run(folder).results
    return [(one.key.proxy, names.get(one.state, one.state.upper()), one.accuracy) for one in results]
