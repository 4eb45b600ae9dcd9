"""Where the next trials teach most about which arm is best."""

from __future__ import annotations

import numpy as np

from scalesearch.basis import Array
from scalesearch.surface import Draws

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
"""Quadrature over a standard normal result."""


def most_telling(draws: Draws, count: int, open_arms: Array) -> list[int]:
    """Arms whose next trials raise the expected best accuracy most, one after the other; an arm may come again.

    Args:
        draws: of the arms' true accuracies.
        count: how many trials.
        open_arms: (arms,) of booleans: those that may be trained.

    Source:
        The knowledge gradient for correlated beliefs: Frazier, Powell and Dayanik (2009), INFORMS Journal on
        Computing 21(4), doi:10.1287/ijoc.1080.0314; the greedy batch conditions on each choice in turn.
    """
    means = draws.accuracies.mean(axis=0)
    covariance = np.cov(draws.accuracies.T)
    noise = float(np.median(draws.noise)) ** 2
    chosen: list[int] = []
    for _ in range(count):
        variances = np.maximum(np.diag(covariance), 1e-12)
        moves = covariance / np.sqrt(variances + noise)  # column: how all means move with a trial of that arm
        gains = sum(
            weight * (means[:, None] + moves * node).max(axis=0) for node, weight in zip(NODES, WEIGHTS, strict=True)
        )
        best = int(np.where(open_arms, gains, -np.inf).argmax())
        chosen.append(best)
        covariance = covariance - np.outer(covariance[:, best], covariance[:, best]) / (variances[best] + noise)
    return chosen
