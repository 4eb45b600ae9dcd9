"""The engine of a run, from before its images are there to after its last trial: this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from scalesearch.agenda import Agenda, due_at_once, seeds_at_once
from scalesearch.engine.connecting import cluster_executor
from scalesearch.engine.local import LocalExecutor
from scalesearch.engine.pacing import arranged, is_open, measured
from scalesearch.engine.slots import Slot, local_slots
from scalesearch.engine.work import Cluster, Event, Executor, Probe
from scalesearch.files import Told
from scalesearch.pace import Pace
from scalesearch.plan import Layout, Plan
from scalesearch.presets import gpu_listed
from scalesearch.runfolder import write_plan
from scalesearch.travel import every_proxy

if TYPE_CHECKING:
    from scalesearch.engine.cluster import ClusterExecutor


@dataclass(frozen=True, slots=True, kw_only=True)
class Arranged:
    """An engine that is ready for a plan."""

    plan: Plan
    """With its pace."""
    executor: Executor
    slots: Sequence[Slot]
    sharing: int
    """Works that share the memory of a device."""


class Engine(Protocol):
    """Workers that load their libraries while images are prepared."""

    def arranged(
        self, plan: Plan, layout: Layout, now: Agenda, folder: Path, told: Told, measuring: Callable[[], None]
    ) -> Arranged:
        """Fix the pace of a plan, unless an earlier run has, and have the slots for it.

        Args:
            plan: what is trained.
            layout: its candidates.
            now: what is due of it.
            folder: the run folder, whose plan gets the pace.
            told: hears of a full disk.
            measuring: called before the pace is measured.
        """
        ...


@contextmanager
def engine(
    plan: Plan, layout: Layout, now: Agenda, cluster: Cluster | None, tell: Callable[[Event], None]
) -> Iterator[Engine]:
    """Workers for what is due of a plan, until the end of the context.

    Args:
        plan: what is trained.
        layout: its candidates.
        now: what is due of it.
        cluster: where; None = on this machine.
        tell: hears what happens on a cluster before there is a slot.

    Raises:
        StudyError: the plan counts on a GPU of this machine, and torch cannot use it.
        ClusterError: there is no such cluster, or it has no room for a trial.
    """
    if cluster is None:
        machine = local_slots(need_gpu=plan.preset == "standard" and gpu_listed())
        with closing(LocalExecutor(machine[: due_at_once(plan, layout)] if now.stage else [])) as executor:
            yield _OneMachine(executor, machine)
        return
    pace = _simple(plan, cluster)
    with cluster_executor(cluster, threads=pace.threads, most=now.most if now.stage else 0, tell=tell) as executor:
        yield _OnRay(executor, pace)


class _OneMachine:
    def __init__(self, executor: LocalExecutor, machine: list[Slot]) -> None:
        self._executor, self._machine = executor, machine

    def arranged(
        self, plan: Plan, layout: Layout, now: Agenda, folder: Path, told: Told, measuring: Callable[[], None]
    ) -> Arranged:
        if now.stage and plan.pace is None:
            plan = _written(plan, self._pace(plan, layout, measuring), folder, told)
        slots = arranged(self._machine, plan.pace or Pace())[: now.most]
        self._executor.arrange(slots if now.stage else [])
        sharing = max(1, sum(slot.device == slots[0].device for slot in slots))
        return Arranged(plan=plan, executor=self._executor, slots=slots, sharing=sharing)

    def _pace(self, plan: Plan, layout: Layout, measuring: Callable[[], None]) -> Pace:
        """Of a plan that no earlier run has measured."""
        largest = max(every_proxy(plan, layout), key=lambda one: one.cost.activations)
        probe = Probe(network=largest.network, recipe=plan.recipe, images=plan.images + plan.validation_images)
        given = {"seeds": seeds_at_once(plan), "threads": plan.threads, "together": plan.together}
        if is_open(self._machine, **given):
            measuring()
        return measured(self._executor, self._machine, probe, due=due_at_once(plan, layout), **given)


class _OnRay:
    def __init__(self, executor: ClusterExecutor, pace: Pace) -> None:
        self._executor, self._pace = executor, pace

    def arranged(
        self, plan: Plan, layout: Layout, now: Agenda, folder: Path, told: Told, measuring: Callable[[], None]
    ) -> Arranged:
        if plan.pace is None:
            plan = _written(plan, self._pace, folder, told)
        executor = self._executor
        return Arranged(plan=plan, executor=executor, slots=executor.slots, sharing=executor.sharing)


def _simple(plan: Plan, cluster: Cluster) -> Pace:
    """Nothing is measured where nodes may differ: what an earlier run or the user says, else the plainest way.

    Several GPUs share a batch by its micro-batches, which decide bits and stay with the plan, whatever GPUs come later.
    """
    part = -(-plan.recipe.batch_size // cluster.ranks)
    plain = Pace(
        threads=plan.threads or max(1, (cluster.cpus or 1) // cluster.ranks),
        together=plan.together or 1,
        micro_batch=max(2, part) if cluster.ranks > 1 else None,
    )
    return plan.pace or plain


def _written(plan: Plan, pace: Pace, folder: Path, told: Told) -> Plan:
    plan = replace(plan, pace=pace)
    write_plan(folder, plan, told)
    return plan
