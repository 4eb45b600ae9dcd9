"""The engine of a Ray cluster: a trainer per slot, placed by Ray wherever a node has room for it, now or later."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, remove_placement_group

from scalesearch.engine.ferry import Store
from scalesearch.engine.head import Head
from scalesearch.engine.local import SILENCE
from scalesearch.engine.node import Place, Report
from scalesearch.engine.seats import Kind, Seat, Unborn, other_versions
from scalesearch.engine.slots import Slot
from scalesearch.engine.tidings import Tidings
from scalesearch.engine.watch import Looks
from scalesearch.engine.work import Cluster, Event, Failed, Finished, Noticed, Work
from scalesearch.errors import ClusterError, DataError, EngineError
from scalesearch.files import append
from scalesearch.proxy.images import ARRAYS, Images, open_images

MOMENT = 1.0
"""Most time that is waited for something to happen [s]."""
PATIENCE = 600.0
"""Time that a slot is waited for while there is none: an autoscaler takes minutes for a node [s]."""
TOLD = 10.0
"""Time after which people hear of that [s]."""
HEADLESS = 10.0
"""Most time to stop in where the head is gone: Ray ends the program soon [s]."""
JUDGED = 30.0
"""Time in which Ray tells of a trainer that is lost, behind the others of its trial, which fail for want of it [s]."""
AHEAD = 2
"""Reports that a trainer is asked for at a time, so that it need not wait for us between them."""
NODE_DIED = "node has died"
"""What Ray says of a worker that ended because its node did."""


class ClusterExecutor:
    """Trainers on the nodes of a cluster; those that are lost are replaced, and their trials go on elsewhere."""

    def __init__(self, cluster: Cluster, *, threads: int, most: int, tell: Callable[[Event], None]) -> None:
        """Wait for the first slot.

        Args:
            cluster: what a trial takes.
            threads: CPUs of a trial, unless the cluster says.
            most: slots that are of use.
            tell: hears what happens meanwhile.

        Raises:
            ClusterError: no node has room for a trial, or one has other versions of what decides bits.
            EngineError: the head of the cluster is gone.
        """
        self._where, self._head = cluster.address or "this machine", Head()
        self._spent: list[PlacementGroup] = []
        """Places that are to be given back."""
        self._settled = 0
        """Answers of the head after which it may be asked for room."""
        gpus = cluster.gpus if cluster.gpus is not None else min(1.0, self._head.total("GPU"))
        self._store = Store(cluster.checkpoints)
        needs = {"CPU": float(cluster.cpus or threads * cluster.ranks), "GPU": float(gpus)}
        self._kind = Kind(needs=needs, ranks=cluster.ranks, afar=self._store.afar)
        self._most = most
        self._seats: list[Seat] = []
        self._shared: dict[str, Any] = {}
        """Images in Ray's object store, by fingerprint."""
        self._found = Tidings(*self._store.swept())
        self._unborn = Unborn()
        self._end: float | None = None
        """When works that were told to stop are ended."""
        self._looks = Looks(2 * MOMENT)
        self._roomy = self._looks.last
        """When there was a slot."""
        if most and cluster.address is None and not self._head.rooms(needs):
            raise self._head.no_room(self._kind.wanted, "has")
        while most and not self.idle:
            for event in self.events():
                tell(event)

    @property
    def slots(self) -> list[Slot]:
        """Those there are now."""
        places = [seat.place for seat in self._seats if seat.place]
        return [Slot(device=place.device, name=f"{place.name} ({place.host})") for place in places]

    @property
    def sharing(self) -> int:
        """Works beside each other on a GPU."""
        return max(1, int(1 / self._kind.needs["GPU"])) if self._kind.needs["GPU"] else 1

    @property
    def idle(self) -> int:
        """Slots without work."""
        return sum(seat.is_idle for seat in self._seats)

    @property
    def busy(self) -> int:
        """Slots with work."""
        return sum(seat.work is not None for seat in self._seats)

    def submit(self, work: Work) -> None:
        """Start a work on an idle slot; not after `stop`."""
        seat = next(seat for seat in self._seats if seat.is_idle)
        fingerprint, work = open_images(work.data).fingerprint, work.from_anywhere
        seat.work, seat.left = work, list(work.keys)
        seat.watch.begin()
        seat.asked = deque([seat.trainer.begin.remote(work, fingerprint)])
        seat.following = {other.follow.remote(work, fingerprint): other for other in seat.others}

    def events(self) -> list[Event]:
        """See `Executor`."""
        self._pass()
        self._found.add(*self._store.heard())
        return self._found.taken()

    def _pass(self) -> None:
        """Hear what trainers answer, for a moment at most."""
        self._ask_for_room()
        asked = [one for seat in self._seats for one in (*[*seat.asked][:1], *seat.following)]
        if asked:
            ray.wait(asked, timeout=MOMENT)
            there, _ = ray.wait(asked, num_returns=len(asked), timeout=0)
            for seat in list(self._seats):
                if seat.asked and seat.asked[0] in there:
                    self._receive(seat, seat.asked.popleft())
                for answer in [answer for answer in seat.following if answer in there]:
                    if seat in self._seats:  # what came before may have been the end of it
                        self._receive(seat, answer)
        elif self._most and not self._seats:
            time.sleep(MOMENT)
        self._look()

    def _ask_for_room(self) -> None:
        """Have a trainer for each place that the cluster has in all, and one more for a node that may join.

        After a loss the head has to answer first: it may be lost too, and would hold whoever asks for room.
        """
        if self._head.answers < self._settled:
            return
        while self._spent:
            remove_placement_group(self._spent.pop())
        if self._unborn.is_resting:
            return
        while len(self._seats) < min(self._most, self._head.rooms(self._kind.needs) + 1):
            self._seats.append(self._kind.seat(SILENCE))

    def _receive(self, seat: Seat, asked: Any) -> None:
        """Hear what a trainer of a seat was asked; `asked` is no longer among what the first one is to answer."""
        other = seat.following.pop(asked, None)
        try:
            answer = ray.get(asked)
        except RayTaskError as error:
            self._fail(seat, error)
            return
        except RayError as error:
            self._lose(seat, error)
            return
        if other is not None:
            self._hear_other(seat, other, answer)
            return
        seat.answers.value += 1
        if isinstance(answer, str):
            self._gather(seat, answer)
        elif isinstance(answer, Place):
            self._hear_place(seat, answer, is_first=True)
        elif isinstance(answer, Report):
            self._hear(seat, answer)
        elif answer is False:
            seat.asked.append(seat.trainer.begin.remote(*self._with_images(seat)))
        elif answer is True:
            seat.asked.extend(seat.trainer.advance.remote() for _ in range(AHEAD))

    def _fail(self, seat: Seat, error: RayTaskError) -> None:
        """Hear what a trainer could not make a report of."""
        if isinstance(error.cause, DataError):
            seat.free()
            raise error.cause from None
        reason = f"{type(error.cause).__name__}: {' '.join(str(error.cause).split())}"
        if seat.place is None or seat.work is None:
            return self._end_unborn(seat, f"a node of the Ray cluster cannot train: {reason}")
        append(seat.work.log, str(error))
        self._charge(seat, f"worker on {seat.place.host} failed: {reason}")

    def _hear_place(self, seat: Seat, place: Place, *, is_first: bool) -> None:
        """Hear of a trainer that lives; where its node is unlike ours, only others can train."""
        if fault := other_versions(place):
            self._end_unborn(seat, fault, mend="install the same everywhere", may_pass=False)
            return
        seat.place = place if is_first else seat.place
        if seat.is_idle:
            self._unborn.clear()

    def _end_unborn(self, seat: Seat, fault: str, mend: str = "see Ray's logs of it", *, may_pass: bool = True) -> None:
        """Replace a seat that cannot take up work; give up where nobody else can either, and it was not bad luck."""
        self._dismiss(seat, "", counts=False)
        if self._unborn.add(ClusterError(fault, mend=mend), self._seats, may_pass=may_pass):
            self._found.add(Noticed(f"{fault}; the others go on"))

    def _gather(self, seat: Seat, address: str) -> None:
        """Have the trainers of a seat meet."""
        seat.asked.append(seat.trainer.meet.remote(address, 0, self._kind.ranks))
        for rank, other in enumerate(seat.others, 1):
            seat.following[other.meet.remote(address, rank, self._kind.ranks)] = other

    def _hear_other(self, seat: Seat, other: Any, answer: Any) -> None:
        if isinstance(answer, Place):
            self._hear_place(seat, answer, is_first=False)
        elif answer is False and seat.work is not None:
            seat.following[other.follow.remote(*self._with_images(seat))] = other

    def _with_images(self, seat: Seat) -> tuple[Work, str, Any]:
        """A seat's work, where its node does not see the folder of the images: Ray's object store holds them, once."""
        work = seat.work
        assert work is not None
        try:
            fingerprint = open_images(work.data).fingerprint
            if fingerprint not in self._shared:
                images = open_images(work.data, verify=True)  # what a map cannot read ends the process
                arrays = {name: getattr(images, name).view(type=np.ndarray) for name in ARRAYS}  # not their files
                self._shared[fingerprint] = ray.put(Images(**arrays, fingerprint=fingerprint))
        except DataError:
            seat.free()  # nobody waits for a work that has not begun
            raise
        return work, fingerprint, self._shared[fingerprint]

    def _hear(self, seat: Seat, report: Report) -> None:
        assert seat.work is not None
        if report.trace:
            append(seat.work.log, report.trace)
        if report.trace and seat.others:
            failed = [event for event in report.events if isinstance(event, Failed)]
            self._found.add(*(event for event in report.events if event not in failed))
            return self._charge(seat, failed[0].reason)
        self._found.add(*report.events)
        ended = {event.key for event in report.events if isinstance(event, Finished | Failed)}
        seat.left = [key for key in seat.left if key not in ended]
        if report.is_over:
            seat.free()
            if report.trace and self._kind.needs["GPU"]:  # whose context may be broken
                self._dismiss(seat, "", counts=False)
        else:
            seat.asked.append(seat.trainer.advance.remote())

    def _charge(self, seat: Seat, reason: str) -> None:
        """Have a work fail by its own fault; of several trainers one may be lost, and the others fail of that first."""
        seat.charge = seat.charge or (time.monotonic() + (JUDGED if seat.others else 0.0), reason)

    def _lose(self, seat: Seat, error: RayError) -> None:
        """Give up a trainer that is no more, or cannot be reached. Of what its process died Ray does not say."""
        text = str(error)
        is_nodes_fault = isinstance(error, ActorUnavailableError) or NODE_DIED in text
        if seat.place is None and not is_nodes_fault:
            last = text.strip().splitlines()[-1].strip()
            self._end_unborn(seat, f"trainers on the Ray cluster end before they take up work: {last}")
        elif seat.place is None:
            self._dismiss(seat, "", counts=False)
        elif is_nodes_fault:
            self._dismiss(seat, f"node {seat.place.host} is lost", counts=False)
        else:
            cause = "out of memory (host)" if isinstance(error, OutOfMemoryError) else "its process died"
            self._dismiss(seat, f"worker on {seat.place.host} ended: {cause}", counts=True, is_kill=True)

    def _dismiss(self, seat: Seat, reason: str, *, counts: bool, is_kill: bool = False) -> None:
        """Have another trainer in the place of this one; what is left of its work has failed for now."""
        self._seats.remove(seat)
        seat.end()
        self._spent += [seat.group] if seat.group else []
        self._settled = self._head.answers + 2  # one may have been on its way
        self._found.add(*(Failed(key, reason, final=False, counts=counts, is_kill=is_kill) for key in seat.left))

    def _look(self) -> None:
        """Replace trainers that hang or have not stopped in time; give up when nobody has room for long, or no head."""
        if self._head.is_gone() and self._end is None:
            fault = f"the head of the Ray cluster at {self._where} is gone; what is trained is kept"
            raise EngineError(fault, mend="to go on: start a cluster, and run the same command")
        now, passed = time.monotonic(), self._looks.passed()
        for seat in [seat for seat in self._seats if seat.work is not None]:
            if seat.watch.is_hanging(passed):
                self._dismiss(seat, seat.watch.reason, counts=True)
            elif seat.charge is not None and (now >= seat.charge[0] or self._end is not None):
                self._dismiss(seat, seat.charge[1], counts=self._end is None)
            elif self._end is not None and now >= self._end:
                self._dismiss(seat, "stopped before a checkpoint was written", counts=False)
        for seat in [seat for seat in self._seats if seat.is_held(passed, SILENCE)]:
            self._dismiss(seat, "", counts=False)  # the work is whole; others than the first hang behind it
        if not self._most or any(seat.place for seat in self._seats):
            self._roomy = now
        elif now - self._roomy > PATIENCE:
            raise self._unborn.refusal or self._head.no_room(self._kind.wanted, f"within {PATIENCE:.0f} s has had")
        elif now - self._roomy > TOLD:
            self._found.add(Noticed(f"no node of the Ray cluster has {self._kind.wanted} free; waiting for one"))

    def forget(self, work: Work) -> None:
        """See `Executor`."""
        self._store.drop(work.checkpoint.name)

    def stop(self, within: float) -> None:
        """See `Executor`."""
        self._end = time.monotonic() + (min(within, HEADLESS) if self._head.is_gone() else within)
        self._most = 0  # nobody is to come
        for seat in self._seats:
            if seat.work is not None:
                seat.trainer.halt.options(concurrency_group="control").remote()

    def close(self) -> None:
        """End every trainer at once; checkpoints stay."""
        for seat in self._seats:
            seat.end()
        self._seats = []
        self._head.close()
        if self._end is None:
            self._store.leave()
