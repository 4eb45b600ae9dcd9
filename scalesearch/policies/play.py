"""How far a policy is, by the results so far: it is played from its beginning through every batch that has ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from scalesearch.policies.fit import fit
from scalesearch.policies.grid import grid
from scalesearch.policies.race import REPEATS, race, rungs
from scalesearch.policies.rules import Ending, Leave, Policy, Results, Rules
from scalesearch.presets import PolicyName
from scalesearch.samples import Arm
from scalesearch.trials import TrialKey

POLICIES: Mapping[PolicyName, Callable[[Sequence[Arm], Rules], Policy]] = MappingProxyType(
    {"fit": fit, "race": race, "grid": grid}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a search stands."""

    due: tuple[TrialKey, ...]
    """The batch at hand, ended trials included; empty when the search has ended."""
    ended: tuple[TrialKey, ...]
    """Trials of the batches before it."""
    leaves: tuple[Leave, ...]
    """Arms that are trained no longer, in the order of leaving."""
    ending: Ending | None
    """Why no more trials are asked for; None while some are."""


def standing(arms: Sequence[Arm], rules: Rules, results: Results) -> Standing:
    """Play a policy against the results of ended trials.

    Args:
        arms: the networks, in canonical order.
        rules: how to decide.
        results: of ended trials; batches that have not ended whole decide nothing.
    """
    policy = POLICIES[rules.policy](arms, rules)
    batch = next(policy)
    ended: dict[TrialKey, float | None] = {}
    leaves: list[Leave] = []
    while True:
        leaves += batch.leaves
        if any(key not in results for key in batch.keys):
            return Standing(due=batch.keys, ended=tuple(ended), leaves=tuple(leaves), ending=None)
        ended |= {key: results[key] for key in batch.keys}
        try:
            batch = policy.send(dict(ended))
        except StopIteration as stop:
            ending, last = stop.value
            return Standing(due=(), ended=tuple(ended), leaves=(*leaves, *last), ending=ending)


def most_trials(arms: int, rules: Rules) -> int:
    """Trials that a search takes at most."""
    if rules.policy == "grid":
        return min(arms * rules.seeds, rules.most_epochs // rules.epochs)
    full = rules.most_epochs // rules.epochs
    return full if rules.policy == "fit" else full + (len(rungs(rules.epochs)) - 1) * (arms + REPEATS)
