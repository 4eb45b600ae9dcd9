"""What a policy makes of the results of a batch, and the row of a journal that says so. Knows no statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from scalesearch.errors import shown
from scalesearch.story import Row, count, text


class Ending(StrEnum):
    """Why a policy asks for no more trials."""

    COMPLETE = "complete"
    """It trained all that it meant to."""
    SETTLED = "settled"
    """More trials are expected to gain less than the margin is worth."""
    LIMIT = "limit"
    """It took as many trials as finding the best may take, and is not settled."""
    SPENT = "spent"
    """The next batch would not fit into the compute that it was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """An arm that is trained no longer because it was found to be worse."""

    arm: str
    rung: int
    """Training length at which it was found to be worse [epochs]."""
    seeds: int
    """Trials of it at that length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What comes of a batch."""

    arms: tuple[str, ...] = ()
    """Those to be trained next, in this order."""
    leaves: tuple[Leave, ...] = ()
    """Arms that are trained no longer from here on."""
    behind: tuple[str, ...] = ()
    """Arms that are shown to be worse than the leader of all, whether they may leave or not; in order."""
    ending: Ending | None = None
    """Why the search ends; None while it goes on."""


def decision_of(row: Row) -> Decision:
    """What a row of a journal says was decided.

    Raises:
        KeyError, TypeError, ValueError: none does.
    """
    leaves = (Leave(arm=text(one["arm"]), rung=count(one["rung"]), seeds=count(one["seeds"])) for one in row["leaves"])
    said = Decision(arms=_names(row["arms"]), leaves=tuple(leaves), behind=_names(row["behind"]), ending=_ending(row))
    if not said.arms and not said.ending:
        raise ValueError("a decision to go on names no arm")
    return said


def _names(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple):
        raise TypeError(f"{shown(values)} is no list of arms")
    return tuple(map(text, cast("Sequence[object]", values)))


def _ending(row: Row) -> Ending | None:
    value = row["ending"]
    if value is not None and value not in tuple(Ending):
        raise ValueError(f"ending = {shown(value)} is none of {', '.join(Ending)}")
    return value and Ending(value)
