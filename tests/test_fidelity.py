"""Claims of `fidelity`: scipy as the peer, known populations, planted and absent flips, order without effect, words."""

import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scalesearch import fidelity as module
from scalesearch.errors import StudyError
from scalesearch.fidelity import Agreement, Fidelity, Flip, Trust, fidelity, text

REGIONS = ("depth", "width", "resolution")


def named(values, seeds=1, sd=0.0, noise=None):
    """Accuracies of arms a00, a01, … with these true means."""
    noise = noise or np.random.default_rng(0)
    return {f"a{i:02}": [float(v) for v in value + noise.normal(0, sd, seeds)] for i, value in enumerate(values)}


def compared(short, long, regions=None) -> Agreement:
    """Two rungs of one seed each, 4 and 16 epochs."""
    return fidelity({4: named(short), 16: named(long)}, regions or {}).agreements[0]


def in_turn(count):
    """Regions of arms a00, a01, …: depth, width, resolution, depth, …"""
    return {f"a{i:02}": REGIONS[i % 3] for i in range(count)}


def agreement(low, high, flips=()) -> Agreement:
    given = {"tau": (low + high) / 2, "low": low, "high": high, "arms": 24, "restricted": False}
    return Agreement(short=4, long=16, flips=flips, moved=(), **given)


# tau ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("levels", [3, 8, 1000], ids=["many ties", "some ties", "hardly a tie"])
def test_tau_is_scipys(seed, levels):
    draw = np.random.default_rng(seed)
    short, long = draw.integers(0, levels, (2, 15))
    expected = stats.kendalltau(short, long, variant="b").statistic
    assert compared(short, long).tau == pytest.approx(expected, abs=1e-12)


def test_tau_is_that_of_the_means_over_the_arms_that_both_rungs_have():
    short = {"a": [60, 62], "b": [61.5], "c": [70, 71, 72], "d": [69], "gone": [10], "empty": [1]}
    long = {"d": [90], "a": [80], "b": [79, 80.5], "c": [88], "new": [5], "empty": []}
    expected = stats.kendalltau([61, 61.5, 71, 69], [80, 79.75, 88, 90]).statistic
    result = fidelity({16: long, 4: short}, {}).agreements[0]
    assert (result.tau, result.arms, result.restricted) == (pytest.approx(expected), 4, True)
    assert 0 < expected < 1


def test_perfect_and_reversed_orders_are_one_and_minus_one_without_doubt():
    values = [80.0, 81.3, 82.1, 82.2, 85.0, 86.0]
    assert [(each.tau, each.low, each.high) for each in (compared(values, values), compared(values, values[::-1]))] == [
        (1, 1, 1),
        (-1, -1, -1),
    ]


def test_float_rounding_breaks_no_tie():
    assert np.mean([0.1, 0.2, 0.3]) != 0.2, "there is no rounding to break a tie"
    short = {"a": [0.1, 0.2, 0.3], "b": [0.2], "c": [0.5]}
    long = {"a": [1.0], "b": [2.0], "c": [3.0]}
    expected = stats.kendalltau([0.3, 0.3, 0.5], [1, 2, 3]).statistic
    assert fidelity({1: short, 2: long}, {}).agreements[0].tau == pytest.approx(expected)


# interval -------------------------------------------------------------------------------------------------------------


def test_the_same_arm_drawn_twice_is_no_pair():
    """Five arms in order: any two different ones agree, so a tau below or above 1 can only come of a doubled arm."""
    values = np.array([[1.0, 1.0, 2.0, 3.0], [1.2, 0.9, 2.0, 3.0]]).T  # second draw: two draws of seeds of arm 0
    other = np.array([[4.0, 4.0, 5.0, 6.0], [4.0, 4.3, 5.0, 6.0]]).T
    same, apart = np.array([[0, 0, 1, 2]] * 2).T, np.array([[0, 3, 1, 2]] * 2).T
    assert module._tau(values, other, same).tolist() == [1, 1]
    assert module._tau(values, other, apart)[1] == pytest.approx(stats.kendalltau(values[:, 1], other[:, 1]).statistic)
    assert stats.kendalltau(values[:, 1], other[:, 1]).statistic < 1


def test_arms_drawn_twice_do_not_lift_tau():
    """The draws centre on tau; pairs of an arm with itself, counted as agreeing, would lift them by some 1 / arms."""
    draw = np.random.default_rng(5)
    short, long = draw.normal(80, 1, (2, 10))
    arms = draw.integers(0, 10, (10, 20_000))
    taus = module._tau(short[arms], long[arms], arms)
    honest = stats.kendalltau(short, long).statistic
    assert np.nanmean(taus) == pytest.approx(honest, abs=0.02)
    assert honest < 0.5, "there is nothing to lift"


def test_the_interval_is_that_of_scipys_tau_over_drawn_arms():
    """With one seed each; scipy's tau-b, too, leaves out pairs that are tied at both rungs, as doubled arms are."""
    draw = np.random.default_rng(2)
    short = draw.normal(80, 1, 15)
    long = short + draw.normal(0, 1, 15)
    drawn = (draw.integers(0, 15, 15) for _ in range(3000))
    taus = [stats.kendalltau(short[arms], long[arms]).statistic for arms in drawn]
    result = compared(short, long)
    assert (result.low, result.high) == pytest.approx(np.quantile(taus, [0.025, 0.975]), abs=0.025)
    assert np.quantile(taus, 0.05) - np.quantile(taus, 0.025) > 0.03, "the example tells no 5 % from 2.5 %"


def test_two_calls_are_equal():
    short, long = np.random.default_rng(2).normal(80, 1, (2, 40))
    rungs = {4: named(short, 3, 0.5), 16: named(long, 3, 0.5)}
    assert fidelity(rungs, in_turn(40)) == fidelity(rungs, in_turn(40))


def test_seeds_of_the_own_arm_are_drawn_and_no_others():
    rung = {"a": (1.0, 2.0), "b": (5.0,), "c": (10.0, 20.0, 30.0)}
    arms = np.tile(np.array([[0], [1], [2]]), (1, 40_000))
    means = module._redrawn(rung, arms, np.random.default_rng(0))
    assert set(means[0]) == {1.0, 1.5, 2.0}
    assert set(means[1]) == {5.0}
    assert means.mean(axis=1) == pytest.approx([1.5, 5, 20], rel=0.01)
    assert means[2].std() == pytest.approx(np.std([10, 20, 30]) / math.sqrt(3), rel=0.02)


def test_noise_between_seeds_widens_the_interval():
    means = np.linspace(80, 82, 12)
    quiet, loud = (fidelity({4: named(means, 2, sd), 16: named(means, 2, sd)}, {}).agreements[0] for sd in (0.001, 0.5))
    assert (quiet.low, quiet.high) == (1, 1)
    assert loud.high - loud.low > 0.1


def covered(tau, arms, simulations=200):
    """How many of the intervals hold the tau of a bivariate normal population; eight seeds with hardly any noise.

    Source: tau = 2/pi · asin(rho), Kruskal (1958), JASA 53(284).
    """
    noise, rho = np.random.default_rng(11), math.sin(math.pi * tau / 2)
    hits = 0
    for _ in range(simulations):
        short, long = noise.multivariate_normal([80, 80], [[1, rho], [rho, 1]], arms).T
        rungs = {4: named(short, 8, 0.01, noise), 16: named(long, 8, 0.01, noise)}
        result = fidelity(rungs, {}).agreements[0]
        hits += result.low <= tau <= result.high
    return hits / simulations


@pytest.mark.slow
@pytest.mark.parametrize("tau", [0.0, 0.4, 0.7])
def test_the_interval_covers_the_populations_tau_as_often_as_it_says(tau):
    assert 0.9 <= covered(tau, arms=40) <= 0.99


@pytest.mark.slow
def test_an_order_that_is_barely_useful_is_seldom_called_trustworthy():
    """At the threshold itself, few arms: twice the nominal 2.5 % and a little more, as the interval is approximate."""
    noise, rho = np.random.default_rng(3), math.sin(math.pi * module.USEFUL_TAU / 2)
    verdicts = []
    for _ in range(400):
        short, long = noise.multivariate_normal([80, 80], [[1, rho], [rho, 1]], 12).T
        verdicts.append(fidelity({4: named(short), 16: named(long)}, {}).verdict)
    assert verdicts.count(Trust.TRUSTWORTHY) / 400 <= 0.06
    assert verdicts.count(Trust.DOUBTFUL) / 400 >= 0.85


def test_77_arms_are_fast():
    means = np.linspace(80, 82, 77)
    rungs = {rung: named(means, 3, 0.3, np.random.default_rng(rung)) for rung in (4, 16)}
    start = time.perf_counter()
    fidelity(rungs, in_turn(77))
    assert time.perf_counter() - start < 0.7


# regions --------------------------------------------------------------------------------------------------------------


def planted(short_lead, long_lead, arms=12, sd=0.3, seed=0):
    """Trainings of 4 and 16 epochs: width ahead of depth by `short_lead` and behind by `long_lead` [points]."""
    noise = np.random.default_rng(seed)
    regions = {f"a{i:02}": ("depth", "width")[i % 2] for i in range(arms)}
    leads = np.array([i % 2 for i in range(arms)])
    rungs = {
        4: named(60 + short_lead * leads + noise.normal(0, sd, arms), 3, 0.1, noise),
        16: named(80 - long_lead * leads + noise.normal(0, sd, arms), 3, 0.1, noise),
    }
    return rungs, regions


def test_a_planted_flip_is_reported_with_its_points():
    rungs, regions = planted(1.0, 1.0)
    result = fidelity(rungs, regions)
    (flip,) = result.agreements[0].flips
    means = {rung: {name: np.mean(values) for name, values in arms.items()} for rung, arms in rungs.items()}

    def lead(rung):
        width, depth = ([v for name, v in means[rung].items() if regions[name] == r] for r in ("width", "depth"))
        return np.mean(width) - np.mean(depth)

    assert (flip.better_short, flip.better_long) == ("width", "depth")
    assert (flip.short_points, flip.long_points) == pytest.approx((lead(4), -lead(16)))
    assert result.verdict is Trust.NOT


def test_a_flip_needs_both_differences_beyond_two_standard_errors():
    """Two arms ±1 around their mean: the standard error is 1 for each region and √2 for the difference."""
    assert module._lead([1, 3], [0, 2]) == pytest.approx((1, math.sqrt(2)))
    regions = {"a00": "depth", "a01": "depth", "a02": "width", "a03": "width"}
    for short, long, count in ((2.83, 2.83, 1), (2.82, 2.83, 0), (2.83, 2.82, 0), (2.83, -2.83, 0)):
        rungs = [[60 + 1, 60 - 1, 60 + short + 1, 60 + short - 1], [80 + long + 1, 80 + long - 1, 81, 79]]
        assert len(compared(*rungs, regions).flips) == count, (short, long)


def test_a_region_of_one_arm_never_flips():
    values = [60.0, 60.1, 60.2, 65.0]
    regions = {"a00": "depth", "a01": "depth", "a02": "depth", "a03": "width"}
    assert compared(values, [90, 90.1, 90.2, 85], regions).flips == ()
    assert len(compared([*values, 65.1], [90, 90.1, 90.2, 85, 85.1], regions | {"a04": "width"}).flips) == 1


def test_arms_without_a_region_count_for_tau_alone():
    rungs, regions = planted(1.0, 1.0)
    assert fidelity(rungs, {}).agreements[0].tau == fidelity(rungs, regions).agreements[0].tau
    assert fidelity(rungs, {}).agreements[0].flips == ()


def test_flips_look_only_at_arms_that_both_rungs_have():
    rungs, regions = planted(1.0, 1.0)
    rungs[4] |= {"x": [99.0], "y": [99.1]}
    result = fidelity(rungs, regions | {"x": "depth", "y": "depth"}).agreements[0]
    assert [flip.better_short for flip in result.flips] == ["width"]
    assert result.restricted
    assert not fidelity(*planted(1.0, 1.0)).agreements[0].restricted


def test_equal_regions_hardly_ever_flip():
    """Three equal regions of four arms: each pair flips by chance in about 2 · (P(t > 2) ≈ 0.05)² of studies."""
    false = 0
    for seed in range(200):
        noise = np.random.default_rng(seed)
        short, long = noise.normal(80, 0.5, (2, 12))
        false += bool(compared(short, long, in_turn(12)).flips)
    assert false / 200 <= 0.03


def test_a_planted_flip_is_nearly_always_found():
    assert sum(bool(fidelity(*planted(1.0, 1.0, seed=seed)).agreements[0].flips) for seed in range(50)) >= 48


# places ---------------------------------------------------------------------------------------------------------------


def test_an_arm_that_falls_behind_the_final_leader_beyond_noise_has_moved():
    short = {"lead": [60.0, 60.2], "fell": [62.0, 62.2], "near": [60.3, 60.5], "low": [50.0, 50.2]}
    long = {"lead": [80.0, 80.2], "fell": [78.0, 78.2], "near": [78.0, 78.2], "low": [70.0, 70.2]}
    # pooled deviation √0.02, of a difference 0.1414; `near` is 0.3 ahead: 2.1 standard errors
    assert fidelity({4: short, 16: long}, {}).agreements[0].moved == ("fell", "near")
    short["near"] = [60.13, 60.33]  # 0.13 ahead: 0.9 standard errors
    assert fidelity({4: short, 16: long}, {}).agreements[0].moved == ("fell",)
    short["near"] = [60.25, 60.45]  # 1.8 standard errors
    assert fidelity({4: short, 16: long}, {}).agreements[0].moved == ("fell",)
    long["fell"] = [79.9, 80.1]  # 0.7 standard errors behind
    assert fidelity({4: short, 16: long}, {}).agreements[0].moved == ()


def test_without_noise_an_arm_level_with_the_leader_has_not_moved():
    short = {"lead": [60.0, 60.0], "level": [60.0, 60.0], "ahead": [60.1, 60.1]}
    long = {"lead": [80.0, 80.0], "level": [79.0, 79.0], "ahead": [79.0, 79.0]}
    assert fidelity({4: short, 16: long}, {}).agreements[0].moved == ("ahead",)


def test_the_noise_of_moved_arms_is_pooled_over_all_seeds():
    """Squares 2 · 0.01 of three seeds and none of the other arms': √(0.02 / 4), of a mean of 3 and one of 2: 0.0645."""
    short = {"lead": [59.9, 60.0, 60.1], "fell": [60.125, 60.125], "rest": [1.0, 1.0]}
    long = {"lead": [80.0, 80.0], "fell": [70.0, 70.0]} | {"rest": [1.0, 1.0]}
    assert module._noise(short) == pytest.approx(math.sqrt(0.02 / 4))
    assert fidelity({4: short, 16: long}, {}).agreements[0].moved == ()  # 1.9 standard errors
    short["fell"] = [60.135, 60.135]  # 2.1
    assert fidelity({4: short, 16: long}, {}).agreements[0].moved == ("fell",)


@pytest.mark.parametrize("bare", [4, 16])
def test_no_arm_has_moved_where_the_noise_is_unknown(bare):
    rungs = {4: {"lead": [60.0, 60.1], "fell": [65.0, 65.1]}, 16: {"lead": [80.0, 80.1], "fell": [75.0, 75.1]}}
    assert fidelity(rungs, {}).agreements[0].moved == ("fell",)
    rungs[bare] = {name: values[:1] for name, values in rungs[bare].items()}
    assert fidelity(rungs, {}).agreements[0].moved == ()


# verdict --------------------------------------------------------------------------------------------------------------

FLIP = Flip(better_short="width", better_long="depth", short_points=1.04, long_points=0.6)
CASES = [
    (0.4, 0.8, (), Trust.TRUSTWORTHY),
    (0.39, 0.8, (), Trust.DOUBTFUL),
    (-0.2, 0.4, (), Trust.DOUBTFUL),
    (-0.2, 0.39, (), Trust.NOT),
    (0.7, 0.9, (FLIP,), Trust.NOT),
]


@pytest.mark.parametrize(("low", "high", "flips", "trust"), CASES)
def test_the_verdict_follows_its_rule(low, high, flips, trust):
    assert module._trust([agreement(low, high, flips)]) is trust


def test_the_verdict_is_that_of_the_longest_of_the_shorter_rungs():
    (rungs, regions), values = planted(1.0, 1.0), np.linspace(80, 90, 12)
    result = fidelity({64: rungs[16], 16: rungs[16], 4: rungs[4], 1: named(values)}, regions)
    assert [(each.short, each.long) for each in result.agreements] == [(1, 64), (4, 64), (16, 64)]
    assert result.verdict is Trust.TRUSTWORTHY
    assert "Regions change places: at 4 epochs width is ahead of depth by " in text(result)
    assert fidelity({rung: result for rung, result in rungs.items() if rung < 64}, regions).verdict is Trust.NOT


def test_from_five_arms_on_there_is_an_interval_and_a_verdict():
    values = [80.0, 81, 82, 83, 84]
    four, five = (fidelity({4: named(values[:n]), 16: named(values[:n])}, {}) for n in (4, 5))
    assert (four.verdict, five.verdict) == (Trust.UNKNOWN, Trust.TRUSTWORTHY)
    assert (four.agreements[0].tau, four.agreements[0].low, four.agreements[0].high) == (1, None, None)


def test_without_any_order_there_is_no_tau():
    result = fidelity({4: named([80.0] * 6), 16: named([80.0, 81, 82, 83, 84, 85])}, {})
    assert (result.agreements[0].tau, result.agreements[0].low, result.verdict) == (None, None, Trust.UNKNOWN)
    assert text(result).startswith("All candidates are equal at 4 or at 16 epochs: ")


def test_rungs_without_a_finished_training_are_left_out():
    result = fidelity({4: {"a": [60.0]}, 16: {}, 64: {"a": []}}, {})
    assert (result.rungs, result.agreements, result.verdict) == ((4,), (), Trust.UNKNOWN)


def test_rungs_that_share_no_arm_are_unknown():
    result = fidelity({4: {"a": [60.0, 61.0]}, 16: {"b": [80.0, 81.0]}}, {})
    assert (result.agreements[0].arms, result.agreements[0].tau, result.verdict) == (0, None, Trust.UNKNOWN)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_accuracy_that_is_not_finite_is_refused(value):
    with pytest.raises(StudyError, match=r"arm a: .* finite"):
        fidelity({4: {"a": [80.0, value]}}, {})


# stability ------------------------------------------------------------------------------------------------------------

ACCURACIES = st.lists(st.integers(0, 100).map(lambda tenths: tenths / 10), min_size=0, max_size=3)
RUNG = st.dictionaries(st.sampled_from([f"a{i}" for i in range(8)]), ACCURACIES, min_size=5)


@settings(max_examples=40, deadline=None)
@given(rungs=st.dictionaries(st.sampled_from([1, 4, 16]), RUNG, min_size=2), shuffle=st.randoms(use_true_random=False))
def test_the_order_of_rungs_arms_seeds_and_regions_changes_nothing(rungs, shuffle):
    regions = {f"a{i}": REGIONS[i % 3] for i in range(8)}

    def shuffled(items):
        return shuffle.sample(list(items), len(items))

    again = {
        rung: {name: shuffled(arms[name]) for name in shuffled(arms)} for rung, arms in shuffled(list(rungs.items()))
    }
    assert fidelity(again, dict(shuffled(list(regions.items())))) == fidelity(rungs, regions)


def test_to_dict_is_json_with_four_decimals_and_the_agreed_keys():
    rungs, regions = planted(1.0, 1.0)
    plain = fidelity(rungs, regions).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert list(plain) == ["rungs", "agreements", "verdict"]
    assert type(plain["verdict"]) is str
    (pair,) = plain["agreements"]
    assert " ".join(pair) == "short long tau low high arms flips moved restricted"
    assert " ".join(pair["flips"][0]) == "better_short better_long short_points long_points"
    floats = [value for each in (pair, *pair["flips"]) for value in each.values() if isinstance(value, float)]
    assert len(floats) == 5
    assert all(value == round(value, 4) for value in floats)


# words ----------------------------------------------------------------------------------------------------------------


def told(low, high, flips=()):
    only = agreement(low, high, flips)
    return text(Fidelity(rungs=(4, 16), agreements=(only,), verdict=module._trust([only])))


def test_agreement_is_told_with_its_interval():
    assert (
        told(0.52, 0.9)
        == "Short and long training agree (τ 0.71, 0.52 to 0.90 over 24 candidates, 4 against 16 epochs)."
    )
    assert told(0.2, 0.6) == (
        "Whether short and long training agree is open (τ 0.40, 0.20 to 0.60 over 24 candidates, 4 against 16 epochs)."
    )


def test_a_low_tau_blames_noise_too():
    assert told(-0.2, 0.2) == (
        "Short training, noise included, says little of the order after long training "
        "(τ 0.00, -0.20 to 0.20 over 24 candidates, 4 against 16 epochs)."
    )


def test_a_flip_is_told_with_both_leads():
    assert told(0.5, 0.7, (FLIP,)) == (
        "Short and long training disagree: at 4 epochs width is ahead of depth by 1.04 points, "
        "at 16 epochs depth is ahead of width by 0.60."
    )


def test_survivors_of_a_race_are_named_as_such():
    values = list(np.linspace(80, 90, 9))
    assert "over the 6 candidates that went on, 4 against 16 epochs" in text(
        fidelity({4: named(values), 16: named(values[:6])}, {})
    )


@pytest.mark.parametrize(
    ("rungs", "why"),
    [
        ({}, "No finished training"),
        ({4: {"a": [80.0]}}, "Only one training length"),
        (
            {1: {"a": [80.0], "b": [1.0]}, 4: {"a": [90.0]}},
            "Fewer than 5 candidates (1) have results at both 1 and 4 epochs",
        ),
    ],
)
def test_what_is_unknown_says_why(rungs, why):
    assert text(fidelity(rungs, {})) == f"{why}: whether longer training keeps this order is not known."


def test_a_flip_among_few_arms_is_told_though_the_order_is_unknown():
    regions = {"a00": "depth", "a01": "depth", "a02": "width", "a03": "width"}
    result = fidelity({1: named([60.0, 60.1, 65.0, 65.1]), 16: named([85.0, 85.1, 80.0, 80.1])}, regions)
    assert result.verdict is Trust.UNKNOWN
    assert text(result).endswith(
        "Regions change places: at 1 epoch width is ahead of depth by 5.00 points, "
        "at 16 epochs depth is ahead of width by 5.00."
    )
