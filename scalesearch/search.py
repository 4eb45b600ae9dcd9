"""The coordinator: hands trials to an engine and writes what comes back. The only writer of the study."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from scalesearch.agenda import Agenda, agenda
from scalesearch.blueprint import Architecture
from scalesearch.engine.work import Event, Executor, Failed, Finished, Progress, Started, Work
from scalesearch.levelling import Scaled
from scalesearch.plan import ANCHOR, Layout, Plan
from scalesearch.scaling import Coefficients, Multipliers
from scalesearch.study import Entry, Study
from scalesearch.travel import growth_checked, traveller
from scalesearch.trials import Stage, TrialKey

ATTEMPTS = 3
"""A trial is given up when it fails this often without finishing an epoch in between."""


def entries(plan: Plan, layout: Layout, keys: Sequence[TrialKey]) -> list[Entry]:
    """What the study keeps of trials, in their order."""
    networks = {(key.proxy, key.stage): key for key in keys}  # one key of each, whatever its seeds
    known = {name: scaled(key, plan, layout) for name, key in networks.items()}
    return [_entry(key, known[key.proxy, key.stage], plan, layout) for key in keys]


def _entry(key: TrialKey, one: Scaled, plan: Plan, layout: Layout) -> Entry:
    shares = None if key.proxy == ANCHOR else layout.candidate(key.proxy).shares
    same = Coefficients(alpha=1.0, beta=1.0, gamma=1.0)
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
    study: Study,
    executor: Executor,
    folder: Path,
    observer: Observer,
    *,
    images: Callable[[Stage], str],
    late: Callable[[], bool] = lambda: False,
) -> bool:
    """Train batch after batch, as the agenda has it, at most one trial per slot at a time, until nothing is left.

    Args:
        plan: what to train.
        layout: its candidates.
        study: the store; trials that a coordinator left running are taken up first.
        executor: where trials are trained.
        folder: the run folder.
        observer: hears of batches and events.
        images: name of the folder of a stage's prepared images, in the run folder.
        late: whether the time is over. Running trials stay in the study and go on when the plan is resumed.

    Returns:
        Whether all is done; False if time was over before.
    """
    again = deque(study.unfinished())
    _sweep(folder / "checkpoints", {_checkpoint(folder, key) for key in again})
    while True:
        now = agenda(plan, layout, study.results())
        study.leave(now.search.leaves)
        if now.stage is None:
            return True
        observer.planned(now)
        study.enqueue(entries(plan, layout, now.due))

        def work(key: TrialKey) -> Work:
            return _work(key, plan, scaled(key, plan, layout).network, folder / images(key.stage), folder)

        if not _drain(again, work, study, executor, observer, late, lambda event: _store(event, plan, study, folder)):
            return False


def _drain(
    again: deque[TrialKey],
    work: Callable[[TrialKey], Work],
    study: Study,
    executor: Executor,
    observer: Observer,
    late: Callable[[], bool],
    store: Callable[[Event], bool],
) -> bool:
    """Train until no trial waits or runs; returns False when the time is over."""
    failures: Counter[TrialKey] = Counter()
    while not late():
        while executor.idle and (key := again.popleft() if again else study.claim()) is not None:
            executor.submit(work(key))
            observer.happened(Started(key))
        if not executor.busy:
            return True
        for event in executor.events():
            judged = _judged(event, failures)
            if isinstance(judged, Failed) and not judged.final:
                again.append(judged.key)
            elif store(judged):
                del failures[judged.key]
            observer.happened(judged)
    return False


def _judged(event: Event, failures: Counter[TrialKey]) -> Event:
    """A failure is final at the last attempt."""
    if not isinstance(event, Failed):
        return event
    failures[event.key] += 1
    return replace(event, final=event.final or failures[event.key] >= ATTEMPTS)


def _store(event: Event, plan: Plan, study: Study, folder: Path) -> bool:
    """Write an event to the study; returns whether the trial got farther than ever before."""
    if isinstance(event, Progress):
        return study.report(event.key, event.result)
    if isinstance(event, Finished):
        study.complete(event.key, is_short=event.key.rung < plan.epochs)
        _checkpoint(folder, event.key).unlink(missing_ok=True)
    elif isinstance(event, Failed):
        study.fail(event.key, event.reason)
    return False


def _sweep(checkpoints: Path, wanted: set[Path]) -> None:
    """Remove what killed writers and finished trials left behind."""
    for path in checkpoints.iterdir():
        if path not in wanted and path.is_file():
            path.unlink()


def _checkpoint(folder: Path, key: TrialKey) -> Path:
    return folder / "checkpoints" / f"{key}.safetensors"


def _work(key: TrialKey, plan: Plan, network: Architecture, images: Path, folder: Path) -> Work:
    return Work(
        key=key,
        network=network,
        recipe=plan.recipe,
        data=images,
        checkpoint=_checkpoint(folder, key),
        log=folder / "logs" / f"{key}.log",
    )
