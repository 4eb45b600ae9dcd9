"""Live progress on a terminal, plain lines elsewhere, silence on request."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from scalesearch.cli.console import console, duration, sentence
from scalesearch.cli.reporting import NOBODY, Heard
from scalesearch.cli.show import stamp
from scalesearch.engine.work import Event, Failed, Kept, Noticed, Started
from scalesearch.engine.work import Progress as EpochDone
from scalesearch.plan import Plan
from scalesearch.trials import STAGES, Stage, TrialKey, TrialResult

if TYPE_CHECKING:
    from scalesearch.agenda import Agenda
    from scalesearch.direct import AskedFamily
    from scalesearch.outcome import Outcome
    from scalesearch.pace import Pace
    from scalesearch.proxy.choice import Step
    from scalesearch.proxy.scan import Scan


STEPS: dict[Step, str] = {
    "awaited": "images that another run is preparing",
    "read": "images read",
    "decoded": "images decoded",
}
MEASURING = (
    "measuring how trials are trained fastest here, for seconds to minutes; --threads and --together say it instead"
)
MOMENT = 10.0
"""Preparing images is worth a line where there is no terminal if it takes longer [s]."""


class _Counted(MofNCompleteColumn):
    """So many of how many; nothing where that is not known."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None else super().render(task)


class Display:
    """A frame for progress: bars on a terminal, lines elsewhere."""

    def __init__(self, *, quiet: bool, on_stderr: bool) -> None:
        self.console = console(stderr=on_stderr, quiet=quiet, is_optional=True)
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            _Counted(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            disable=quiet or not self.console.is_interactive,
            transient=True,
        )

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text)

    def add(self, text: str, total: int | None, done: int = 0) -> TaskID:
        """A new bar; without a total it only shows that something goes on."""
        return self.bars.add_task(text, total=total, completed=done, note="")

    def emitted(self, row: dict[str, Any]) -> None:
        """A member is written and proved."""
        start = row["weights"]["start"]
        fresh = ", classifier fresh" if start and start["fresh"] else ""
        begun = f", from {start['file']} read as {start['names']}'s{fresh}" if start else ""
        self.say(f"wrote {row['name']}: {row['macs'] / 1e6:,.0f} M macs, counted by fvcore, files read back{begun}")


class RunDisplay(Display):
    """How a run goes: all trials together with the time left, and each running trial by epoch."""

    def __init__(self, folder: Path, *, quiet: bool, on_stderr: bool, heard: Heard = NOBODY) -> None:
        super().__init__(quiet=quiet, on_stderr=on_stderr)
        self.folder = folder
        self.heard = heard
        self.trials: dict[TrialKey, TaskID] = {}
        self.done = self.total = self.ended_here = 0
        self.stage: Stage | None = None
        self.at_most = ""
        self.start = 0.0
        self.step: Step | None = None
        self.images = TaskID(0)
        self.is_told = False
        self.measured: TaskID | None = None

    def prepared(self, step: Step, done: int, total: int) -> None:
        """So many images of those that are to be prepared are: a bar, or elsewhere a line if it takes a while."""
        if step != self.step:
            self._begin(step, total)
        self.bars.update(self.images, completed=done)
        seconds = time.monotonic() - self.start
        if seconds > MOMENT and not (self.is_told or self.console.is_interactive):
            self.is_told = True
            self.say(f"{STEPS[step]}: {done:,} of {total:,}, {duration(seconds * (total - done) / done)} left")
        if done == total:
            self.bars.remove_task(self.images)
            self.step = None

    def _begin(self, step: Step, total: int) -> None:
        self.step, self.start, self.images = step, time.monotonic(), self.add(STEPS[step], total)
        self.is_told = step == "awaited"
        if self.is_told:
            self.say(f"waiting for {total:,} {STEPS[step]}")

    def measuring(self, plan: Plan) -> None:
        """The pace is about to be measured: a line, and on a terminal a bar that moves until training begins."""
        self._stamp(plan)
        self.say(MEASURING)
        self.measured = self.add("measuring", None)

    def scanned(self, found: Scan) -> None:
        """The images are ready and looked over."""
        for remark in found.remarks():
            self.say(f"data: {remark}")

    def started(self, plan: Plan, results: list[TrialResult], slots: int) -> None:
        """Training begins; `results` hold what earlier runs of the plan did."""
        self.done, self.start = sum(result.has_ended for result in results), time.monotonic()
        self.at_most = plan.at_most
        if self.measured is None:
            self._stamp(plan)
        else:
            self.bars.remove_task(self.measured)
        kept = f", trials done before: {self.done}" if self.done else ""
        what = f"{plan.base.name} at {plan.budget} on {plan.data.name}"
        self.say(f"{what}: policy {plan.policy}, {slots} slots ready{_ways(plan.pace)}{kept}, in {self.folder}")
        self.overall = self.add("all trials", 0, self.done)

    def _stamp(self, plan: Plan) -> None:
        sentence(self.console, stamp(plan.evidence, plan.base.name))

    def planned(self, now: Agenda) -> None:
        """A batch of trials is due."""
        self.total = now.most
        self.bars.update(self.overall, total=now.most)
        if now.stage != self.stage:
            self.stage = now.stage
            self.say(f"{STAGES[self.stage]}: {self.at_most}{now.most} trials in all" if self.stage else "")
        self.heard.decided()

    def happened(self, event: Event) -> None:
        """A trial started, went on, finished or failed; or a person should hear of something."""
        self.heard.happened(event)
        if isinstance(event, Noticed):
            self.say(event.text)
        elif isinstance(event, Started):
            if event.key not in self.trials:
                self.trials[event.key] = self.add(f"  {event.key}", event.key.rung)
        elif isinstance(event, EpochDone):
            self.bars.update(
                self.trials[event.key], completed=event.result.epoch, note=f"{event.result.accuracy:.1f} %"
            )
        elif isinstance(event, Failed) and not event.final:
            self.say(f"{event.key}: {event.reason}; {'tried again' if event.counts else 'it goes on later'}")
        elif not isinstance(event, Kept):
            if isinstance(event, Failed):
                self.say(f"{event.key}: {event.reason}; given up")
            self._ended(event.key)

    def _ended(self, key: TrialKey) -> None:
        self.done, self.ended_here = self.done + 1, self.ended_here + 1
        pace = (time.monotonic() - self.start) / self.ended_here
        left = f"{self.at_most or 'about '}{duration(pace * max(0, self.total - self.done))} left"
        self.bars.update(self.overall, completed=self.done, note=left)
        self.bars.remove_task(self.trials.pop(key))
        if not self.console.is_interactive:
            self.say(f"{self.done}/{self.total} {key}, {left}")

    def ranked(self, outcome: Outcome) -> None:
        """All trials have ended, or the time is over."""
        self.bars.update(self.overall, note="done")
        leader = outcome.leader.id if outcome.leader else "none"
        over = "the time is over, the same command goes on" if outcome.stage else "trials done"
        self.say(f"{over}; first on budget: {leader}; writing the family (`rank` shows the ranking meanwhile)")


class EmitDisplay(Display):
    """How the writing of a family goes."""

    def __init__(self, family: AskedFamily, *, quiet: bool, on_stderr: bool) -> None:
        super().__init__(quiet=quiet, on_stderr=on_stderr)
        self.bar = self.add("members", len(family.members))

    def emitted(self, row: dict[str, Any]) -> None:
        """A member is written and proved."""
        super().emitted(row)
        self.bars.advance(self.bar)


def _ways(pace: Pace | None) -> str:
    """How trials are trained on their slots, where it is not the plain way."""
    if pace is None:
        return ""
    ways = [
        f"{pace.threads} threads each" if pace.threads > 1 else "",
        f"up to {pace.together} seeds in one" if pace.together > 1 else "",
        f"in micro-batches of {pace.micro_batch}" if pace.micro_batch else "",
    ]
    return "".join(f", {way}" for way in ways if way)
