"""Pace: how trials are spread over a machine, measured there once and part of the plan from then on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scalesearch.errors import PlanError
from scalesearch.trials import TrialKey

Group = tuple[TrialKey, ...]
"""Trials of one network that differ in their seeds, trained as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How trials are trained. All but the packing changes bits, though not what is computed."""

    threads: int = 1
    """CPU threads of a trial."""
    packed: int = 1
    """Trials beside each other on one GPU."""
    together: int = 1
    """Most seeds of a proxy that are trained as one network."""
    micro_batch: int | None = None
    """Most images of a seed in flight at a time, where a whole batch does not fit into memory."""

    def __post_init__(self) -> None:
        least = {"threads": 1, "packed": 1, "together": 1, "micro_batch": 2}
        given = {name: getattr(self, name) for name in least if (name, getattr(self, name)) != ("micro_batch", None)}
        faults = [
            f"pace.{name} = {value!r}"
            for name, value in given.items()
            if not isinstance(value, int) or isinstance(value, bool) or value < least[name]
        ]
        if faults:
            raise PlanError(faults, mend="restore plan.yaml, or run into a new folder")


def grouped(keys: Sequence[TrialKey], together: int) -> list[Group]:
    """Trials that are trained as one: same proxy, length and stage, at most so many, in the order of their first.

    >>> keys = [TrialKey(proxy=name, seed=seed, rung=2) for seed in range(3) for name in "ab"]
    >>> [[f"{key.proxy}{key.seed}" for key in group] for group in grouped(keys, 2)]
    [['a0', 'a1'], ['b0', 'b1'], ['a2'], ['b2']]
    """
    groups: list[list[TrialKey]] = []
    filling: dict[tuple[str, int, str], list[TrialKey]] = {}
    for key in keys:
        name = (key.proxy, key.rung, key.stage)
        if len(filling.get(name, ())) in (0, together):
            filling[name] = []
            groups.append(filling[name])
        filling[name].append(key)
    return [tuple(group) for group in groups]
