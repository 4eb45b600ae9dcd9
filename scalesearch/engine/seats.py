"""Places on a Ray cluster where trials are trained: a trainer each, or one for every GPU that a trial takes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from scalesearch.engine.afar import Afar
from scalesearch.engine.node import Place, Trainer, versions
from scalesearch.engine.watch import Watch
from scalesearch.engine.work import UNBORN, Work
from scalesearch.errors import ClusterError
from scalesearch.trials import TrialKey

REST = 60.0
"""Time in which no room is asked for, behind seats that ended one after another [s]."""


@dataclass(slots=True)
class Answers:
    """What tells that a trainer lives."""

    value: int = 0
    """Answers to a work."""


class RayTrainer(Trainer):
    """A trainer that knows where its node is."""

    def open_here(self, count: int) -> str:
        """See `Trainer.open`."""
        return self.open(ray.util.get_node_ip_address(), count)


@dataclass(slots=True, eq=False)
class Seat:
    """A trainer, or the wish for one that Ray has found no room for yet; one for each GPU of its trials."""

    trainer: Any
    others: list[Any]
    """Trainers that follow the first."""
    group: PlacementGroup | None
    """Where they are placed, all or none."""
    asked: deque[Any]
    """What is to be answered, in order."""
    answers: Answers
    watch: Watch
    place: Place | None = None
    """None until it lives."""
    work: Work | None = None
    left: list[TrialKey] = field(default_factory=list)
    """Trials of the work that have not ended."""
    following: dict[Any, Any] = field(default_factory=dict)
    """What the others are asked, with whom."""
    late: float = 0.0
    """Time that they have been at a work which is over [s]."""
    charge: tuple[float, str] | None = None
    """Of what its work has failed, which counts from that time on [s], unless a trainer turns out to be lost."""

    @property
    def is_idle(self) -> bool:
        """Whether it can take up a work."""
        return self.place is not None and self.work is None and not self.following

    def is_held(self, passed: float, limit: float) -> bool:
        """Whether others are at a work that is over for too long [s], so many seconds after the last look."""
        self.late = self.late + passed if self.place and self.work is None and self.following else 0.0
        return self.late > limit

    def free(self) -> None:
        """Have no work any more."""
        self.work, self.left = None, []
        self.asked.clear()

    def end(self) -> None:
        """End every trainer at once. Places of several are given back by the coordinator, or with the job."""
        for trainer in (self.trainer, *self.others):
            ray.kill(trainer)


class Unborn:
    """Seats that end one after another before they can take up work."""

    def __init__(self) -> None:
        self.refusal: ClusterError | None = None
        """What is wrong with the nodes that have answered, while no seat lives."""
        self._awaited: Sequence[Seat] = ()
        """Those that may still be on another node."""
        self._count, self._resting = 0, 0.0

    @property
    def is_resting(self) -> bool:
        """Whether no room is to be asked for."""
        return time.monotonic() < self._resting

    def clear(self) -> None:
        """One can take up work."""
        self.refusal, self._count = None, 0

    def add(self, fault: ClusterError, others: Sequence[Seat], *, may_pass: bool) -> bool:
        """One has ended.

        Args:
            fault: by what.
            others: seats that there are besides.
            may_pass: whether it may have been bad luck.

        Returns:
            Whether it was not.

        Raises:
            ClusterError: nor can any other take up work. Those who have not answered when the first one fails may be
                on nodes that take longer to start; one for which there was no room gets that of another which fails.
        """
        self._count += 1
        is_bad_luck = may_pass and self._count < UNBORN and self.refusal is None
        if self._count >= UNBORN:
            self._count, self._resting = 0, time.monotonic() + REST
        if not is_bad_luck and not any(other.place for other in others):
            if self.refusal is None:
                self.refusal, self._awaited = fault, [*others]
            if not any(other in self._awaited for other in others):
                raise self.refusal
        return not is_bad_luck


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What the seats of a run are like."""

    needs: dict[str, float]
    """What a trial takes of Ray's resources."""
    ranks: int
    """Trainers of a seat."""
    afar: Afar | None
    """Where checkpoints are kept, if not in the run folder."""

    @property
    def wanted(self) -> str:
        """What a trial takes, in words."""
        return " and ".join(f"{amount:g} {name}" for name, amount in self.needs.items() if amount)

    def seat(self, silence: float) -> Seat:
        """The wish for a seat; one that says nothing for so long [s] hangs."""
        each = {name: amount / self.ranks for name, amount in self.needs.items()}
        kind: Any = ray.remote(
            num_cpus=each["CPU"], num_gpus=each["GPU"], max_restarts=0, concurrency_groups={"control": 1}
        )(RayTrainer)  # pyright: ignore[reportCallIssue]  its stubs know fewer options than Ray
        answers, arguments = Answers(), {"uses_gpu": self.needs["GPU"] > 0, "afar": self.afar}
        watch = Watch(answers, silence)
        if self.ranks == 1:
            trainer = kind.remote(**arguments)
            return Seat(trainer, [], None, deque([trainer.place.remote()]), answers, watch)
        group = placement_group([each] * self.ranks, strategy="PACK")
        bundles = [PlacementGroupSchedulingStrategy(group, index) for index in range(self.ranks)]
        trainer, *others = [kind.options(scheduling_strategy=bundle).remote(**arguments) for bundle in bundles]
        return Seat(trainer, others, group, deque([trainer.open_here.remote(self.ranks)]), answers, watch)


def other_versions(place: Place) -> str:
    """Of which libraries that decide bits a node has other versions, in a line; empty if of none."""
    ours = versions()
    wrong = [f"{name} {place.versions[name]} there, {ours[name]} here" for name in ours
             if place.versions[name] != ours[name]]  # fmt: skip
    return f"node {place.host} of the Ray cluster has other versions: {', '.join(wrong)}" if wrong else ""
