"""The coordinator: hands trials to an engine and writes what comes back. The only writer of the study."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from scalesearch.blueprint import Architecture
from scalesearch.engine.work import Event, Executor, Failed, Finished, Progress, Started, Work
from scalesearch.levelling import Scaled
from scalesearch.plan import ANCHOR, Layout, Plan
from scalesearch.scaling import Coefficients, Multipliers
from scalesearch.study import Entry, Study
from scalesearch.trials import TrialKey

ATTEMPTS = 3
"""A trial is given up when it fails this often without finishing an epoch in between."""


def entries(plan: Plan, layout: Layout) -> list[Entry]:
    """Every trial of a plan in canonical order: a seed of the anchor and of every proxy, then the next seed."""
    small = plan.proxy_base
    anchor = Scaled(network=small.network, effective=Multipliers(), cost=small.cost, growth=1.0)
    arms = [(ANCHOR, Coefficients(alpha=1.0, beta=1.0, gamma=1.0), anchor)]
    for name in layout.trained:
        one = layout.candidate(name)
        arms.append((name, Coefficients.from_shares(one.shares, plan.space.budget), one.proxy))
    return [
        Entry(
            key=TrialKey(proxy=name, seed=seed, rung=plan.epochs),
            rule=rule,
            digest=proxy.network.digest,
            macs=proxy.cost.macs,
            growth=proxy.growth,
        )
        for seed in range(plan.seeds)
        for name, rule, proxy in arms
    ]


def search(
    plan: Plan, layout: Layout, study: Study, executor: Executor, folder: Path, observe: Callable[[Event], None]
) -> None:
    """Train what is not trained yet, at most one trial per slot at a time, until nothing is left.

    Args:
        plan: what to train.
        layout: its candidates.
        study: the store; trials that a coordinator left running are taken up first.
        executor: where trials are trained.
        folder: the run folder, with the prepared images in `data`.
        observe: called with every event, after it is stored.
    """
    study.enqueue(entries(plan, layout))
    again = deque(study.unfinished())
    _sweep(folder / "checkpoints", {_checkpoint(folder, key) for key in again})
    failures: Counter[TrialKey] = Counter()
    while True:
        while executor.idle and (key := again.popleft() if again else study.claim()) is not None:
            executor.submit(_work(key, plan, layout, folder))
            observe(Started(key))
        if not executor.busy:
            return
        for event in executor.events():
            judged = _judged(event, failures)
            if isinstance(judged, Failed) and not judged.final:
                again.append(judged.key)
            elif _store(judged, study, folder):
                del failures[judged.key]
            observe(judged)


def _judged(event: Event, failures: Counter[TrialKey]) -> Event:
    """A failure is final at the last attempt."""
    if not isinstance(event, Failed):
        return event
    failures[event.key] += 1
    return replace(event, final=event.final or failures[event.key] >= ATTEMPTS)


def _store(event: Event, study: Study, folder: Path) -> bool:
    """Write an event to the study; returns whether the trial got farther than ever before."""
    if isinstance(event, Progress):
        return study.report(event.key, event.result)
    if isinstance(event, Finished):
        study.complete(event.key)
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


def _work(key: TrialKey, plan: Plan, layout: Layout, folder: Path) -> Work:
    return Work(
        key=key,
        network=_network(key, plan, layout),
        recipe=plan.recipe,
        data=folder / "data",
        checkpoint=_checkpoint(folder, key),
        log=folder / "logs" / f"{key}.log",
    )


def _network(key: TrialKey, plan: Plan, layout: Layout) -> Architecture:
    return plan.proxy_base.network if key.proxy == ANCHOR else layout.candidate(key.proxy).proxy.network
