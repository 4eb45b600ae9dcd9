"""Budgets as text, the grid under its constraint, and the candidates it leads to: equal compute, recounted."""

import dataclasses
import math
from collections import Counter
from fractions import Fraction
from functools import cache
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesearch.candidates import Candidate, spread, trained_proxies
from scalesearch.cost import count
from scalesearch.errors import SpaceError
from scalesearch.families import find_base
from scalesearch.plan import Layout, Plan
from scalesearch.request import Request, resolve
from scalesearch.scaling import DIMENSIONS, PAPER, Coefficients, Rounding, channels, scale_widths
from scalesearch.space import LARGEST_BUDGET, REFERENCES, Space, parse_budget
from scalesearch.spec import Network

B0_MACS = 385_814_752  # a counter that matches fvcore and pycls to the unit


# ---- budgets as text


@pytest.mark.parametrize(
    ("text", "growth"),
    [("2x", 2), ("1.5x", 1.5), ("0.5x", 0.5), (".5x", 0.5), ("4x", 4), ("4.X", 4), (" 2 x ", 2), ("16x", 16)],
)
def test_a_growth_is_taken_as_it_stands(text: str, growth: float):
    assert parse_budget(text, B0_MACS) == growth


@pytest.mark.parametrize(("text", "macs"), [("800M", 800e6), ("1.2G", 1.2e9), ("800m", 800e6), ("0.1g", 1e8)])
def test_an_amount_of_compute_is_a_growth_over_the_base(text: str, macs: float):
    assert parse_budget(text, B0_MACS) == macs / B0_MACS


@pytest.mark.parametrize(
    "text",
    ["", " ", "x", "2", "abc", "-2x", "+2x", "2xx", "2x 3x", "1e400x", "1e2x", "nanx", "infx", "2,5x", "0x2x", "2K"],
)
def test_what_is_no_budget_is_answered_with_the_forms(text: str):
    with pytest.raises(SpaceError) as caught:
        parse_budget(text, B0_MACS)
    assert repr(text) in caught.value.message
    assert all(form in caught.value.mend for form in ("2x", "0.5x", "800M", "1.2G"))


@pytest.mark.parametrize("text", ["0x", "0.0x", "0M", "65x", "0.01x", "1M", "100G", "9" * 400 + "x"])
def test_a_budget_out_of_reach_is_answered_with_the_bounds(text: str):
    with pytest.raises(SpaceError) as caught:
        parse_budget(text, B0_MACS)
    assert f"1/{LARGEST_BUDGET:g}x to {LARGEST_BUDGET:g}x" in caught.value.mend


@pytest.mark.parametrize("text", ["1x", "1.0x", "1.01x", "0.98x", "385.814752M", "0.385814752G"])
def test_the_base_itself_is_no_budget(text: str):
    with pytest.raises(SpaceError, match="the base itself") as caught:
        parse_budget(text, B0_MACS)
    assert "1.03x" in caught.value.mend
    assert "0.97x" in caught.value.mend


# ---- the grid


@pytest.mark.parametrize(("budget", "points"), [(2.0, 108), (4.0, 87), (8.0, 94)])
def test_the_grid_has_the_published_number_of_points(budget: float, points: int):
    assert len(Space.of(budget).grid()) == points


def axis(end: Fraction, step: Fraction, *, squared: bool) -> list[Fraction]:
    """1, 1 ± step, … towards a bound in exact arithmetic; a root (`squared`) is passed, a plain bound is not."""
    sign = 1 if end > 1 else -1

    def beyond(value: Fraction) -> bool:
        reached = value**2 if squared else value
        return sign * (reached - end) > 0

    values = [Fraction(1)]
    while not beyond(values[-1] + sign * step):
        values.append(values[-1] + sign * step)
    if squared and values[-1] ** 2 != end:
        values.append(values[-1] + sign * step)
    return values


def exact_grid(budget: Fraction, step: Fraction, tolerance: Fraction) -> set[tuple[Fraction, ...]]:
    alphas, betas = axis(budget, step, squared=False), axis(budget, step, squared=True)
    points = product(alphas, betas, betas)
    return {(a, b, c) for a, b, c in points if abs(a * b**2 * c**2 - budget) < tolerance}


# growth, step 0.05·max(1, log2 growth), tolerance 0.05·growth: all of them decimal, so exact
GRIDS = {
    "2": "0.05",
    "4": "0.1",
    "8": "0.15",
    "1.5": "0.05",
    "0.5": "0.05",
    "0.25": "0.05",
    "0.38": "0.05",
    "1.2": "0.05",
}


@pytest.mark.parametrize(("budget", "step"), GRIDS.items())
def test_the_default_grid_is_that_of_exact_arithmetic(budget: str, step: str):
    asked = Fraction(budget)
    grid = Space.of(float(asked)).grid()
    found = {tuple(Fraction(str(value)) for value in (p.alpha, p.beta, p.gamma)) for p in grid}
    assert len(found) == len(grid)
    assert found == exact_grid(asked, Fraction(step), asked / 20)


@pytest.mark.parametrize(("step", "tolerance"), [("0.1", "0.1"), ("0.02", "0.05"), ("0.25", "0.3"), ("0.05", "0.2")])
def test_step_and_tolerance_make_the_grid_they_say(step: str, tolerance: str):
    grid = Space.of(2.0, step=float(step), tolerance=float(tolerance)).grid()
    found = {tuple(Fraction(str(value)) for value in (p.alpha, p.beta, p.gamma)) for p in grid}
    assert found == exact_grid(Fraction(2), Fraction(step), Fraction(tolerance))


@given(st.floats(1.05, 16) | st.floats(1 / 16, 0.9))
@settings(max_examples=30, deadline=None)
def test_every_point_keeps_the_constraint_and_the_bounds(budget: float):
    space = Space.of(budget)
    try:
        grid = space.grid()
    except SpaceError:
        return
    slack = space.step + 1e-9
    low, high = min(1.0, budget), max(1.0, budget)
    for point in grid:
        assert abs(point.alpha * point.beta**2 * point.gamma**2 - budget) < 0.05 * budget + 1e-9
        assert low - 1e-9 <= point.alpha <= high + 1e-9
        for value in (point.beta, point.gamma):
            assert math.sqrt(low) - slack <= value <= math.sqrt(high) + slack
            assert min(abs(value - 1), abs(budget - 1)) < 1e-9 or (value > 1) == (budget > 1)


def test_a_point_on_the_edge_of_the_tolerance_is_outside():
    # 1.9 = 1.9·1·1 lies exactly 0.1 from 2
    alphas = {point.alpha for point in Space.of(2.0, tolerance=0.1).grid() if point.beta == point.gamma == 1}
    assert alphas == {1.95, 2.0}


def test_the_grid_rises_and_below_1_nothing_grows():
    grid = Space.of(0.5).grid()
    keys = [dataclasses.astuple(point) for point in grid]
    assert keys == sorted(set(keys))
    assert all(0 < value <= 1 for key in keys for value in key)


def test_a_tolerance_that_keeps_nothing_names_the_nearest_point():
    # of all points of step 0.3 the product nearest to 2 is 1.3·1.3² = 2.197
    products = [a * b * b * c * c for a in (1, 1.3, 1.6, 1.9) for b in (1, 1.3, 1.6) for c in (1, 1.3, 1.6)]
    nearest = min(products, key=lambda value: abs(value - 2))
    with pytest.raises(SpaceError) as caught:
        Space.of(2.0, step=0.3, tolerance=0.01).grid()
    assert f"with {nearest:.4g}" in caught.value.mend
    assert "--tolerance" in caught.value.mend
    assert "--step" in caught.value.mend


def test_tolerance_0_keeps_nothing_not_even_exact_points():
    with pytest.raises(SpaceError, match="nearest is 2/1/1"):
        Space.of(2.0, tolerance=0.0).grid()


@pytest.mark.parametrize("step", [0.0, -0.05, math.nan, math.inf, 1e-9])
def test_a_step_that_is_none_is_refused(step: float):
    with pytest.raises(SpaceError, match="step"):
        Space.of(2.0, step=step)


@pytest.mark.parametrize("tolerance", [-0.1, math.nan, math.inf])
def test_a_tolerance_that_is_none_is_refused(tolerance: float):
    with pytest.raises(SpaceError, match="tolerance"):
        Space.of(2.0, tolerance=tolerance)


# ---- candidates


@cache
def laid_out(budget: str, policy: str = "level", base: str = "b0") -> tuple[Plan, Layout]:
    return resolve(Request(base=base, budget=budget, rounding=policy, preset="quick"))  # type: ignore[arg-type]


def found(budget: str, policy: str = "level", base: str = "b0") -> tuple[Candidate, ...]:
    return laid_out(budget, policy, base)[1].candidates


def growth(network: Network, base: Network) -> float:
    return count(network).macs / count(base).macs


def growths(one: Candidate, plan: Plan) -> tuple[float, float]:
    """Of the network over the base and of the proxy over the proxy base, counted here."""
    full, small = plan.scalable.network, plan.proxy_base.network
    return growth(one.scaled.network, full), growth(one.proxy.network, small)


LEVELLED = ["2x", "0.5x", "4x", "1.5x", "800M"]


def test_the_papers_rounding_at_2x_is_65_networks_of_1_928_to_3_329():
    plan, layout = laid_out("2x", "paper")
    with_points = [one for one in layout.candidates if one.points]
    assert layout.nominal_points == 108
    assert len(with_points) == 65
    realised = [growths(one, plan)[0] for one in with_points]
    assert (round(min(realised), 3), round(max(realised), 3)) == (1.928, 3.329)


def test_levelling_at_2x_reaches_all_108_points_by_about_77_networks():
    _, layout = laid_out("2x")
    with_points = [one for one in layout.candidates if one.points]
    assert layout.nominal_points == 108
    assert sum(len(one.points) for one in with_points) == 108
    assert layout.excluded == ()
    assert 72 <= len(with_points) <= 82
    assert len(with_points) == 77  # as an independent prototype


def test_the_papers_point_at_2x_is_19_blocks_at_260_pixels():
    (one,) = [one for one in found("2x") if "paper" in one.references]
    assert (one.scaled.network.depth, one.scaled.network.resolution) == (19, 260)
    assert round(one.scaled.growth, 3) == 2.006


@pytest.mark.parametrize("base", ["b0", "b3"])
@pytest.mark.parametrize("budget", LEVELLED)
def test_networks_and_proxies_that_are_no_reference_cost_the_budget_within_three_percent(budget: str, base: str):
    plan, layout = laid_out(budget, base=base)
    asked = parse_budget(budget, count(find_base(base).network).macs)
    plain = [one for one in layout.candidates if not one.references]
    assert len(plain) > 5
    for one in plain:
        for realised in growths(one, plan):
            assert abs(realised / asked - 1) <= 0.03


@pytest.mark.parametrize("policy", ["level", "paper"])
@pytest.mark.parametrize("budget", LEVELLED)
def test_growths_are_those_of_a_recount(budget: str, policy: str):
    plan, layout = laid_out(budget, policy)
    for one in layout.candidates:
        assert growths(one, plan) == (one.scaled.growth, one.proxy.growth)
        assert one.scaled.cost == count(one.scaled.network)


@pytest.mark.parametrize("policy", ["level", "paper"])
@pytest.mark.parametrize("budget", [*LEVELLED, "0.25x"])
def test_each_point_is_in_exactly_one_candidate_or_excluded_with_a_reason(budget: str, policy: str):
    plan, layout = laid_out(budget, policy)
    places = Counter(point for one in layout.candidates for point in one.points)
    assert set(places.values()) == {1}
    grid = set(plan.space.grid())
    excluded = {one.coefficients for one in layout.excluded if one.coefficients in grid}
    assert set(places) | excluded == grid
    assert not set(places) & excluded
    assert layout.nominal_points == len(grid)


def test_points_far_from_any_legal_network_are_excluded_and_say_why():
    _, layout = laid_out("0.25x")
    assert layout.excluded
    for one in layout.excluded:
        assert "within 3% of 0.25x" in one.reason


@pytest.mark.parametrize("policy", ["level", "paper"])
@pytest.mark.parametrize("budget", LEVELLED)
def test_candidates_are_distinct_networks_with_distinct_ids(budget: str, policy: str):
    networks = [one.scaled.network for one in found(budget, policy)]
    assert len(set(networks)) == len(networks)
    assert len({one.id for one in found(budget, policy)}) == len(networks)


@pytest.mark.parametrize("policy", ["level", "paper"])
@pytest.mark.parametrize("budget", LEVELLED)
def test_a_candidates_coefficients_are_one_of_its_points_or_its_reference(budget: str, policy: str):
    plan, layout = laid_out(budget, policy)
    for one in layout.candidates:
        named = [Coefficients.from_shares(REFERENCES[name], plan.space.budget) for name in one.references]
        assert one.coefficients in (*one.points, *named)


@pytest.mark.parametrize("budget", LEVELLED)
def test_the_same_proxy_has_one_id_that_of_its_first_candidate(budget: str):
    first: dict[Network, str] = {}
    for one in found(budget):
        assert one.proxy_id == first.setdefault(one.proxy.network, one.id)
    assert len(set(first.values())) == len(first)


def test_some_candidates_share_a_proxy_on_small_images():
    proxies = {one.proxy_id for one in found("2x")}
    assert len(proxies) < len(found("2x"))


@pytest.mark.parametrize("budget", ["2x", "4x"])
def test_candidates_that_share_a_proxy_have_it_with_one_shape_a_single_dimensions_first(budget: str):
    _, layout = laid_out(budget)
    for one in layout.candidates:
        first = layout.candidate(one.proxy_id)
        assert one.proxy == first.proxy
        for place, name in enumerate(DIMENSIONS):
            if name in one.references:
                assert one.shares[place] == 1


@pytest.mark.parametrize("budget", LEVELLED)
def test_shares_are_those_of_the_trained_proxy_and_sum_to_1(budget: str):
    plan, layout = laid_out(budget)
    small = plan.proxy_base
    for one in layout.candidates:
        network, effective = one.proxy.network, one.proxy.effective
        assert effective.depth == network.depth / small.network.depth
        assert effective.resolution == network.resolution / small.network.resolution
        assert scale_widths(small.network, effective.width, small.rounding) == channels(network)
        logs = [math.log(effective.depth), 2 * math.log(effective.width), 2 * math.log(effective.resolution)]
        assert one.shares == pytest.approx([log / sum(logs) for log in logs])
        assert sum(one.shares) == pytest.approx(1)


def test_where_the_images_allow_the_base_as_it_is_proxy_and_candidate_are_one():
    asked = Request(data="torchvision:ImageNet", preset="standard", proxy_resolution=224)
    plan, layout = resolve(asked)
    assert plan.proxy_base.rounding == Rounding()
    for one in layout.candidates:
        head = dataclasses.replace(one.scaled.network.head, dropout=0.0)
        assert one.proxy.network == dataclasses.replace(one.scaled.network, head=head, drop_path=0.0)
        assert one.proxy_id == one.id


def test_points_that_build_the_base_itself_are_excluded_as_such():
    # at 1.04x the tolerance reaches the point 1/1/1, which the paper's rounding leaves as it is
    _, layout = resolve(Request(budget="1.04x", rounding="paper", preset="quick"))
    assert Coefficients(alpha=1, beta=1, gamma=1) in [one.coefficients for one in layout.excluded]
    assert layout.candidates


# ---- references


def test_the_seven_references_are_the_published_ones():
    assert {name: pytest.approx(shares) for name, shares in REFERENCES.items()} == {
        "depth": (1, 0, 0),
        "width": (0, 1, 0),
        "resolution": (0, 0, 1),
        "dwr": (1 / 3, 1 / 3, 1 / 3),  # arXiv:2103.06877
        "fast": (0.1, 0.8, 0.1),  # arXiv:2103.06877
        "paper": [log / math.log(1.2 * 1.1**2 * 1.15**2) for log in map(math.log, (1.2, 1.1**2, 1.15**2))],
        "effnetx-gpu": (0.38, 0.42, 0.20),  # arXiv:2102.05610
    }


@pytest.mark.parametrize("policy", ["level", "paper"])
@pytest.mark.parametrize("budget", LEVELLED)
def test_every_ranking_contains_each_reference_once(budget: str, policy: str):
    names = [name for one in found(budget, policy) for name in one.references]
    assert sorted(names) == sorted(REFERENCES)


@pytest.mark.parametrize("base", ["b0", "b4"])
@pytest.mark.parametrize("budget", ["2x", "0.5x", "4x"])
def test_a_single_dimension_moves_nothing_else(budget: str, base: str):
    plan, layout = laid_out(budget, base=base)
    sizes = {"depth": "depths", "width": "widths", "resolution": "resolution"}
    for name in DIMENSIONS:
        (one,) = [one for one in layout.candidates if name in one.references]
        for start, scaled in ((plan.scalable.network, one.scaled), (plan.proxy_base.network, one.proxy)):
            still = [other for other in DIMENSIONS if other != name]
            assert all(getattr(scaled.network, sizes[other]) == getattr(start, sizes[other]) for other in still)
            assert all(getattr(scaled.effective, other) == 1 for other in still)
            assert getattr(scaled.network, sizes[name]) != getattr(start, sizes[name])
        assert one.shares == tuple(float(name == other) for other in DIMENSIONS)


@pytest.mark.parametrize("budget", [*LEVELLED, "0.25x", "3x"])
def test_off_budget_are_the_single_dimensions_that_miss_it_and_no_others(budget: str):
    plan, layout = laid_out(budget)
    for one in layout.candidates:
        misses = any(abs(realised / plan.space.budget - 1) > 0.03 for realised in growths(one, plan))
        assert one.off_budget == misses
        assert not misses or set(one.references) & set(DIMENSIONS)


def test_the_side_of_a_small_proxy_steps_past_the_budget():
    # a side alone moves macs in steps of ceil(side / 32): 2x of 20 px is not to be had
    (one,) = [one for one in found("2x") if "resolution" in one.references]
    assert one.off_budget


def test_one_network_may_carry_several_references():
    carried = [one.references for budget in LEVELLED for one in found(budget) if len(one.references) > 1]
    assert carried


def test_projected_references_lie_near_their_shares():
    for name in set(REFERENCES) - set(DIMENSIONS):
        (one,) = [one for one in found("2x") if name in one.references]
        rule = Coefficients.from_shares(REFERENCES[name], 2.0).at(1)
        pairs = zip(dataclasses.astuple(one.scaled.effective), dataclasses.astuple(rule), strict=True)
        depth, width, side = (math.log(effective / asked) for effective, asked in pairs)
        assert math.hypot(depth, 2 * width, 2 * side) <= 0.15


# ---- what is trained


@pytest.mark.parametrize("budget", LEVELLED)
def test_twelve_distinct_proxies_are_trained_references_among_them(budget: str):
    plan, layout = resolve(Request(budget=budget, preset="quick", policy="grid"))
    order = [one.id for one in layout.candidates]
    assert len(set(layout.trained)) == len(layout.trained) == 12 == plan.proxies
    assert sorted(layout.trained, key=order.index) == list(layout.trained)
    assert len({layout.candidate(name).proxy.network for name in layout.trained}) == 12
    assert {one.proxy_id for one in layout.candidates if one.references} <= set(layout.trained)


def test_without_a_limit_every_distinct_proxy_is_trained():
    assert set(trained_proxies(found("2x"), None)) == {one.proxy_id for one in found("2x")}
    assert set(trained_proxies(found("2x"), 10_000)) == {one.proxy_id for one in found("2x")}


@pytest.mark.parametrize("limit", range(1, 16))
def test_at_most_the_limit_is_trained_and_references_come_first(limit: int):
    trained = trained_proxies(found("2x"), limit)
    assert len(trained) == limit
    referenced = [{one.proxy_id for one in found("2x") if name in one.references}.pop() for name in REFERENCES]
    assert set(referenced[:limit]) <= set(trained)
    assert trained == trained_proxies(found("2x"), limit)


def test_the_trained_subset_grows_by_what_is_farthest_in_share_space():
    shares = {one.id: one.shares for one in found("2x") if one.id == one.proxy_id}
    smaller, larger = (set(trained_proxies(found("2x"), limit)) for limit in (11, 12))
    assert smaller < larger
    (added,) = larger - smaller
    gaps = {name: min(math.dist(share, shares[one]) for one in smaller) for name, share in shares.items()}
    assert gaps[added] == pytest.approx(max(gaps.values()))


triples = st.tuples(*[st.floats(0, 1)] * 3)


@given(st.lists(triples, min_size=1, max_size=20), st.integers(1, 8), st.data())
def test_sampling_covers_as_well_as_it_separates(
    shares: list[tuple[float, float, float]], limit: int, data: st.DataObject
):
    first = data.draw(st.lists(st.integers(0, len(shares) - 1), max_size=4, unique=True))
    chosen = spread(shares, first, limit)
    assert len(chosen) == len(set(chosen)) == min(limit, len(shares))
    assert chosen[: len(first)] == first[:limit]
    # each added point is the one farthest from those before it, so nothing left out is farther away than it was
    for place in range(max(1, len(first)), len(chosen)):
        before = [shares[index] for index in chosen[:place]]
        gaps = [min(math.dist(share, other) for other in before) for share in shares]
        assert gaps[chosen[place]] == pytest.approx(max(gaps), abs=1e-9)


# ---- shares and rules


simplex = triples.filter(lambda shares: sum(shares) > 0.01).map(lambda s: tuple(part / sum(s) for part in s))


@given(simplex, st.floats(1.04, 64) | st.floats(1 / 64, 0.96))
def test_a_rule_of_shares_spends_the_budget_exactly(shares: tuple[float, float, float], budget: float):
    rule = Coefficients.from_shares(shares, budget)
    assert rule.alpha * rule.beta**2 * rule.gamma**2 == pytest.approx(budget, rel=1e-12)
    assert rule.shares == pytest.approx(shares, abs=1e-9)


def test_the_papers_shares_at_its_own_nominal_growth_are_its_rule():
    rule = Coefficients.from_shares(REFERENCES["paper"], 1.2 * 1.1**2 * 1.15**2)
    assert dataclasses.astuple(rule) == pytest.approx(dataclasses.astuple(PAPER))


def test_a_grid_beyond_reason_is_refused_at_once():
    with pytest.raises(SpaceError, match="raise --step"):
        Space.of(16.0, step=0.01).grid()
