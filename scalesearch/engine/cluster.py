"""The engine of a Ray cluster: a trainer per slot, placed by Ray wherever a node has room for it, now or later."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayError, RayTaskError

from scalesearch.engine.connecting import connected
from scalesearch.engine.local import Slot
from scalesearch.engine.node import Place, Report, Trainer, versions
from scalesearch.engine.work import Cluster, Event, Failed, Finished, Noticed, Work
from scalesearch.errors import EngineError
from scalesearch.proxy.images import ARRAYS, Images, open_images
from scalesearch.trials import TrialKey

MOMENT = 1.0
"""Most time that is waited for something to happen [s]."""
PATIENCE = 60.0
"""Time for a first slot [s]."""
AHEAD = 2
"""Reports that a trainer is asked for at a time, so that it need not wait for us between them."""


@dataclass(slots=True, eq=False)
class _Seat:
    """A trainer, or the wish for one that Ray has found no room for yet."""

    trainer: Any
    answers: deque[Any]
    """What it was asked for, in order."""
    node: str = ""
    """Ray's id of the node."""
    place: Place | None = None
    """None until it lives."""
    work: Work | None = None
    left: list[TrialKey] = field(default_factory=list)
    """Trials of the work that have not ended."""


class ClusterExecutor:
    """Trainers on the nodes of a cluster; those that are lost are replaced, and their trials go on elsewhere."""

    def __init__(self, cluster: Cluster, *, threads: int, most: int, patience: float = PATIENCE) -> None:
        """Wait for the first slot.

        Args:
            cluster: what a trial takes.
            threads: CPUs of a trial, unless the cluster says.
            most: slots that are of use.
            patience: time until the first one [s].

        Raises:
            EngineError: no node has room for a trial, or one has other versions of what decides bits.
        """
        gpus = cluster.gpus if cluster.gpus is not None else min(1.0, ray.cluster_resources().get("GPU", 0))
        self._needs = {"CPU": float(cluster.cpus or threads), "GPU": float(gpus)}
        self._kind = ray.remote(
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs["GPU"],
            max_restarts=0,
            concurrency_groups={"control": 1},
        )(Trainer)
        self._most = most
        self._seats: list[_Seat] = []
        self._shared: dict[str, Any] = {}
        """Images in Ray's object store, by fingerprint."""
        self._found: list[Event] = []
        self._end: float | None = None
        """When works that were told to stop are ended."""
        if most:
            self._wait_for_room(patience)

    def _wait_for_room(self, patience: float) -> None:
        end = time.monotonic() + patience
        while not self.idle:
            if time.monotonic() >= end:
                raise EngineError(
                    f"no node of the Ray cluster had {self._wanted()} free within {patience:.0f} s: {_nodes()}",
                    mend="add nodes, wait until they are free, or ask for less with --cpus-per-trial, --gpus-per-trial",
                )
            self._found += self.events()

    def _wanted(self) -> str:
        return " and ".join(f"{amount:g} {name}" for name, amount in self._needs.items() if amount)

    @property
    def slots(self) -> list[Slot]:
        """Those there are now."""
        places = [seat.place for seat in self._seats if seat.place]
        return [Slot(device=place.device, name=f"{place.name} ({place.host})") for place in places]

    @property
    def sharing(self) -> int:
        """Works beside each other on a GPU."""
        return max(1, int(1 / self._needs["GPU"])) if self._needs["GPU"] else 1

    @property
    def idle(self) -> int:
        """Slots without work."""
        return sum(seat.place is not None and seat.work is None for seat in self._seats)

    @property
    def busy(self) -> int:
        """Slots with work."""
        return sum(seat.work is not None for seat in self._seats)

    def submit(self, work: Work) -> None:
        """Start a work on an idle slot."""
        seat = next(seat for seat in self._seats if seat.place and seat.work is None)
        seat.work, seat.left = work, list(work.keys)
        seat.answers = deque([seat.trainer.begin.remote(work, open_images(work.data).fingerprint)])

    def events(self) -> list[Event]:
        """See `Executor`."""
        self._ask_for_room()
        asked = [seat.answers[0] for seat in self._seats if seat.answers]
        if asked:
            ray.wait(asked, timeout=MOMENT)
            there, _ = ray.wait(asked, num_returns=len(asked), timeout=0)
            for seat in [seat for seat in self._seats if seat.answers and seat.answers[0] in there]:
                self._receive(seat)
        found, self._found = self._found, []
        return found

    def _ask_for_room(self) -> None:
        """Have a trainer for each place that the cluster has in all, and one more for a node that may join."""
        total = ray.cluster_resources()
        rooms = [total.get(name, 0) / amount for name, amount in self._needs.items() if amount]
        while len(self._seats) < min(self._most, math.floor(min(rooms)) + 1):
            trainer = self._kind.remote(uses_gpu=self._needs["GPU"] > 0)
            self._seats.append(_Seat(trainer, deque([trainer.place.remote()])))

    def _receive(self, seat: _Seat) -> None:
        try:
            answer = ray.get(seat.answers.popleft())
        except RayTaskError as error:
            raise EngineError(f"a node of the Ray cluster cannot train: {_in_one_line(error.cause or error)}") from None
        except RayError as error:
            self._lose(seat, error)
            return
        if isinstance(answer, Place):
            self._settle(seat, answer)
        elif isinstance(answer, Report):
            self._hear(seat, answer)
        elif answer is False:
            seat.answers.append(self._begin_with_images(seat))
        elif answer is True:
            seat.answers.extend(seat.trainer.advance.remote() for _ in range(AHEAD))
        else:  # a moment without news
            seat.answers.append(seat.trainer.advance.remote())

    def _settle(self, seat: _Seat, place: Place) -> None:
        wrong = {
            f"{name} {place.versions.get(name)} there, {value} here"
            for name, value in versions().items()
            if place.versions.get(name) != value
        }
        if wrong:
            raise EngineError(f"node {place.host} has other versions: {', '.join(sorted(wrong))}", mend="install the same")
        seat.place = place

    def _begin_with_images(self, seat: _Seat) -> Any:
        """Begin on a node that does not see the folder of the images."""
        assert seat.work is not None
        images = open_images(seat.work.data)
        if images.fingerprint not in self._shared:
            arrays = {name: getattr(images, name).view(type=None) for name in ARRAYS}
            self._shared[images.fingerprint] = ray.put(Images(**arrays, fingerprint=images.fingerprint))
        return seat.trainer.begin.remote(seat.work, images.fingerprint, self._shared[images.fingerprint])

    def _hear(self, seat: _Seat, report: Report) -> None:
        assert seat.work is not None
        if report.trace:
            with seat.work.log.open("a", encoding="utf-8") as file:
                file.write(report.trace)
        ended = {event.key for event in report.events if isinstance(event, Finished | Failed)}
        seat.left = [key for key in seat.left if key not in ended]
        self._found += report.events
        if report.is_over:
            seat.work = None
            seat.answers.clear()
        else:
            seat.answers.append(seat.trainer.advance.remote())

    def _lose(self, seat: _Seat, error: RayError) -> None:
        """Give up a trainer that is no more: its trials go on elsewhere."""
        self._seats.remove(seat)
        ray.kill(seat.trainer)
        print("LOST", type(error), str(error), seat, ray.nodes())
        self._found += [Failed(key, "lost", final=False, counts=False) for key in seat.left]

    def close(self) -> None:
        """End every trainer at once; checkpoints stay."""
        for seat in self._seats:
            ray.kill(seat.trainer)
        self._seats = []


@contextmanager
def cluster_executor(cluster: Cluster, *, threads: int, most: int) -> Iterator[ClusterExecutor]:
    """Connect, and have trainers until all is done. See `connected` and `ClusterExecutor`."""
    with connected(cluster.address):
        executor = ClusterExecutor(cluster, threads=threads, most=most)
        try:
            yield executor
        finally:
            executor.close()


def _nodes() -> str:
    """What the nodes have in all, in few words."""
    found = [
        f"{node['Resources'].get('CPU', 0):g} CPU, {node['Resources'].get('GPU', 0):g} GPU"
        for node in ray.nodes()
        if node["Alive"]
    ]
    return f"{len(found)} nodes with {'; '.join(sorted(set(found)))}" if found else "it has no node"


def _in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
