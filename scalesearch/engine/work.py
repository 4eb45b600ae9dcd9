"""What an engine is handed and what it answers: plain values, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scalesearch.blueprint import Architecture
from scalesearch.pace import Group
from scalesearch.recipe import EpochResult, Recipe
from scalesearch.trials import TrialKey


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


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something that a person should hear of, about no trial in particular."""

    text: str
    """One line: what happened, and what comes of it."""


TrialEvent = Started | Progress | Finished | Failed
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
        """What happened since the last call, waiting for at least one event while any slot is busy."""
        ...

    def close(self) -> None:
        """Stop every worker at once; checkpoints stay."""
        ...
