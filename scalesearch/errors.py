"""The error tree: every fault a user can cause, with the place and the mend in its message.

Each class is also a child of the builtin that fits, keeps the offending objects as fields and builds its
message in `__str__`. The command line catches `ScaleSearchError` in one place.
"""

from __future__ import annotations

import re
import reprlib
from typing import Self


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxdict, self.maxtuple, self.maxstring, self.maxother = 2, 4, 4, 4, 60, 80

    def repr_int(self, x: int, level: int) -> str:
        bits = x.bit_length()  # Python writes out no number of many thousands
        return repr(x) if bits <= 128 else f"a whole number of {bits:,} bits"


def shown(value: object) -> str:
    """A value in a few characters, however large or deep it is."""
    return re.sub(r" at 0x[0-9a-f]+", "", _Short().repr(value))


class ScaleSearchError(Exception):
    """Root of the tree: one line that says what is wrong and where, and a `mend` that says what to do."""

    def __init__(self, message: str, *, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.message}; {self.mend}" if self.mend else self.message

    def within(self, place: object) -> Self:
        """The same error, told with the file that it came from."""
        self.message = f"{place}: {self.message}"
        return self


class SpecError(ScaleSearchError, ValueError):
    """A network that cannot be built: field path, value, what is allowed."""


class ScalingError(ScaleSearchError, ValueError):
    """Coefficients, multipliers or growth outside their domain, or no legal network there."""


class SpaceError(ScaleSearchError, ValueError):
    """A search space with nothing in it, or a budget that asks for nothing."""


class PlanError(ScaleSearchError, ValueError):
    """Faults of a plan: all of them at once, one per entry of `faults`."""

    def __init__(self, faults: list[str] | str, *, mend: str = "") -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("; ".join(self.faults), mend=mend)

    def within(self, place: object) -> Self:
        """See `ScaleSearchError.within`; every fault by itself, though the line has the place once."""
        self.faults = [f"{place}: {fault}" for fault in self.faults]
        return super().within(place)


class CostMismatchError(ScaleSearchError, RuntimeError):
    """The closed form and fvcore disagree about a network."""

    def __init__(self, *, part: str, quantity: str, counted: int, measured: int) -> None:
        self.part, self.quantity, self.counted, self.measured = part, quantity, counted, measured
        super().__init__(
            f"{part}: {quantity} counted {counted:,}, measured {measured:,}",
            mend="a network that two ways count differently is refused: please report it",
        )


class StudyError(ScaleSearchError, RuntimeError):
    """A run folder that is missing, damaged, busy, or belongs to another plan."""


class JournalError(StudyError):
    """Lines of a journal that contradict each other."""


class SearchFailedError(ScaleSearchError, RuntimeError):
    """A search that ended without anything to rank."""


class EngineError(ScaleSearchError, RuntimeError):
    """Workers that end before they take up any work, again and again."""


class ClusterError(ScaleSearchError, RuntimeError):
    """A Ray cluster that cannot be reached, has no room for a trial, or runs other versions."""


class DataError(ScaleSearchError, ValueError):
    """Images that cannot be used: the path and what is wrong with it."""


class TrialDivergedError(ScaleSearchError, RuntimeError):
    """A loss that is not finite: recorded as a failed trial, not a crash."""

    def __init__(self, *, epoch: int) -> None:
        self.epoch = epoch
        super().__init__(f"diverged: the loss of epoch {epoch} is not finite")


class EmitError(ScaleSearchError, RuntimeError):
    """A written file that does not read back as what was written, or weights that do not fit a network."""
