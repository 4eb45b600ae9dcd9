"""How far a policy is, by the results so far: it is played from its beginning through every batch that has ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from scalesearch.policies.fit import fit
from scalesearch.policies.grid import grid
from scalesearch.policies.race import REPEATS, race, rungs
from scalesearch.policies.rules import Batch, Ending, Leave, Policy, Results, Rules
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


class Player:
    """A policy in play: what it has decided once is not decided again."""

    def __init__(self, arms: Sequence[Arm], rules: Rules) -> None:
        """Begin a search of networks in canonical order by some rules."""
        self._policy = POLICIES[rules.policy](arms, rules)
        self._batch: Batch | None = next(self._policy)
        self._ended: list[TrialKey] = []
        self._results = Results()
        self._leaves = list(self._batch.leaves)
        self._ending: Ending | None = None

    def standing(self, results: Mapping[TrialKey, float | None]) -> Standing:
        """Play on against the accuracies of ended trials [%], those told before among them; None for one that failed.

        A batch that has not ended whole decides nothing.
        """
        while self._batch is not None and all(key in results for key in self._batch.keys):
            self._ended += self._batch.keys
            for key in self._batch.keys:
                self._results.add(key, results[key])
            self._decide()
        return Standing(
            due=self._batch.keys if self._batch else (),
            ended=tuple(self._ended),
            leaves=tuple(self._leaves),
            ending=self._ending,
        )

    def _decide(self) -> None:
        try:
            self._batch = self._policy.send(self._results)
            self._leaves += self._batch.leaves
        except StopIteration as stop:
            self._ending, last = stop.value
            self._batch = None
            self._leaves += last


def most_trials(arms: int, rules: Rules) -> int:
    """Trials that a search takes at most."""
    if rules.policy == "grid":
        return min(arms * rules.seeds, rules.most_epochs // rules.epochs)
    full = rules.most_epochs // rules.epochs
    return full if rules.policy == "fit" else full + (len(rungs(rules.epochs)) - 1) * (arms + REPEATS)
