"""What an engine is handed and what it answers: plain values, no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from scalesearch.blueprint import Architecture
from scalesearch.errors import PlanError
from scalesearch.pace import Group
from scalesearch.recipe import EpochResult, Recipe
from scalesearch.trials import TrialKey

UNBORN = 3
"""After so many workers in a row that end before they take up any work, their slot is given up (`KILLS` where somebody
else ends the last of them); on a cluster no more are asked for during a rest."""
KILLS = 20
"""Kills from outside, one after another without progress, that a work is given up at: another program's hunger for
memory may pass."""
_FOLDER = re.compile(r"(?s)/.*|(?:[A-Za-z][\w+.-]+::)*(?!(?:file|local)://[^/])[A-Za-z][\w+.-]+://.*[^/].*")
"""A folder that is the same for every process, wherever it was started: an absolute path, or a URL of one."""
AMOUNTS = "give at least one CPU, and whole GPUs, a fraction of one, or 0"
ADDRESS = "give auto, HOST:PORT or ray://HOST:PORT, or leave it out for a Ray of this machine"
PLACE = "give an absolute path or a URL, such as /shared/runs or s3://bucket/runs, or leave it out for the run folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Trials of one network, with all that a worker needs to train them."""

    keys: Group
    network: Architecture
    recipe: Recipe
    data: Path
    """Folder of the prepared images."""
    checkpoint: Path
    """File that the state is written to, behind epochs."""
    log: Path
    """File that a traceback is appended to."""
    threads: int = 1
    """CPU threads."""
    micro_batch: int | None = None
    """Images of a seed in flight at a time; None = a whole batch."""
    sharing: int = 1
    """Works that share the memory of the device."""

    @property
    def from_anywhere(self) -> Work:
        """The same to processes that were started in other folders: its paths are absolute."""
        paths = {"data": self.data, "checkpoint": self.checkpoint, "log": self.log}
        return replace(self, **{name: path.absolute() for name, path in paths.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A short look at how fast a network is trained in one way; trains nothing that is kept."""

    network: Architecture
    recipe: Recipe
    threads: int = 1
    together: int = 1
    """Seeds trained as one network."""
    micro_batch: int | None = None
    images: int = 0
    """Images of the study, which take memory beside the training."""
    sharing: int = 1
    """Probes that share the memory of the device."""
    seconds: float = 0.5
    """Time that steps are counted in, after the first ones [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A Ray cluster to train on, and what a trial takes of it."""

    address: str | None = None
    """`auto`, `HOST:PORT` or `ray://HOST:PORT`; None = one that is started on this machine and ends with the run."""
    cpus: int | None = None
    """Of a trial; None = the threads of its pace."""
    gpus: float | None = None
    """Of a trial: a whole number, a fraction of one, or 0; None = 1 where a node has GPUs."""
    checkpoints: str | None = field(default=None, repr=False)
    """URL of a folder that every node reaches, with the secrets that it may hold; None = the run folder, where a node
    sees it."""

    def __post_init__(self) -> None:
        found = [
            *([("--address is empty", ADDRESS)] if self.address is not None and not self.address.strip() else []),
            *([(f"--cpus-per-trial {self.cpus}", AMOUNTS)] if self.cpus is not None and self.cpus < 1 else []),
            *([(f"--gpus-per-trial {self.gpus:g}", AMOUNTS)] if not _is_amount(self.gpus) else []),
            *([(fault, PLACE)] if (fault := _misplaced(self.checkpoints)) else []),
        ]
        if found:
            raise PlanError([fault for fault, _ in found], mend="; ".join(dict.fromkeys(mend for _, mend in found)))

    @property
    def ranks(self) -> int:
        """Processes of a trial: one for each of its GPUs."""
        return max(1, int(self.gpus or 0))


def _misplaced(checkpoints: str | None) -> str:
    """What is wrong with a place for checkpoints, if anything is. No part of it is repeated: it may be a password."""
    if checkpoints is None or _FOLDER.fullmatch(checkpoints):
        return ""
    return f"--checkpoints is {'no absolute path and no URL of a folder' if checkpoints.strip() else 'empty'}"


def _is_amount(gpus: float | None) -> bool:
    return gpus is None or 0 <= gpus <= 1 or (gpus > 1 and math.isfinite(gpus) and gpus == int(gpus))


@dataclass(frozen=True, slots=True)
class Started:
    """A trial is handed to a slot."""

    key: TrialKey


@dataclass(frozen=True, slots=True)
class Progress:
    """An epoch of a trial is trained and evaluated; a checkpoint of it may come later, or not at all."""

    key: TrialKey
    result: EpochResult


@dataclass(frozen=True, slots=True)
class Finished:
    """A trial is trained to the end."""

    key: TrialKey


@dataclass(frozen=True, slots=True)
class Failed:
    """A trial stopped early."""

    key: TrialKey
    reason: str
    final: bool
    """Whether trying again would end the same way."""
    counts: bool = True
    """Whether it is one of the trial's attempts: not if it was stopped, or lost with a machine that was taken away."""
    is_kill: bool = False
    """Whether somebody else ended its worker, as far as can be told: borne for longer than failures of its own."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint holds the first steps of a trial; one that holds more of them than ever before is progress."""

    key: TrialKey
    step: int
    """Steps trained, of all epochs."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something that a person should hear of, about no trial in particular."""

    text: str
    """One line: what happened, and what comes of it."""


TrialEvent = Started | Progress | Kept | Finished | Failed
"""The coordinator tells of starts, an engine of the rest."""
Event = TrialEvent | Noticed


class Executor(Protocol):
    """A pool of slots, each training one work at a time."""

    @property
    def idle(self) -> int:
        """Slots without work."""
        ...

    @property
    def busy(self) -> int:
        """Slots with work."""
        ...

    def submit(self, work: Work) -> None:
        """Start a work on an idle slot."""
        ...

    def events(self) -> Sequence[Event]:
        """What happened since the last call: maybe nothing, after a second at most; at once while no slot is busy.

        Raises:
            DataError: the prepared images are damaged; no trial can go on.
            EngineError: workers end before they take up any work, again and again.
            ClusterError: a cluster has no room for a trial for long, or other versions than we.
        """
        ...

    def forget(self, work: Work) -> None:
        """Remove the checkpoint of a work whose trials have all ended, where it is not kept in the run folder.

        A store that cannot is told of; it costs no trial.
        """
        ...

    def stop(self, within: float) -> None:
        """Have every running work end behind its next step, with a checkpoint of it; returns at once.

        `events` tells the rest until no slot is busy: a stopped trial has failed for now, uncounted. What has not
        ended in time is killed.

        Args:
            within: time for it [s].
        """
        ...

    def close(self) -> None:
        """Stop every worker at once; checkpoints stay."""
        ...
