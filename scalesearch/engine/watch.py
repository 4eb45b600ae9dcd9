"""Signs of life of a worker, as its coordinator sees them: no clock is shared, and none that people set is asked."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

SLOWLY = 10
"""Times the longest silence before, or until the second sign times the limit, that a worker is waited for."""


class Signs(Protocol):
    """A number in memory that worker and coordinator share: it grows with every sign of life."""

    value: int


@dataclass(slots=True)
class Watch:
    """How long a worker has been silent over one work.

    The first sign says that the work is there, the second that a step of it is done; what lies between, such as
    building the network and moving the images, takes longer than steps do.
    """

    signs: Signs
    limit: float
    """Silence after which a worker hangs, unless its steps take long [s]."""
    first: int = 0
    """Signs when the work was handed over."""
    last: int = 0
    silent: float = 0.0
    longest: float = 0.0

    def begin(self) -> None:
        """A work is handed over."""
        self.first = self.last = self.signs.value
        self.silent = self.longest = 0.0

    @property
    def reason(self) -> str:
        """Why a worker that hangs is ended."""
        return f"worker hung: no sign of life for {self.silent:.0f} s"

    @property
    def has_begun(self) -> bool:
        """Whether the work has been taken up."""
        return self.signs.value != self.first

    def is_hanging(self, passed: float) -> bool:
        """Whether the silence is too long, so many seconds after the last look."""
        is_set_up = self.last > self.first + 1
        if self.signs.value != self.last:
            self.longest = max(self.longest, self.silent) if is_set_up else 0.0
            self.last, self.silent = self.signs.value, 0.0
            return False
        self.silent += passed
        return self.silent > (max(self.limit, SLOWLY * self.longest) if is_set_up else SLOWLY * self.limit)


@dataclass(slots=True)
class Looks:
    """When a coordinator looked at its workers: one that has slept itself must not take its sleep for their silence."""

    most: float
    """Time that may pass from one look to the next [s]."""
    last: float = field(default_factory=time.monotonic)

    def passed(self) -> float:
        """Time since the look before this one [s]."""
        now = time.monotonic()
        passed, self.last = min(now - self.last, self.most), now
        return passed
