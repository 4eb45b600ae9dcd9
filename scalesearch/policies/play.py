"""How far a policy is, by the results so far: it is played from its beginning through every batch that has ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType

from scalesearch.decision import Decision, Ending, Leave
from scalesearch.errors import JournalError
from scalesearch.policies.fit import fit
from scalesearch.policies.grid import grid
from scalesearch.policies.race import REPEATS, race, rungs
from scalesearch.policies.rules import Batch, Policy, Results, Rules
from scalesearch.presets import PolicyName
from scalesearch.samples import Arm
from scalesearch.trials import TrialKey

POLICIES: Mapping[PolicyName, Callable[[Sequence[Arm], Rules], Policy]] = MappingProxyType(
    {"fit": fit, "race": race, "grid": grid}
)


DIGITS = 32
"""Hexadecimal digits of the digest of what a decision rests on: the rules, the arms and every result so far."""


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

    def __init__(
        self, arms: Sequence[Arm], rules: Rules, written: Mapping[str, Decision] = MappingProxyType({})
    ) -> None:
        """Begin a search.

        Args:
            arms: the networks, in canonical order.
            rules: how it decides.
            written: what was decided before, by the digest of what it rests on. It is believed where it rests on the
                very results that the search has; all else is decided anew.
        """
        self._policy = POLICIES[rules.policy](arms, rules)
        self._batch: Batch | None = next(self._policy)
        self._ended: list[TrialKey] = []
        self._results = Results()
        self._leaves = list(self._batch.leaves)
        self._ending: Ending | None = None
        self._written = written
        self._names = frozenset(arm.id for arm in arms)
        self._digest = sha256(repr((rules, [arm.id for arm in arms])).encode())
        self.decided: dict[str, Decision] = {}
        """What was decided so far, by the digest of what it rests on."""

    def standing(self, results: Mapping[TrialKey, float | None]) -> Standing:
        """Play on against the accuracies of ended trials [%], those told before among them; None for one that failed.

        A batch that has not ended whole decides nothing.
        """
        while self._batch is not None and all(key in results for key in self._batch.keys):
            self._ended += self._batch.keys
            for key in self._batch.keys:
                self._results.add(key, results[key])
                self._digest.update(f"{key}={results[key]!r};".encode())
            self._go_on(self._decision(self._batch))
        return Standing(
            due=self._batch.keys if self._batch else (),
            ended=tuple(self._ended),
            leaves=tuple(self._leaves),
            ending=self._ending,
        )

    def _decision(self, batch: Batch) -> Decision:
        if batch.judge is None:
            return Decision()
        place = self._digest.hexdigest()[:DIGITS]
        written = self._written.get(place)
        if written and not self._bears_out(written):
            fault = f"the decision {place} of the journal contradicts the trials that it rests on"
            raise JournalError(fault, mend=f"remove the line that holds {place}: it is decided anew")
        said = self.decided[place] = written or batch.judge(self._results)
        return said

    def _bears_out(self, said: Decision) -> bool:
        """Whether the results allow a decision, as far as that is known without deciding."""
        able = self._names - self._results.failed
        counted = all(self._results.seeds(leave.arm, leave.rung) == leave.seeds for leave in said.leaves)
        return counted and able.issuperset((*said.arms, *(leave.arm for leave in said.leaves)))

    def _go_on(self, said: Decision) -> None:
        try:
            self._batch = self._policy.send(said)
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
