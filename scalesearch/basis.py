"""Polynomials of the shares of depth, width and resolution: the terms of a response surface."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from scalesearch.samples import Shares

Array = np.ndarray[Any, Any]

CORNERS = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
"""Orthonormal directions within the plane where shares sum to 1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Basis:
    """Polynomials of the shares, orthonormal over the arms: a coefficient is in points, as its spread over them."""

    centre: Array
    scale: float
    mixing: Array
    """(terms, terms): from plain powers to the orthonormal polynomials."""

    @classmethod
    def of(cls, shares: Array, degree: int = 2) -> Basis | None:
        """The polynomials up to `degree` (0: a constant, 3: with cubic terms); None if the arms do not spread enough.

        Args:
            shares: (arms, 3).
            degree: of the highest terms.
        """
        return _basis(tuple(map(tuple, shares.tolist())), degree)

    def at(self, shares: Array) -> Array:
        """(points, terms): every polynomial at `shares` (points, 3)."""
        degree = {1: 0, 6: 2, 10: 3}[len(self.mixing)]
        return _powers(((shares - 1 / 3) @ CORNERS.T - self.centre) / self.scale, degree) @ self.mixing


@lru_cache(maxsize=16)  # every decision of a search asks for the same
def _basis(points: tuple[Shares, ...], degree: int) -> Basis | None:
    shares = np.array(points)
    flat = (shares - 1 / 3) @ CORNERS.T
    centre = flat.mean(axis=0)
    scale = float(np.sqrt(((flat - centre) ** 2).sum(axis=1).mean())) or 1.0
    powers = _powers((flat - centre) / scale, degree)
    if np.linalg.matrix_rank(powers, tol=1e-6) < powers.shape[1]:
        return None
    upper = np.linalg.qr(powers, mode="r")
    mixing = np.linalg.inv(upper * np.sign(np.diag(upper))[:, None]) * np.sqrt(len(shares))
    return Basis(centre=centre, scale=scale, mixing=mixing)


def _powers(flat: Array, degree: int) -> Array:
    x, y = flat.T
    return np.stack([x ** (total - up) * y**up for total in range(degree + 1) for up in range(total + 1)], axis=1)
