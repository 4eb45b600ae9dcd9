"""Claims of `surface` and `optimum`: scikit-learn as the peer, calibrated intervals, misfits that are noticed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct

from scalesearch import surface as module
from scalesearch.basis import Basis
from scalesearch.optimum import optimum
from scalesearch.ranking import Arm, rank
from scalesearch.samples import pooled, summed_up
from scalesearch.scaling import PAPER
from scalesearch.surface import excluded, fit, misfit
from scalesearch.verdict import shares_line

STEPS = 9
SHARES = (
    np.array([(i, j, STEPS - i - j) for i in range(STEPS + 1) for j in range(STEPS + 1 - i)], float) / STEPS
)  # 55 arms spread evenly over the simplex


def arms_of(shares=SHARES):
    return [Arm(id=f"a{i:02}", shares=tuple(share)) for i, share in enumerate(shares)]


def planted(random, *, curvature=4.0, rough=0.05, best=None):
    """True accuracies that fall off as the square of the distance to the best shares, with some roughness."""
    best = np.asarray(random.dirichlet([6, 6, 6]) if best is None else best)
    return 80 - curvature * ((SHARES - best) ** 2).sum(axis=1) + random.normal(0, rough, len(SHARES)), best


def trained(truth, random, *, seeds, noise=0.15):
    """Accuracies of each arm with `seeds[i]` trials."""
    return {f"a{i:02}": list(random.normal(truth[i], noise, n)) for i, n in enumerate(seeds) if n}


def fitted(accuracies, shares=SHARES, degree=2):
    samples = summed_up(arms_of(shares), accuracies)
    return fit(samples, shares, [int(sample.arm.id[1:]) for sample in samples], degree)


def some(random, repeats=6, arms=30):
    """30 arms with a trial, six of them with two."""
    seeds = np.zeros(len(SHARES), int)
    chosen = random.permutation(len(SHARES))[:arms]
    seeds[chosen] = 1
    seeds[chosen[:repeats]] = 2
    return seeds


# the fit --------------------------------------------------------------------------------------------------------------


def test_polynomials_are_orthonormal_over_the_arms():
    terms = Basis.of(SHARES).at(SHARES)
    assert terms.T @ terms / len(SHARES) == pytest.approx(np.eye(6), abs=1e-9)


@pytest.mark.parametrize(("rough", "slope"), [(0.5, 2.0), (1.5, 0.6), (0.1, 10.0)])
def test_estimates_are_those_of_scikit_learns_gaussian_process(monkeypatch, rough, slope):
    """With the sizes of roughness and slopes known, the posterior mean is that of a Gaussian process."""
    monkeypatch.setattr(module, "ROUGHNESS", np.array([rough]))
    monkeypatch.setattr(module, "SLOPES", np.array([slope]))
    random = np.random.default_rng(3)
    truth, _ = planted(random, rough=0.1)
    accuracies = trained(truth, random, seeds=some(random))
    found = fitted(accuracies)
    terms = Basis.of(SHARES).at(SHARES)[:, 1:] * slope
    index = [int(name[1:]) for name in accuracies]
    means = np.array([np.mean(accuracies[name]) for name in accuracies])
    counts = np.array([len(accuracies[name]) for name in accuracies])
    # every arm has a place of its own, far from all others, which its roughness is tied to
    places = np.hstack([terms, 1e4 * np.arange(len(SHARES))[:, None]])
    kernel = ConstantKernel(1e7, "fixed") + _Linear(5) + ConstantKernel(rough**2, "fixed") * _Own(5)
    peer = GaussianProcessRegressor(kernel, alpha=1 / counts, optimizer=None).fit(places[index], means)
    assert found.draws(200_000).accuracies.mean(axis=0) == pytest.approx(peer.predict(places), abs=0.01)


class _Linear(DotProduct):
    """scikit-learn's linear kernel on the first columns."""

    def __init__(self, columns):
        super().__init__(sigma_0=0.0, sigma_0_bounds="fixed")
        self.columns = columns

    def __call__(self, X, Y=None, eval_gradient=False):
        return super().__call__(X[:, : self.columns], None if Y is None else Y[:, : self.columns])

    def diag(self, X):
        return super().diag(X[:, : self.columns])


class _Own(RBF):
    """scikit-learn's squared exponential on the last column."""

    def __init__(self, column):
        super().__init__(length_scale=1.0, length_scale_bounds="fixed")
        self.column = column

    def __call__(self, X, Y=None, eval_gradient=False):
        return super().__call__(X[:, self.column :], None if Y is None else Y[:, self.column :])

    def diag(self, X):
        return super().diag(X[:, self.column :])


def test_with_many_seeds_every_arm_has_its_own_mean():
    random = np.random.default_rng(1)
    truth, _ = planted(random, rough=0.3)
    accuracies = trained(truth, random, seeds=[400] * len(SHARES))
    means = [np.mean(accuracies[name]) for name in sorted(accuracies)]
    assert fitted(accuracies).draws(4_000).accuracies.mean(axis=0) == pytest.approx(means, abs=0.01)


def test_noise_is_known_from_repeats():
    random = np.random.default_rng(2)
    truth, _ = planted(random)
    accuracies = trained(truth, random, seeds=[4] * len(SHARES), noise=0.4)
    noise = np.median(fitted(accuracies).draws(4_000).noise)
    assert noise == pytest.approx(pooled(summed_up(arms_of(), accuracies)).sd, rel=0.06)


@pytest.mark.parametrize(
    ("seeds", "shares"),
    [
        ([1] * 55, SHARES),
        ([3] * 9 + [0] * 46, SHARES),
        ([2] * 10 + [0] * 45, np.where(SHARES[:, [0]] >= 0, [[1.0, 0.0, 0.0]], 0)),
    ],
    ids=["no repeats", "nine arms", "one place"],
)
def test_too_little_is_no_surface(seeds, shares):
    random = np.random.default_rng(0)
    assert fitted(trained(np.full(55, 80.0), random, seeds=seeds), shares) is None


def test_equal_draws_come_from_an_equal_seed_only():
    random = np.random.default_rng(0)
    found = fitted(trained(planted(random)[0], random, seeds=some(random)))
    assert np.array_equal(found.draws(50, seed=1).accuracies, found.draws(50, seed=1).accuracies)
    assert not np.array_equal(found.draws(50, seed=1).accuracies, found.draws(50, seed=2).accuracies)


@pytest.mark.slow
@pytest.mark.parametrize("rough", [0.05, 0.1])
def test_intervals_cover_the_truth_as_often_as_they_say(rough):
    """Trained or not: 200 landscapes with 55 arms each; the bounds leave 4 standard errors of a landscape's share."""
    covered, placed = [], []
    for seed in range(200):
        random = np.random.default_rng(seed)
        truth, best = planted(random, rough=rough)
        found = fitted(trained(truth, random, seeds=some(random)))
        draws = found.draws(1_000)
        low, high = np.percentile(draws.accuracies, [2.5, 97.5], axis=0)
        covered.append(np.mean((low <= truth) & (truth <= high)))
        where = optimum(found, draws, 0.1, {})
        placed += [low - 0.01 <= s <= high + 0.01 for low, s, high in zip(where.low, best, where.high, strict=True)]
    assert 0.92 <= np.mean(covered) <= 0.98
    assert 0.92 <= np.mean(placed) <= 0.995


# misfits --------------------------------------------------------------------------------------------------------------


def test_another_shape_is_noticed_and_a_quadratic_with_roughness_is_not():
    shapes = {
        "quadratic": lambda x: -4 * ((x - 1 / 3) ** 2).sum(axis=1),
        "wave": lambda x: 0.8 * np.sin(9 * x[:, 0]),
    }
    poor = {}
    for name, shape in shapes.items():
        poor[name] = 0
        for seed in range(100):
            random = np.random.default_rng(seed)
            truth = 80 + shape(SHARES) + random.normal(0, 0.05, len(SHARES))
            poor[name] += misfit(fitted(trained(truth, random, seeds=[2] * len(SHARES)))).is_poor
    assert poor["wave"] >= 95
    assert poor["quadratic"] <= 6, "two tests at 1 % each"


def test_leave_one_out_is_that_of_refits():
    random = np.random.default_rng(5)
    truth, _ = planted(random)
    accuracies = trained(truth, random, seeds=[2] * len(SHARES))
    found = fitted(accuracies)
    terms, means = found.basis.at(SHARES), found.means
    errors = []
    for left in range(len(SHARES)):
        kept = np.arange(len(SHARES)) != left
        coefficients = np.linalg.lstsq(terms[kept], means[kept], rcond=None)[0]
        errors.append(means[left] - terms[left] @ coefficients)
    assert misfit(found).loo == pytest.approx(np.sqrt(np.mean(np.square(errors))))


@pytest.mark.parametrize("accuracy", [10.0, 79.3, 1 / 3])
def test_accuracies_that_are_all_equal_fit_a_quadratic(accuracy):
    """Both polynomials meet them up to rounding, which may come out on either side."""
    found = misfit(fitted({f"a{i:02}": [accuracy] * (1 + i % 3) for i in range(len(SHARES))}))
    assert (found.cubic, found.outside) == (1.0, 1.0)
    assert not found.is_poor


def test_a_poor_fit_leaves_the_ranking_to_the_means():
    random = np.random.default_rng(0)
    truth = 80 + 0.8 * np.sin(9 * SHARES[:, 0])
    accuracies = trained(truth, random, seeds=[2] * len(SHARES))
    ranking = rank(arms_of(), accuracies)
    assert ranking.surface is not None
    assert not ranking.rests_on_surface
    assert all(row.estimate == row.mean for row in ranking.rows)
    assert shares_line(ranking, 2.0) == ""


# claims ---------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_excluded_arms_are_wrong_together_at_most_as_often_as_allowed(seed, margin):
    random = np.random.default_rng(seed)
    draws = random.normal(random.normal(0, 2, 8), 0.7, (500, 8))
    leader = int(draws.mean(axis=0).argmax())
    gone = excluded(draws, leader, margin, 0.05)
    near = draws >= draws[:, [leader]] - margin
    assert not gone[leader]
    assert near[:, gone].any(axis=1).mean() <= 0.05
    assert gone.sum() >= excluded(draws, leader, margin + 0.5, 0.05).sum()


def test_untrained_arms_are_ranked_but_never_lead():
    random = np.random.default_rng(4)
    truth, best = planted(random, curvature=8.0, rough=0.0)
    seeds = np.where(((SHARES - best) ** 2).sum(axis=1) < 0.03, 0, 2)
    ranking = rank(arms_of(), trained(truth, random, seeds=seeds), untrained=frozenset(arm.id for arm in arms_of()))
    assert ranking.rests_on_surface
    assert ranking.rows[0].seeds == 0, "the surface peaks where nothing was trained"
    assert next(row for row in ranking.rows if row.id == ranking.leader).seeds == 2
    assert len(ranking.rows) == len(SHARES)
    assert ranking.failed == ()


def test_arms_off_budget_stay_out_of_the_surface():
    random = np.random.default_rng(4)
    accuracies = trained(planted(random)[0], random, seeds=[2] * len(SHARES))
    plain = rank(arms_of(), accuracies)
    off = Arm(id="off", off_budget=True, shares=(0.0, 0.0, 1.0))
    beside = rank([*arms_of(), off], accuracies | {"off": [99.0, 99.2]})
    assert {row.id: row.estimate for row in beside.rows if row.id != "off"} == {
        row.id: row.estimate for row in plain.rows
    }
    assert (beside.rows[0].id, beside.rows[0].p_best, beside.leader) == ("off", None, plain.leader)


def test_the_order_of_arms_changes_nothing():
    random = np.random.default_rng(9)
    accuracies = trained(planted(random)[0], random, seeds=[2] * len(SHARES))
    shuffled = [arms_of()[i] for i in random.permutation(len(SHARES))]
    assert rank(shuffled, accuracies, margin=0.1).to_dict() == rank(arms_of(), accuracies, margin=0.1).to_dict()


def test_the_best_shares_are_told_with_their_intervals_and_the_papers_place():
    random = np.random.default_rng(0)
    truth, _ = planted(random, curvature=20.0, rough=0.0, best=PAPER.shares)
    ranking = rank(
        arms_of(),
        trained(truth, random, seeds=[3] * len(SHARES)),
        margin=0.1,
        named={"paper": PAPER.shares, "width": (0.0, 1.0, 0.0)},
    )
    assert ranking.surface.optimum.named == {"paper": True, "width": False}
    for low, share, high in zip(ranking.surface.optimum.low, PAPER.shares, ranking.surface.optimum.high, strict=True):
        assert low - 0.02 <= share <= high + 0.02
    assert ranking.surface.optimum.region < 0.2


@pytest.mark.slow
def test_a_flat_landscape_has_a_winner_in_at_most_five_percent_of_rankings():
    winners = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        accuracies = trained(np.full(len(SHARES), 80.0), random, seeds=some(random))
        ranking = rank(arms_of(), accuracies, margin=0.1, untrained=frozenset(arm.id for arm in arms_of()))
        winners += ranking.verdict_kind == "winner"
    assert winners <= 5
