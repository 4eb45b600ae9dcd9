"""The paper's exhaustive way: every arm at full length with every seed."""

from __future__ import annotations

from collections.abc import Sequence

from scalesearch.decision import Ending
from scalesearch.policies.rules import Batch, Policy, Rules, affordable, block
from scalesearch.samples import Arm


def grid(arms: Sequence[Arm], rules: Rules) -> Policy:
    """One batch; where the compute does not reach, the last seeds are missing."""
    names = [arm.id for arm in arms]
    wanted = tuple(key for seed in range(rules.seeds) for key in block(names, seed, rules.epochs))
    keys = affordable(wanted, rules.most_epochs)
    yield Batch(keys=keys)
    return (Ending.COMPLETE if keys == wanted else Ending.SPENT), ()
