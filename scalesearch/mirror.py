"""The study follows the search: a thread brings it to what the journal says, and the search never waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from scalesearch.storage import Storage
from scalesearch.trials import TrialKey, TrialResult, TrialState

if TYPE_CHECKING:
    from scalesearch.study import Entry, Study

SHARE = 0.01
"""Most of a core that the thread takes while a search runs: the longer it has written, the longer it rests."""
RESTS = (1.0, 60.0)
"""Shortest and longest rest between two looks at what has changed [s]."""
RETRY = 5.0
"""Time until a storage that is away is tried again [s]; a fifth of it at the end."""
STUCK = 20.0
"""Time after which a storage that does not answer is told of [s]."""
LINGER = 30.0
"""Most time that a finished search waits for its study [s]."""


class Mirror:
    """The study of a run, written behind its back. Every method but `close` returns at once."""

    def __init__(self, storage: Storage, describe: Callable[[Sequence[TrialKey]], list[Entry]]) -> None:
        """Have a thread open the study; `describe` says there what it keeps of trials."""
        self.storage = storage
        self._describe = describe
        self._changed = threading.Condition()
        self._due: dict[TrialKey, TrialResult] = {}
        self._attributes: dict[str, Any] = {}
        self._notices: list[str] = []
        self._is_ending = self._is_over = self._is_away = False
        self._since: float | None = None
        self._thread = threading.Thread(target=self._serve, name="study", daemon=True)
        self._thread.start()

    def plan(self, keys: Iterable[TrialKey]) -> None:
        """Have these trials, in this order; they wait unless more is known of them."""
        with self._changed:
            for key in keys:
                self._due.setdefault(key, TrialResult(key=key, state=TrialState.WAITING))
            self._changed.notify()

    def follow(self, *results: TrialResult, **attributes: Any) -> None:
        """Have these trials as they are now, and attributes of the study."""
        with self._changed:
            self._due |= {result.key: result for result in results}
            self._attributes |= attributes
            self._changed.notify()

    def notices(self) -> list[str]:
        """What a person should hear, once."""
        with self._changed:
            if self._since is not None and time.monotonic() - self._since > STUCK:
                self._away(f"is behind (a busy machine, or a lock): for {STUCK:g} s no answer")
            found, self._notices = self._notices, []
        return found

    def close(self, within: float = LINGER) -> bool:
        """Wait until the study has everything, for a time [s]; returns whether it has."""
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        self._thread.join(within)
        self._is_over = True
        return not (self._thread.is_alive() or self._due or self._attributes)

    def _away(self, fault: str) -> None:
        if not self._is_away:
            self._is_away = True
            text = f"the study in {self.storage.shown} {fault}"
            self._notices.append(f"{text}; the search goes on, the study follows when it can")

    def _serve(self) -> None:
        """The thread's life: until all is written and the search has ended."""
        study: Study | None = None
        while self._has_work():
            start, self._since = time.thread_time(), time.monotonic()
            try:
                study = study or _opened(self.storage)
                self._write(study)
            except Exception as error:  # noqa: BLE001  whatever the matter is, the search goes on without a study
                _closed(study)
                study = None
                self._rest(RETRY, after=_told(self.storage, error))
            else:
                self._rest(min(max((time.thread_time() - start) / SHARE, RESTS[0]), RESTS[1]))
        _closed(study)

    def _has_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._due or self._attributes or self._is_ending)
            return bool(self._due or self._attributes) and not self._is_over

    def _rest(self, seconds: float, after: str = "") -> None:
        """Wait for the next turn, at the end only if one has failed."""
        with self._changed:
            self._since = None
            if after:
                self._away(f"cannot be written: {after}")
            elif self._is_away:
                self._is_away = False
                self._notices.append("the study is written again")
            self._changed.wait_for(lambda: self._is_ending, seconds)
        if after and self._is_ending:
            time.sleep(RETRY / 5)

    def _write(self, study: Study) -> None:
        """All that is due; what a fault keeps from being written stays due."""
        with self._changed:
            attributes, keys = dict(self._attributes), list(self._due)
        for name, value in attributes.items():
            study.attribute(name, value)
        entries = {entry.key: entry for entry in self._describe([key for key in keys if key not in study])}
        for key in keys:
            if self._is_over:  # another coordinator may write by now
                return
            result = self._due[key]
            if key in entries:
                study.add(entries[key], result)
            else:
                study.bring(result)
            with self._changed:
                if self._due[key] is result:
                    del self._due[key]
        with self._changed:
            self._attributes = {k: value for k, value in self._attributes.items() if attributes.get(k) != value}


def _opened(storage: Storage) -> Study:
    from scalesearch.study import Study  # optuna is loaded while trials train already

    return Study(storage)


def _closed(study: Study | None) -> None:
    if study is not None:
        with suppress(Exception):  # a connection that is gone need not be closed
            study.close()


def _told(storage: Storage, error: Exception) -> str:
    from scalesearch.study import reason

    return reason(storage, error)
