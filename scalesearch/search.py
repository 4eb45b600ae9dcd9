"""The coordinator: hands trials to an engine and writes what comes back. The only writer of the journal."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from scalesearch.agenda import Agenda, agenda, player
from scalesearch.engine.work import (
    KILLS,
    Event,
    Executor,
    Failed,
    Finished,
    Kept,
    Noticed,
    Progress,
    Started,
    TrialEvent,
    Work,
)
from scalesearch.errors import ClusterError, DataError, EngineError
from scalesearch.files import generations, remove
from scalesearch.journal import Journal
from scalesearch.levelling import Scaled
from scalesearch.mirror import Mirror
from scalesearch.pace import Group, Pace, grouped
from scalesearch.plan import ANCHOR, Layout, Plan
from scalesearch.runfiles import sweep_checkpoints
from scalesearch.scaling import Coefficients, Multipliers
from scalesearch.storage import Storage
from scalesearch.travel import growth_checked, traveller
from scalesearch.trials import Stage, TrialKey, TrialState

if TYPE_CHECKING:
    from scalesearch.study import Entry

GRACE = 20.0
"""Time that running trials are given to end behind a step [s]."""
ENDING = (DataError, EngineError, ClusterError)
"""Faults of an engine that end a search."""
ATTEMPTS = 3
"""A trial is given up when it fails this often without progress in between; `KILLS` where others end its worker."""


def entries(plan: Plan, layout: Layout, keys: Sequence[TrialKey]) -> list[Entry]:
    """What the study keeps of trials, in their order."""
    networks = {(key.proxy, key.stage): key for key in keys}  # one key of each, whatever its seeds
    known = {name: scaled(key, plan, layout) for name, key in networks.items()}
    return [_entry(key, known[key.proxy, key.stage], plan, layout) for key in keys]


def mirrored(storage: Storage, plan: Plan, layout: Layout) -> Mirror:
    """A study of a plan's trials that follows their journal."""
    return Mirror(storage, lambda keys: entries(plan, layout, keys))


def _entry(key: TrialKey, one: Scaled, plan: Plan, layout: Layout) -> Entry:
    shares = None if key.proxy == ANCHOR else layout.candidate(key.proxy).shares
    same = Coefficients(alpha=1.0, beta=1.0, gamma=1.0)
    from scalesearch.study import Entry  # optuna, which a search can do without for a while

    return Entry(
        key=key,
        rule=Coefficients.from_shares(shares, plan.space.budget) if shares else same,
        digest=one.network.digest,
        macs=one.cost.macs,
        growth=one.growth,
        target=growth_checked(plan) if key.stage == "travel" else plan.space.budget,
    )


def scaled(key: TrialKey, plan: Plan, layout: Layout) -> Scaled:
    """The network of a trial."""
    if key.proxy == ANCHOR:
        small = plan.proxy_base
        return Scaled(network=small.network, effective=Multipliers(), cost=small.cost, growth=1.0)
    one = layout.candidate(key.proxy)
    found = traveller(one, plan) if key.stage == "travel" else one.proxy
    assert found is not None
    return found


class Observer(Protocol):
    """What wants to know how a search goes."""

    def planned(self, now: Agenda) -> None:
        """A batch of trials is due."""

    def happened(self, event: Event) -> None:
        """A trial started, went on, finished or failed; told after it is stored."""


def search(
    plan: Plan,
    layout: Layout,
    journal: Journal,
    study: Mirror,
    executor: Executor,
    folder: Path,
    observer: Observer,
    *,
    images: Callable[[Stage], Path],
    sharing: int = 1,
    late: Callable[[], bool] = lambda: False,
    grace: Callable[[], float] = lambda: GRACE,
) -> bool:
    """Train batch after batch, as the agenda has it, at most one group of trials per slot at a time, to the end.

    Args:
        plan: what to train, and its pace.
        layout: its candidates.
        journal: what earlier runs of the plan have trained, and where this one writes.
        study: follows the journal.
        executor: where trials are trained.
        folder: the run folder.
        observer: hears of batches and events.
        images: the folder of a stage's prepared images.
        sharing: groups that share the memory of a device.
        late: whether the time is over. Running trials write a checkpoint and go on when the plan is resumed.
        grace: time that they are given for it [s].

    Returns:
        Whether all is done; False if time was over before.

    Raises:
        DataError: the prepared images are damaged.
        EngineError: workers cannot begin.
        ClusterError: a cluster has no room for a trial for long, or other versions than we.
    """
    pace = plan.pace or Pace()
    work = partial(_work, plan=plan, layout=layout, images=images, folder=folder, sharing=sharing)
    playing, told = player(plan, layout, journal.decided), 0
    while True:
        results = journal.results
        now = agenda(plan, layout, results, playing)
        journal.decide(playing.decided)
        study.plan(now.planned[told:])
        if not told:
            study.follow(*results, **journal.bound)
        told = len(now.planned)
        study.follow(left=[asdict(leave) for leave in now.search.leaves])
        ended = {result.key for result in results if result.has_ended}
        waiting = [group for group in grouped(now.due, pace.together) if not ended.issuperset(group)]
        wanted = {path for one in waiting for path in generations(_checkpoint(folder, one))}
        sweep_checkpoints(folder / "checkpoints", wanted, lambda text: observer.happened(Noticed(text)))
        if now.stage is None:
            return True
        observer.planned(now)
        forget = executor.forget
        batch = _Batch(waiting, ended, work, forget, journal, epochs=plan.epochs, study=study, observer=observer)
        if late() or not batch.train(executor, late, grace):
            return False


class _Batch:
    """Groups of trials up to the next decision.

    Slots are filled before anything is written, so that they train meanwhile. What is lost with a coordinator that ends
    in between is trained again: the journal knows of no trial more than it was told.
    """

    def __init__(
        self,
        waiting: Sequence[Group],
        ended: set[TrialKey],
        work: Callable[[Group], Work],
        forget: Callable[[Work], None],
        journal: Journal,
        *,
        epochs: int,
        study: Mirror,
        observer: Observer,
    ) -> None:
        self._waiting = deque(waiting)
        self._ended = ended
        self._groups = {key: group for group in waiting for key in group}
        self._work = work
        self._forget = forget
        self._epochs = epochs
        self._journal = journal
        self._study = study
        self._observer = observer
        self._failures: Counter[TrialKey] = Counter()
        self._kills: Counter[TrialKey] = Counter()
        self._kept: Counter[TrialKey] = Counter()
        self._started: deque[TrialKey] = deque()
        self._finished: set[TrialKey] = set()
        """Trials that an engine has told the end of, and all epochs before it."""

    def train(self, executor: Executor, late: Callable[[], bool], grace: Callable[[], float]) -> bool:
        """Until no trial waits or runs; returns False when the time is over before."""
        events: Sequence[Event] = ()
        while True:
            self._write(events)
            if late():
                self._halt(executor, grace())
                return False
            events = ()
            try:
                self.fill(executor)
                if not (executor.busy or self._waiting):  # what waits may wait for a slot that is to come
                    return True
                self._write(())
                events = executor.events()
                if not late():
                    self.fill(executor)
            except ENDING:
                self._write(events)
                self._halt(executor, GRACE)
                raise

    def _halt(self, executor: Executor, within: float) -> None:
        """Have running trials end behind a step, and write what they still tell."""
        if executor.busy:
            self._observer.happened(Noticed("stopping: each running trial writes a checkpoint behind its next step"))
        executor.stop(within)
        is_open = True
        while is_open:
            is_open = bool(executor.busy)  # once more behind the last: a fault may have kept what was collected
            with suppress(*ENDING):
                self._write(executor.events())

    def fill(self, executor: Executor) -> None:
        """Hand waiting groups to idle slots."""
        while executor.idle and self._waiting:
            group = self._waiting.popleft()
            executor.submit(self._work(group))
            self._started += (key for key in group if key not in self._ended)

    def _write(self, events: Sequence[Event]) -> None:
        """Write down what was started since, and then what happened."""
        while self._started:
            key = self._started.popleft()
            self._journal.start(key)
            self._study.follow(self._journal.result(key))
            self._observer.happened(Started(key))
        self._finished |= {event.key for event in events if isinstance(event, Finished)}
        for event in (*events, *map(Noticed, self._study.notices())):
            if isinstance(event, Noticed):
                self._observer.happened(event)
            elif event.key not in self._ended:  # of a group that goes on, some may have ended before
                self._note(self._judged(event))

    def _judged(self, event: TrialEvent) -> TrialEvent:
        """A failure is final at the last attempt; kills from outside are no fault of the trial, and counted apart."""
        if not isinstance(event, Failed) or not event.counts:
            return event
        suffered, most = (self._kills, KILLS) if event.is_kill else (self._failures, ATTEMPTS)
        suffered[event.key] += 1
        return replace(event, final=event.final or suffered[event.key] >= most)

    def _note(self, event: TrialEvent) -> None:
        group = self._groups[event.key]
        if isinstance(event, Failed) and not event.final:
            if group not in self._waiting:
                self._waiting.append(group)
        elif self._store(event):
            del self._failures[event.key], self._kills[event.key]
        if self._ended.issuperset(group):
            work = self._work(group)
            for generation in generations(work.checkpoint):
                remove(generation, lambda text: self._observer.happened(Noticed(text)))
            self._forget(work)
        self._observer.happened(event)

    def _store(self, event: TrialEvent) -> bool:
        """Write an event down; returns whether the trial got farther than ever before."""
        if isinstance(event, Kept):
            farther = event.step > self._kept[event.key]
            self._kept[event.key] = max(event.step, self._kept[event.key])
            return farther
        if isinstance(event, Progress):
            is_farther = self._journal.report(event.key, event.result)
        else:
            is_farther = False
            self._end(event)
        self._study.follow(self._journal.result(event.key))
        return is_farther

    def _end(self, event: TrialEvent) -> None:
        self._ended.add(event.key)
        if isinstance(event, Failed):
            self._journal.end(event.key, TrialState.FAILED, event.reason)
        else:
            is_short = event.key.rung < self._epochs
            beside = [key for key in self._groups[event.key] if key in self._finished and key not in self._ended]
            self._journal.end(event.key, TrialState.PRUNED if is_short else TrialState.COMPLETE, beside=beside)


def _checkpoint(folder: Path, group: Group) -> Path:
    return folder / "checkpoints" / f"{group[0]}.safetensors"


def _work(
    group: Group, plan: Plan, layout: Layout, images: Callable[[Stage], Path], folder: Path, sharing: int
) -> Work:
    pace = plan.pace or Pace()
    return Work(
        keys=group,
        network=scaled(group[0], plan, layout).network,
        recipe=plan.recipe,
        data=images(group[0].stage),
        checkpoint=_checkpoint(folder, group),
        log=folder / "logs" / f"{group[0]}.log",
        threads=pace.threads,
        micro_batch=pace.micro_batch,
        sharing=sharing,
    )
