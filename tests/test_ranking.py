"""Claims of `ranking`: closed forms, scipy as the peer, honest error rates, order without effect, careful words."""

import json
import math
import statistics
import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scalesearch.errors import StudyError
from scalesearch.ranking import Arm, Ranking, Verdict, rank
from scalesearch.samples import DIGITS, Tally
from scalesearch.verdict import out_of_order, verdict

CAVEAT = "Intervals are conditional on this validation split."


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40))
def test_a_tally_is_the_exact_mean_and_spread_in_any_order(values):
    found = Tally(values).sample(Arm(id="a"))
    rounded = [round(value, DIGITS) for value in values]
    assert found.mean == round(statistics.mean(rounded), DIGITS)
    spread = statistics.variance(rounded) if len(values) > 1 else 0.0
    assert (found.seeds, found.squares) == (len(values), spread * (len(values) - 1))
    assert found == Tally(sorted(values)).sample(Arm(id="a"))


def arms_of(accuracies, off=()):
    return [Arm(id=name, off_budget=name in off) for name in accuracies]


def ranked(accuracies, off=()) -> Ranking:
    return rank(arms_of(accuracies, off), accuracies)


def row(ranking, name):
    return next(row for row in ranking.rows if row.id == name)


def drawn(means, seeds, sd=0.3, seed=0):
    """Accuracies of arms a0, a1, … with the given true means and numbers of seeds."""
    noise = np.random.default_rng(seed)
    return {f"a{i}": list(noise.normal(mean, sd, n)) for i, (mean, n) in enumerate(zip(means, seeds, strict=True))}


def spread(gap, sd, others=0):
    """Arms of two seeds whose pooled deviation is exactly `sd`: two `gap` apart, the others just below the second."""
    half = sd / math.sqrt(2)
    means = [80 + gap, 80.0, *(80 - 0.001 * i for i in range(1, others + 1))]
    return {f"a{i}": [mean - half, mean + half] for i, mean in enumerate(means)}


# closed forms ---------------------------------------------------------------------------------------------------------


def test_two_arms_agree_with_the_closed_form():
    accuracies = {"a": [80.1, 80.5, 80.3], "b": [79.9, 80.4]}
    ranking = ranked(accuracies)
    sd = math.sqrt((0.2**2 + 0.2**2 + 0.25**2 + 0.25**2) / 3)
    assert ranking.noise_sd == pytest.approx(sd)
    assert ranking.df == 3
    half = stats.t.ppf(0.975, 3) * sd / math.sqrt(3)
    first = ranking.rows[0]
    assert (first.id, first.rank, first.seeds) == ("a", 1, 3)
    assert (first.low, first.mean, first.high) == pytest.approx((80.3 - half, 80.3, 80.3 + half))


def test_p_best_of_two_arms_is_that_of_students_t():
    accuracies = {"a": [80.1, 80.5, 80.3], "b": [79.9, 80.4]}
    ranking = ranked(accuracies)
    gap = ranking.rows[0].mean - ranking.rows[1].mean
    expected = stats.t.cdf(gap / (ranking.noise_sd * math.sqrt(1 / 3 + 1 / 2)), ranking.df)
    assert row(ranking, "a").p_best == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("seeds", [(2, 2), (3, 3, 3, 3), (2, 5), (4, 2, 3, 6, 2)])
@pytest.mark.parametrize("step", [0.0, 0.4, 0.9])
def test_decisions_are_those_of_scipy_tukey_hsd(seeds, step):
    decisions = set()
    for seed in range(8):
        accuracies = drawn([80 - step * i for i in range(len(seeds))], seeds, seed=seed)
        ranking = ranked(accuracies)
        peer = stats.tukey_hsd(*accuracies.values()).pvalue[int(ranking.leader[1:])]
        for name, p in zip(accuracies, peer, strict=True):
            assert row(ranking, name).tied_with_best == (p >= 0.05 or name == ranking.leader)
            decisions.add(bool(p >= 0.05))
    assert step == 0.0 or decisions == {True, False}, "the example decides nothing"


def test_the_tie_flips_at_the_tukey_kramer_threshold():
    threshold = stats.studentized_range.ppf(0.95, 3, 3) * 0.2 / math.sqrt(2)
    for factor, tied in ((0.999, True), (1.001, False)):
        accuracies = spread(threshold * factor, 0.2) | {"low": [60 - 0.1 * math.sqrt(2), 60 + 0.1 * math.sqrt(2)]}
        assert row(ranked(accuracies), "a1").tied_with_best is tied


def test_an_arm_with_one_seed_borrows_the_pooled_noise():
    ranking = ranked({"a": [80.0, 80.4], "b": [79.0]})
    assert ranking.df == 1
    half = stats.t.ppf(0.975, 1) * ranking.noise_sd
    assert row(ranking, "b").low == pytest.approx(79 - half)
    assert row(ranking, "b").high == pytest.approx(79 + half)


# seeds ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sd", "normal"), [(0.15, 9), (0.19, 15), (0.56, 124)])
def test_seeds_needed_of_two_arms_is_the_published_number_and_at_most_three_more(sd, normal):
    """Normal approximation for a difference of 0.2 points. Source: docs/design.md, section 4, seed noise."""
    assert normal <= ranked(spread(0.2, sd)).seeds_needed <= normal + 3


@pytest.mark.parametrize("others", [1, 10])
def test_seeds_needed_is_the_first_number_with_the_power(others):
    ranking = ranked(spread(0.2, 0.3, others))
    arms, seeds = others + 2, ranking.seeds_needed

    def power(n):
        q = stats.studentized_range.ppf(0.95, arms, arms * (n - 1))
        return stats.norm.sf(q * 0.3 / math.sqrt(n), loc=0.2, scale=0.3 * math.sqrt(2 / n))

    assert power(seeds) >= 0.8 > power(seeds - 1)


def test_seeds_needed_separate_the_first_two_four_times_in_five():
    seeds = ranked(spread(0.2, 0.15)).seeds_needed
    hits = sum(
        ranking.verdict_kind is Verdict.WINNER and ranking.leader == "a0"
        for ranking in (ranked(drawn([80.2, 80.0], [seeds, seeds], sd=0.15, seed=seed)) for seed in range(150))
    )
    interval = stats.binomtest(hits, 150).proportion_ci(0.999)
    assert interval.low <= 0.8 <= interval.high


@pytest.mark.parametrize(
    "accuracies",
    [
        {"a": [80.0], "b": [79.0]},
        {"a": [80.0, 80.2]},
        {"a": [80.0, 80.2], "b": [80.2, 80.0]},
        {"a": [80.0, 80.2], "b": [10.0, 10.2]},
        {"a": [80.0, 90.0], "b": [79.99, 90.0]},
    ],
    ids=["one seed", "one arm", "equal means", "separated", "above 10,000"],
)
def test_seeds_needed_is_none_where_no_number_would_help(accuracies):
    assert ranked(accuracies).seeds_needed is None


# error rates ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flat():
    """Rankings of 12 networks that are all equally good, two seeds each."""
    return [ranked(drawn([80.0] * 12, [2] * 12, seed=seed)) for seed in range(150)]


@pytest.mark.slow
def test_a_flat_landscape_separates_something_in_five_percent_of_rankings(flat):
    wrong = sum(ranking.verdict_kind is not Verdict.NO_PREFERENCE for ranking in flat)
    interval = stats.binomtest(wrong, len(flat)).proportion_ci(0.99, method="exact")
    assert interval.low <= 0.05 <= interval.high


@pytest.mark.slow
def test_a_flat_landscape_has_a_winner_in_at_most_five_percent_of_rankings(flat):
    winners = sum(ranking.verdict_kind is Verdict.WINNER for ranking in flat)
    assert stats.binomtest(winners, len(flat)).proportion_ci(0.95, method="exact").high <= 0.05


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say(flat):
    covered = [row.low <= 80 <= row.high for ranking in flat for row in ranking.rows]
    assert 0.93 <= np.mean(covered) <= 0.97


# budget, failures, degenerate data ------------------------------------------------------------------------------------


def test_an_arm_off_budget_never_leads_and_is_never_tied():
    accuracies = drawn([80, 80, 80, 80], [3] * 4) | {"off": [80.1, 80.2, 80.3], "far": [99.0, 99.1, 99.2]}
    ranking = ranked(accuracies, off=("off", "far"))
    assert ranking.rows[0].id == "far"
    assert ranking.leader in {"a0", "a1", "a2", "a3"}
    for name in ("off", "far"):
        assert not row(ranking, name).tied_with_best
        assert row(ranking, name).p_best is None
        assert row(ranking, name).low < row(ranking, name).mean < row(ranking, name).high
    assert "far" not in verdict(ranking)


def test_arms_off_budget_add_to_the_noise_but_not_to_the_comparisons():
    accuracies = drawn([80, 79, 78], [3] * 3)
    ranking = ranked(accuracies, off=("a2",))
    assert ranking.df == 6
    threshold = stats.studentized_range.ppf(0.95, 2, 6) * ranking.noise_sd / math.sqrt(3)
    assert row(ranking, "a1").tied_with_best == (row(ranking, "a0").mean - row(ranking, "a1").mean <= threshold)
    assert sum(each.p_best for each in ranking.on_budget) == pytest.approx(1, abs=1e-3)


def test_arms_without_a_finished_trial_are_failed():
    arms = [Arm(id=name) for name in ("a", "empty", "b", "missing")]
    ranking = rank(arms, {"a": [80.0, 80.1], "empty": [], "b": [80.0, 80.2], "anchor": [70.0]})
    assert ranking.failed == ("empty", "missing")
    assert {each.id for each in ranking.rows} == {"a", "b"}
    assert "2 candidates have no finished trial" in verdict(ranking)


def test_without_noise_intervals_have_no_width_and_only_equal_means_are_tied():
    accuracies = {"a": [80.1] * 3, "b": [80.1] * 7, "c": [80.0], "d": [79.9] * 2}
    ranking = ranked(accuracies)
    assert ranking.noise_sd == 0
    assert all(each.low == each.mean == each.high for each in ranking.rows)
    assert [each.id for each in ranking.rows if each.tied_with_best] == ["a", "b"]
    assert [each.p_best for each in ranking.rows] == [0.5, 0.5, 0, 0]
    assert ranking.seeds_needed is None
    assert ranking.verdict_kind is Verdict.TIED


def test_float_rounding_breaks_no_tie():
    ranking = ranked({"a": [85.2, 85.2], "b": [85.1, 85.3], "c": [85.1 + 0.1, 85.2]})
    assert [each.id for each in ranking.rows] == ["a", "b", "c"]
    assert len({each.mean for each in ranking.rows}) == 1
    assert ranked({"c": [85.1 + 0.2, 85.3]}).noise_sd == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_accuracy_that_is_not_finite_is_refused(value):
    with pytest.raises(StudyError, match=r"arm a: .* finite"):
        ranked({"a": [80.0, value]})


def test_two_arms_with_one_id_are_refused():
    with pytest.raises(StudyError, match="share an id"):
        rank([Arm(id="a"), Arm(id="a", off_budget=True)], {"a": [80.0]})


# stability ------------------------------------------------------------------------------------------------------------


def test_the_order_of_arms_mapping_and_seeds_changes_nothing():
    accuracies = drawn([80, 80.1, 80.2, 79, 80, 81], [2, 3, 2, 4, 1, 2])
    expected = ranked(accuracies)
    shuffle = np.random.default_rng(1)
    for _ in range(5):
        names = [str(name) for name in shuffle.permutation(list(accuracies))]
        shuffled = {name: [float(v) for v in shuffle.permutation(accuracies[name])] for name in names}
        assert ranked(shuffled) == expected
        assert rank(arms_of(accuracies), shuffled) == expected


def test_equal_means_stand_in_the_order_of_the_arms():
    accuracies = {"b": [80.0, 80.2], "a": [80.2, 80.0], "c": [81.0, 81.2]}
    assert [each.id for each in ranked(accuracies).rows] == ["c", "b", "a"]


def test_two_calls_are_equal():
    accuracies = drawn([80] * 12, [3] * 12)
    assert ranked(accuracies) == ranked(accuracies)


@pytest.mark.parametrize("means", [[80.0] * 6, [80, 79.9, 79.8, 60, 60, 60]])
def test_p_best_sums_to_one_and_follows_the_means(means):
    ranking = ranked(drawn(means, [3] * 6))
    chances = [each.p_best for each in ranking.rows]
    assert sum(chances) == pytest.approx(1, abs=1e-3)
    assert chances == sorted(chances, reverse=True)


def test_to_dict_is_json_with_four_decimals_and_the_agreed_keys():
    accuracies = drawn([80, 79, 78], [3, 2, 1])
    arms = [Arm(id="a0", references=("uniform", "paper")), Arm(id="a1"), Arm(id="a2", off_budget=True), Arm(id="x")]
    plain = rank(arms, accuracies).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert " ".join(plain) == "rests_on margin noise_sd df seeds_needed surface failed silent candidates"
    assert (plain["rests_on"], plain["margin"], plain["surface"]) == ("means", 0.0, None)
    assert " ".join(plain["candidates"][0]) == (
        "id rank estimate low high mean seeds p_best tied_with_best references off_budget"
    )
    assert all(each["estimate"] == each["mean"] for each in plain["candidates"])
    assert plain["failed"] == ["x"]
    assert next(each for each in plain["candidates"] if each["id"] == "a0")["references"] == ["uniform", "paper"]
    floats = [value for each in (plain, *plain["candidates"]) for value in each.values() if isinstance(value, float)]
    assert floats
    assert all(value == round(value, 4) for value in floats)


@pytest.mark.parametrize(("arms", "limit"), [(12, 0.7), (80, 2.0)])
def test_ranking_is_fast(arms, limit):
    accuracies = drawn(np.linspace(80, 81, arms), [3] * arms)
    start = time.perf_counter()
    ranked(accuracies)
    assert time.perf_counter() - start < limit


# words ----------------------------------------------------------------------------------------------------------------

EXAMPLES = {
    Verdict.WINNER: {"a": [86.2, 86.4], "b": [80.0, 80.2], "c": [81.0, 81.1]},
    Verdict.TIED: {"a": [86.2, 86.4], "b": [86.1, 86.4], "c": [70.0, 70.2]},
    Verdict.NO_PREFERENCE: {"a": [86.2, 86.4], "b": [86.1, 86.4], "c": [86.0, 86.3]},
    Verdict.NO_INTERVAL: {"a": [86.2], "b": [80.0], "c": [70.0]},
    Verdict.SINGLE: {"a": [86.2, 86.4]},
    Verdict.NOTHING: {},
}


@pytest.mark.parametrize("kind", Verdict)
def test_each_verdict_has_its_data(kind):
    ranking = ranked(EXAMPLES[kind])
    assert ranking.verdict_kind is kind
    assert ranking.leader == (None if kind is Verdict.NOTHING else "a")


@pytest.mark.parametrize("kind", Verdict)
def test_only_a_winner_is_called_best(kind):
    assert ("best" in verdict(ranked(EXAMPLES[kind])).lower()) is (kind is Verdict.WINNER)


@pytest.mark.parametrize("kind", Verdict)
def test_every_verdict_with_intervals_ends_with_their_condition(kind):
    ranking = ranked(EXAMPLES[kind])
    assert verdict(ranking).endswith(CAVEAT) is (ranking.noise_sd is not None)


def test_a_winner_is_named_with_its_interval():
    assert verdict(ranked(EXAMPLES[Verdict.WINNER])) == (
        "Best: a (86.30 %, 95 % interval 86.02 to 86.58 %); each of the other 2 candidates is separated from it "
        f"(Tukey's HSD at 5 % family-wise). {CAVEAT}"
    )


def test_a_tie_says_how_many_and_how_many_seeds_would_help():
    ranking = ranked(EXAMPLES[Verdict.TIED])
    text = verdict(ranking)
    assert text.startswith("a (86.30 %, 95 % interval ")
    assert "1 of the other 2 candidates cannot be told apart from it" in text
    assert f"About {ranking.seeds_needed:,} seeds each would separate the first two, if" in text


def test_a_flat_ranking_says_no_preference():
    text = verdict(ranked(EXAMPLES[Verdict.NO_PREFERENCE]))
    assert text.startswith("No preference shown: all 3 candidates are tied")
    assert "both candidates are tied" in verdict(ranked({"a": [80.0, 80.2], "b": [80.1, 80.2]}))


def test_one_seed_each_says_no_interval_and_no_winner():
    ranking = ranked(EXAMPLES[Verdict.NO_INTERVAL])
    text = verdict(ranking)
    assert text.startswith("One seed per candidate: no interval and no winner;")
    assert "a (86.20 %)" in text
    assert (ranking.noise_sd, ranking.df, ranking.seeds_needed) == (None, 0, None)
    assert all((each.low, each.high, each.p_best) == (None, None, None) for each in ranking.rows)
    assert all(each.tied_with_best for each in ranking.rows), "nothing is told apart where the noise is unknown"


def test_a_single_arm_claims_nothing():
    ranking = ranked({"a": [80.0, 80.2], "off": [90.0, 90.2], "failed": []}, off=("off",))
    text = verdict(ranking)
    assert text.startswith("Only one candidate on budget has results: a (80.10 %")
    assert row(ranking, "a").low is not None
    assert (row(ranking, "a").p_best, row(ranking, "a").is_shown_tied) == (None, False)
    assert "1 candidate has no finished trial" in text


def test_only_arms_off_budget_are_no_result():
    ranking = ranked({"off": [90.0, 90.2]}, off=("off",))
    assert (ranking.leader, ranking.verdict_kind) == (None, Verdict.NOTHING)


@pytest.mark.parametrize(("seeds", "step"), list(product([1, 2, 3], [0.0, 0.3, 2.0])))
def test_a_verdict_never_claims_more_than_its_kind(seeds, step):
    for seed in range(5):
        ranking = ranked(drawn([80 - step * i for i in range(5)], [seeds] * 5, seed=seed))
        tied = sum(each.tied_with_best for each in ranking.rows)
        assert verdict(ranking).startswith("Best") is (tied == 1)


# ---- ties out of the order of ranks


def test_a_tie_below_what_is_told_apart_is_explained():
    found = ranked({"first": [80.0, 80.3, 79.7, 80.1], "sure": [79.3, 79.6, 79.5, 79.3], "once": [79.35]})
    assert [(one.id, one.tied_with_best) for one in found.rows] == [("first", True), ("sure", False), ("once", True)]
    assert out_of_order(found).startswith("once cannot be told apart from the first although sure, above it, can:")


def test_ties_in_the_order_of_ranks_need_no_explanation():
    assert out_of_order(ranked(drawn([80.0, 79.9, 70.0], [3, 3, 3]))) == ""
    assert out_of_order(ranked({"a": [80.0], "b": [79.0]})) == ""
    assert out_of_order(ranked({})) == ""
