"""The response surface: accuracy over the shares of depth, width and resolution, fitted to the trials of a study.

An arm's true accuracy is a quadratic mixture polynomial of its shares plus a roughness of its own; its trials add the
noise between seeds. How large the polynomial, the roughness and the noise are is not known: a grid of their ratios is
weighted by what the trials say (the noise itself is integrated in closed form), so that every interval holds it.

Every training length has a polynomial, a roughness and a noise of its own, so no bias of short training towards some
shares gets through. What a shorter length says of single arms beyond its polynomial enters the longer one as a
regressor, trusted as far as the longer trials bear it out (Kennedy and O'Hagan 2000, Biometrika 87(1),
doi:10.1093/biomet/87.1.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from scalesearch.basis import Array, Basis
from scalesearch.samples import Sample, Shares

CONFIDENCE = 0.95
LEAST_ARMS = 10
"""Fewer trained arms than this fit no quadratic, which has 6 coefficients."""
LEAST_DF = 3
"""Fewer repeated trials than this leave roughness and noise between seeds mixed up."""
ROUGHNESS = np.array([0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5])
"""Sizes of the roughness that are weighed, in standard deviations of the noise between seeds."""
LIKELY_ROUGHNESS = 3.0
"""Each of these sizes is weighed beforehand by 1 / (1 + (size / 3)²): small ones are a little likelier."""
SLOPES = np.geomspace(0.15, 30, 9)
"""Sizes of a coefficient that are weighed, in the same unit; equally likely beforehand."""
HINT_DRAWS = 4_000
"""Draws behind what a training length hints at."""
HINT_FLOOR = 0.02
"""Hints of a spread below this part of the noise between seeds say nothing."""
SUSPICION = 0.01
"""A test of the fit whose probability is below it counts as a misfit."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draws:
    """Draws from the posterior, equally likely."""

    accuracies: Array
    """(draws, arms): true accuracies, roughness included [%]."""
    coefficients: Array
    """(draws, terms): of the polynomials; the first is the mean over the arms [%]."""
    noise: Array
    """(draws,): standard deviation between seeds [points]."""
    roughness: Array
    """(draws,): standard deviation of what the polynomials leave [points]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """The posterior of every arm's true accuracy, trained or not."""

    basis: Basis
    shares: Array
    """(arms, 3)."""
    columns: Array
    """(arms, terms) or one more: the polynomials at the arms, and what shorter training says beyond them."""
    counts: Array
    """(arms,): trials of each arm."""
    means: Array
    """(arms,): mean accuracies [%]; 0 where there is no trial."""
    squares: float
    """Squared deviations between seeds, summed [points²]."""

    @cached_property
    def _ratios(self) -> tuple[Array, Array]:
        """The grid of roughness and slopes, in units of the noise."""
        slopes = SLOPES if self.columns.shape[1] > 1 else SLOPES[:1]
        rough, slope = np.meshgrid(ROUGHNESS, slopes, indexing="ij")
        return rough.ravel(), slope.ravel()

    @cached_property
    def _level(self) -> float:
        return float(self.means[self.counts > 0].mean())

    @cached_property
    def _posterior(self) -> tuple[Array, Array, Array, Array, float]:
        """Weights, coefficients, their inverse roots, residual squares of each pair of ratios; degrees of freedom."""
        rough, slope = self._ratios
        trained = self.counts > 0
        terms = self.columns[trained]
        means = self.means[trained] - self._level
        spread = rough[:, None] ** 2 + 1 / self.counts[trained]  # variance of an arm's mean, in units of the noise's
        precision = np.einsum("ai,ga,aj->gij", terms, 1 / spread, terms)
        diagonal = np.arange(1, terms.shape[1])
        precision[:, diagonal, diagonal] += 1 / slope[:, None] ** 2  # the first coefficient has a flat prior
        right = np.einsum("ai,ga->gi", terms, means / spread)
        root = np.linalg.cholesky(precision)
        found = np.linalg.solve(precision, right[..., None])[..., 0]
        rest = (means**2 / spread).sum(axis=1) - (right * found).sum(axis=1) + self.squares
        rest = np.maximum(rest, 0) + 1e-9  # accuracies that are all equal leave nothing
        df = float(self.counts.sum() - 1)
        logs = -np.log(spread).sum(axis=1) / 2 - np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        logs -= len(diagonal) * np.log(slope) + df / 2 * np.log(rest) + np.log1p((rough / LIKELY_ROUGHNESS) ** 2)
        weights = np.exp(logs - logs.max())
        return weights / weights.sum(), found, np.linalg.inv(root), rest, df

    def draws(self, count: int, seed: int = 0) -> Draws:
        """Draws from the posterior; the same `seed` gives the same draws."""
        random = np.random.default_rng(seed)
        weights, found, inverse, rest, df = self._posterior
        pair = np.sort(random.choice(len(weights), count, p=weights))
        noise = np.sqrt(rest[pair] / 2 / random.gamma(df / 2, size=count))
        steps = np.einsum("dji,dj->di", inverse[pair], random.standard_normal((count, found.shape[1])))
        coefficients = found[pair] + noise[:, None] * steps
        smooth = coefficients @ self.columns.T
        rough = self._ratios[0][pair]
        seen = self._ratios[0][:, None] ** 2 * self.counts  # few pairs, which many draws share
        own = (seen / (seen + 1))[pair] * (self.means - self._level - smooth)
        left = noise[:, None] * rough[:, None] / np.sqrt(seen + 1)[pair] * random.standard_normal(smooth.shape)
        coefficients[:, 0] += self._level
        return Draws(
            accuracies=smooth + own + left + self._level,
            coefficients=coefficients[:, : len(self.basis.mixing)],
            noise=noise,
            roughness=noise * rough,
        )

    def beyond(self) -> Array | None:
        """(arms,): how far each arm's estimate lies off the polynomials, in units of its spread; None if none does."""
        draws = self.draws(HINT_DRAWS)
        off = (draws.accuracies - draws.coefficients @ self.basis.at(self.shares).T).mean(axis=0)
        size = float(np.sqrt((off**2).mean()))
        return off / size if size > HINT_FLOOR * float(np.median(draws.noise)) else None


def fit_rungs(
    rungs: Sequence[Sequence[Sample]], shares: Array, places: Mapping[str, int], degree: int = 2
) -> Surface | None:
    """Fit the surface of the longest trainings, each length hinting at the next.

    Args:
        rungs: the arms with trials at each training length, from short to long.
        shares: (arms, 3), of every arm, trained or not.
        places: arm id -> its row in `shares`.
        degree: of the polynomials; 0 asks nothing of the shares: arms are alike but for their roughness.

    Returns:
        The posterior at the last length; None if there is too little for one.
    """
    known = [tuple((one, places[one.arm.id]) for one in samples) for samples in rungs]
    if not known:
        return None
    *earlier, last = known
    return _fitted(last, shares, degree, _hint(tuple(earlier), tuple(map(tuple, shares.tolist())), degree))


_Placed = tuple[tuple[Sample, int], ...]
"""Arms with trials, each with its row in `shares`."""


@lru_cache(maxsize=8)  # trials of shorter lengths stay as they are from decision to decision
def _hint(rungs: tuple[_Placed, ...], points: tuple[Shares, ...], degree: int) -> Array | None:
    """What shorter trainings say of single arms; None if nothing."""
    hint = None
    for placed in rungs:
        surface = _fitted(placed, np.array(points), degree, hint)
        hint = surface.beyond() if surface else hint
    return hint


def _fitted(placed: _Placed, shares: Array, degree: int, hint: Array | None) -> Surface | None:
    return fit([sample for sample, _ in placed], shares, [place for _, place in placed], degree, hint)


def fit(
    samples: Sequence[Sample], shares: Array, places: Sequence[int], degree: int = 2, hint: Array | None = None
) -> Surface | None:
    """Fit a surface to the trials of one length.

    Args:
        samples: arms with trials.
        shares: (arms, 3), of every arm, trained or not.
        places: the row in `shares` of each sample.
        degree: of the polynomials.
        hint: (arms,), what shorter training says of single arms.

    Returns:
        The posterior; None if there are too few arms, or too few repeated trials, to tell slopes, roughness and
        noise apart.
    """
    counts = np.zeros(len(shares))
    means = np.zeros(len(shares))
    for place, sample in zip(places, samples, strict=True):
        counts[place], means[place] = sample.seeds, sample.mean
    basis = Basis.of(shares, degree)
    trained = counts > 0
    if basis is None or trained.sum() < (LEAST_ARMS if degree else 2) or counts.sum() - trained.sum() < LEAST_DF:
        return None
    columns = basis.at(shares)
    if np.linalg.matrix_rank(columns[trained], tol=1e-6) < len(basis.mixing):
        return None
    if hint is not None:
        columns = np.column_stack([columns, hint])
    squares = float(sum(sample.squares for sample in samples))
    return Surface(basis=basis, shares=shares, columns=columns, counts=counts, means=means, squares=squares)


def excluded(accuracies: Array, leader: int, margin: float, error: float = 1 - CONFIDENCE) -> Array:
    """Which arms are worse than the leader by more than the margin, all together with probability `1 - error`.

    Args:
        accuracies: (draws, arms), draws from the posterior [%].
        leader: index of the arm that the others are compared with.
        margin: differences up to this count as none [points].
        error: the largest posterior probability that any excluded arm is not that much worse.

    Returns:
        (arms,) of booleans; never the leader.
    """
    near = accuracies >= accuracies[:, [leader]] - margin
    order = np.argsort(near.mean(axis=0), kind="stable")
    wrong = np.logical_or.accumulate(near[:, order], axis=1).mean(axis=0)
    found = np.zeros(accuracies.shape[1], bool)
    found[order[wrong <= error]] = True
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """Two tests of the quadratic against the trials it was fitted to."""

    cubic: float
    """Probability of as large an improvement by cubic terms, if there were none (F test on the roughness and noise
    that they leave); 1 where there are too few arms to ask."""
    outside: float
    """Probability of as many arms outside the 95 % interval that the others predict for them (leave-one-out)."""
    loo: float
    """Root mean square error of predicting each arm from the others [points]."""
    loo_flat: float
    """The same, predicting each arm by the mean of the others [points]."""

    @property
    def is_poor(self) -> bool:
        """Whether either test says that the surface has another shape."""
        return min(self.cubic, self.outside) < SUSPICION


def misfit(surface: Surface) -> Misfit:
    """Test a quadratic surface, at the likeliest roughness."""
    from scipy.special import bdtrc, stdtrit

    trained = surface.counts > 0
    weights, _, _, rest, df = surface._posterior
    best = int(weights.argmax())
    spread = surface._ratios[0][best] ** 2 + 1 / surface.counts[trained]
    means = surface.means[trained]
    terms = surface.columns[trained]
    residuals, leverage = _left_out(terms, means, spread)
    flat, _ = _left_out(terms[:, :1], means, spread)
    scores = residuals / np.sqrt(rest[best] / df * spread / (1 - leverage))
    beyond = int((np.abs(scores) > stdtrit(df, (1 + CONFIDENCE) / 2)).sum())
    return Misfit(
        cubic=_cubic(surface, means, spread, terms),
        outside=float(bdtrc(beyond - 1, len(scores), 1 - CONFIDENCE)),
        loo=float(np.sqrt((residuals**2).mean())),
        loo_flat=float(np.sqrt((flat**2).mean())),
    )


def _left_out(terms: Array, means: Array, spread: Array) -> tuple[Array, Array]:
    """Each arm's residual from the fit to the others, and its leverage: weighted least squares in closed form."""
    root = np.sqrt(spread)
    directions, _ = np.linalg.qr(terms / root[:, None])
    leverage = np.minimum((directions**2).sum(axis=1), 1 - 1e-9)
    scaled = means / root
    return (scaled - directions @ (directions.T @ scaled)) / (1 - leverage) * root, leverage


def _cubic(surface: Surface, means: Array, spread: Array, terms: Array) -> float:
    basis = Basis.of(surface.shares, degree=3)
    hints = terms[:, len(surface.basis.mixing) :]
    more = np.column_stack([basis.at(surface.shares[surface.counts > 0]), hints]) if basis else terms
    left = len(means) - more.shape[1]
    if basis is None or left < LEAST_DF or np.linalg.matrix_rank(more, tol=1e-6) < more.shape[1]:
        return 1.0
    from scipy.special import fdtrc

    small, large = (_squares(columns, means, spread) for columns in (terms, more))
    ratio = max(0.0, small - large) / (more.shape[1] - terms.shape[1]) / max(large / left, 1e-12)
    return float(fdtrc(more.shape[1] - terms.shape[1], left, ratio))


def _squares(terms: Array, means: Array, spread: Array) -> float:
    root = np.sqrt(spread)
    directions, _ = np.linalg.qr(terms / root[:, None])
    scaled = means / root
    return float(((scaled - directions @ (directions.T @ scaled)) ** 2).sum())
