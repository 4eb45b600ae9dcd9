"""Points of the rule become networks of equal compute: the nearest ones, recounted and enumerated independently."""

import dataclasses
import math
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import B0, EFFICIENTNET, MOBILENET_V2, RESNET50, SMALL

from scalesearch.cost import count
from scalesearch.depths import spread_depth
from scalesearch.errors import ScalingError
from scalesearch.levelling import Scaled, level, level_one
from scalesearch.scaling import PAPER, Channels, Multipliers, channels, resize, round_width, scale, scale_widths
from scalesearch.spec import Network, Stage

ROUNDING = EFFICIENTNET.rounding
TINY = dataclasses.replace(
    SMALL, stages=tuple(dataclasses.replace(s, depth=d) for s, d in zip(SMALL.stages, (2, 2, 4), strict=True))
)


def papers_grid() -> list[Multipliers]:
    """alpha in [1, 2], beta and gamma in [1, 1.5], step 0.05, |alpha·beta²·gamma² - 2| < 0.1, in whole arithmetic."""
    hundredths = [
        (alpha, beta, gamma)
        for alpha in range(100, 201, 5)
        for beta in range(100, 151, 5)
        for gamma in range(100, 151, 5)
        if abs(alpha * beta**2 * gamma**2 - 2 * 10**10) < 10**9
    ]
    return [Multipliers(depth=a / 100, width=b / 100, resolution=g / 100) for a, b, g in hundredths]


GRID = papers_grid()


@cache
def levelled_grid() -> list[Scaled]:
    found = level(GRID, B0, ROUNDING, 2.0)
    assert None not in found
    return [one for one in found if one is not None]


def growth(network: Network, base: Network = B0) -> float:
    return count(network).macs / count(base).macs


# ---- the facts of docs/design.md, 4, on B0 at 2x


def test_every_point_of_the_papers_grid_projects_onto_77_networks():
    assert len(GRID) == 108
    assert len({one.network for one in levelled_grid()}) == 77


def test_the_mean_error_of_compute_on_the_papers_grid_is_1_2_percent():
    errors = [abs(one.growth / 2 - 1) for one in levelled_grid()]
    assert max(errors) <= 0.03
    assert sum(errors) / len(errors) == pytest.approx(0.012, abs=0.0005)


def test_width_moves_by_3_4_percent_at_most_on_the_papers_grid():
    moved = [abs(one.effective.width / point.width - 1) for one, point in zip(levelled_grid(), GRID, strict=True)]
    assert round(max(moved), 3) == 0.034
    assert round(sum(moved) / len(moved), 3) == 0.007


def test_the_papers_own_point_becomes_19_blocks_at_260_pixels():
    (one,) = level([PAPER.at(1.0)], B0, ROUNDING, 2.0)
    assert one is not None
    assert one.network.depth == 19
    assert one.network.resolution == 260
    assert round(one.effective.width, 3) == 1.099
    assert round(one.growth, 3) == 2.006


def test_the_papers_rounding_spreads_the_same_grid_over_1_93_to_3_33():
    # the counterpart that levelling exists for; published with NNI's grid
    built = {scale(B0, point, ROUNDING) for point in GRID}
    assert len(built) == 65
    assert round(min(map(growth, built)), 2) == 1.93
    assert round(max(map(growth, built)), 2) == 3.33


# ---- what holds for any base and growth

CASES = {
    "b0 at 2x": (B0, GRID, 2.0, 4),
    "resnet50 at 2x": (RESNET50, GRID, 2.0, 4),
    "mobilenet_v2 at 2x": (MOBILENET_V2, GRID, 2.0, 4),
    "small at 2x": (SMALL, GRID, 2.0, 1),
    "b0 at 4x": (B0, [PAPER.at(phi) for phi in (2.0, 2.1, 2.2)], 4.0, 4),
    "b0 at a half": (B0, [PAPER.at(-1.0), Multipliers(depth=0.75, width=0.9, resolution=0.9)], 0.5, 4),
    "tiny at a half": (TINY, [Multipliers(depth=0.75, width=w, resolution=0.8) for w in (0.75, 0.9)], 0.5, 1),
}


@pytest.fixture(params=CASES)
def projected(request: pytest.FixtureRequest) -> tuple[Network, float, int, list[tuple[Multipliers, Scaled]]]:
    base, points, asked, step = CASES[request.param]
    pairs = zip(points, level(points, base, ROUNDING, asked, resolution_step=step), strict=True)
    found = [(point, one) for point, one in pairs if one is not None]
    assert found
    return base, asked, step, found


Projected = tuple[Network, float, int, list[tuple[Multipliers, Scaled]]]


def test_growth_is_that_of_an_independent_recount_within_three_percent(projected: Projected):
    base, asked, _, found = projected
    for _, one in found:
        assert one.growth == growth(one.network, base)
        assert abs(one.growth / asked - 1) <= 0.03


def test_effective_multipliers_rebuild_the_network(projected: Projected):
    base, _, step, found = projected
    for _, one in found:
        network, effective = one.network, one.effective
        assert effective.depth == network.depth / base.depth
        assert effective.resolution == network.resolution / base.resolution
        assert network.resolution == base.resolution or network.resolution % step == 0
        widths = scale_widths(base, effective.width, ROUNDING)
        assert channels(network) == widths


def test_no_dimension_moves_against_the_growth(projected: Projected):
    _, asked, _, found = projected
    for _, one in found:
        factors = dataclasses.astuple(one.effective)
        assert min(factors) >= 1 if asked > 1 else max(factors) <= 1


def test_distance_is_the_log_space_distance_to_the_point_and_within_reach(projected: Projected):
    _, asked, _, found = projected
    for point, one in found:
        assert one.distance == pytest.approx(distance(point, dataclasses.astuple(one.effective), one.growth / asked))
        assert one.distance <= 0.15


def test_everything_but_sizes_is_the_bases(projected: Projected):
    base, _, _, found = projected
    own = channels(base)
    for _, one in found:
        assert resize(one.network, depths=base.depths, widths=own, resolution=base.resolution) == base


def distance(point: Multipliers, effective: tuple[float, float, float], off: float) -> float:
    depth, width, side = (math.log(e / p) for e, p in zip(effective, dataclasses.astuple(point), strict=True))
    return math.sqrt(depth**2 + (2 * width) ** 2 + (2 * side) ** 2 + math.log(off) ** 2)


def enumerated(base: Network, asked: float) -> list[tuple[tuple[float, float, float], float]]:
    """(effective multipliers, realised / asked) of ALL legal networks, each size tried, each network counted."""
    up = asked > 1
    limit = 1.2 * (asked if up else 1 / asked)
    depths = range(base.depth, math.ceil(base.depth * limit)) if up else range(len(base.stages), base.depth + 1)
    side = base.resolution
    sides = range(side, math.ceil(side * limit**0.5)) if up else range(max(1, math.floor(side / limit)), side + 1)
    factors = [n / 1000 for n in (range(1000, math.ceil(1000 * limit**0.6)) if up else range(300, 1001))]
    by_channels: dict[Channels, list[float]] = {}
    for factor in factors:
        by_channels.setdefault(scale_widths(base, factor, ROUNDING), []).append(factor)
    legal = []
    for own, widths in by_channels.items():
        for total in depths:
            depth = shared(total, base.depths)
            for resolution in sides:
                network = resize(base, depths=depth, widths=own, resolution=resolution)
                off = growth(network, base) / asked
                if abs(off - 1) <= 0.03:
                    legal += [((total / base.depth, width, resolution / side), off) for width in widths]
    return legal


def shared(total: int, depths: tuple[int, ...]) -> tuple[int, ...]:
    """Largest remainder as in a textbook, for totals that leave each stage at least one block by themselves."""
    exact = [total * depth / sum(depths) for depth in depths]
    whole = [max(1, math.floor(share + 1e-9)) for share in exact]
    while sum(whole) < total:
        behind = max(range(len(depths)), key=lambda i: (round(exact[i] - whole[i], 9), -i))
        whole[behind] += 1
    return tuple(whole)


AROUND = {
    2.0: [PAPER.at(1.0), Multipliers(depth=2.0), Multipliers(width=1.4), Multipliers(resolution=1.4)]
    + [Multipliers(depth=d, width=w, resolution=r) for d in (1, 1.25, 1.6) for w in (1, 1.08, 1.2) for r in (1, 1.19)],
    0.5: [PAPER.at(-1.0), Multipliers(depth=0.5), Multipliers(width=0.7), Multipliers(resolution=0.71)]
    + [Multipliers(depth=d, width=w, resolution=r) for d in (0.75, 1) for w in (0.75, 0.9, 1) for r in (0.8, 0.9)],
}


@pytest.mark.parametrize("asked", AROUND)
@pytest.mark.parametrize("base", [SMALL, TINY], ids=["small", "tiny"])
def test_no_legal_network_is_nearer_than_the_one_chosen(base: Network, asked: float):
    if base is SMALL and asked < 1:
        base = dataclasses.replace(base, resolution=33)  # an odd side; (1, 2, 2) binds the floor of one block
    # widths on the same thousandths as `level`
    points = [dataclasses.replace(point, width=round(point.width, 3)) for point in AROUND[asked]]
    legal = enumerated(base, asked)
    found = level(points, base, ROUNDING, asked, resolution_step=1)
    for point, one in zip(points, found, strict=True):
        least = min(distance(point, effective, off) for effective, off in legal)
        if one is None:
            assert least > 0.15
        else:
            assert one.distance == pytest.approx(least, abs=2e-6)
    assert None in found
    assert sum(one is not None for one in found) >= 3


def test_a_point_far_from_the_growth_asked_for_has_no_network():
    assert level([Multipliers(depth=1.2), PAPER.at(1.0)], B0, ROUNDING, 2.0)[0] is None


def test_the_company_of_a_point_does_not_change_its_network():
    together = levelled_grid()
    alone = [level([point], B0, ROUNDING, 2.0)[0] for point in GRID[::9]]
    assert alone == together[::9]


# ---- one dimension


KEPT: dict[str, Callable[[Network], tuple[object, ...]]] = {
    "depth": lambda network: (channels(network), network.resolution),
    "width": lambda network: (network.depths, network.resolution),
    "resolution": lambda network: (channels(network), network.depths),
}


@pytest.mark.parametrize("asked", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("dimension", KEPT)
def test_one_dimension_alone_moves_nothing_else(dimension: str, asked: float):
    one = level_one(dimension, B0, ROUNDING, asked)
    assert KEPT[dimension](one.network) == KEPT[dimension](B0)
    assert {name for name in KEPT if getattr(one.effective, name) != 1} == {dimension}
    assert one.growth == growth(one.network)
    assert abs(one.growth / asked - 1) < 0.03


@pytest.mark.parametrize("asked", [0.5, 2.0])
def test_one_dimension_comes_as_near_to_the_growth_as_any_step_of_it(asked: float):
    totals = range(3, 40)
    depths = [resize(B0, depths=shared(t, B0.depths), widths=channels(B0), resolution=224) for t in totals if t >= 7]
    sides = [dataclasses.replace(B0, resolution=side) for side in range(100, 400, 4)]
    widths = [
        resize(B0, depths=B0.depths, widths=scale_widths(B0, n / 1000, ROUNDING), resolution=224)
        for n in range(400, 1600)
    ]
    for dimension, networks in {"depth": depths, "resolution": sides, "width": widths}.items():
        least = min(abs(math.log(growth(network) / asked)) for network in networks)
        assert abs(math.log(level_one(dimension, B0, ROUNDING, asked).growth / asked)) == pytest.approx(least)


def test_a_coarse_dimension_may_miss_the_growth_but_takes_a_step():
    # a stage of one block has nothing between one and two blocks
    base = dataclasses.replace(B0, stages=(Stage(block="basic", depth=1, width=32),), resolution=32)
    one = level_one("depth", base, ROUNDING, 1.2)
    assert one.network.depths == (2,)
    assert abs(one.growth / 1.2 - 1) > 0.03


def test_depth_that_cannot_shrink_is_refused_with_its_reason():
    base = dataclasses.replace(B0, stages=tuple(dataclasses.replace(stage, depth=1) for stage in B0.stages))
    with pytest.raises(ScalingError, match=r"depth alone cannot scale this base to 0\.5x"):
        level_one("depth", base, ROUNDING, 0.5)


# ---- depth over stages

stage_depths = st.lists(st.integers(1, 30), min_size=1, max_size=8).map(tuple)


@given(stage_depths, st.integers(0, 200))
def test_spread_depth_adds_up_with_at_least_one_block_per_stage(depths: tuple[int, ...], more: int):
    total = len(depths) + more
    given_out = spread_depth(total, depths)
    assert sum(given_out) == total
    assert min(given_out) >= 1
    assert len(given_out) == len(depths)


@given(stage_depths, st.integers(0, 200))
def test_spread_depth_stays_within_one_of_the_exact_share(depths: tuple[int, ...], more: int):
    total = sum(depths) + more  # from here on the floor of one block never binds
    for blocks, depth in zip(spread_depth(total, depths), depths, strict=True):
        assert abs(blocks - depth * total / sum(depths)) < 1


@given(stage_depths, st.integers(0, 200))
def test_spread_depth_deepens_no_stage_while_it_shrinks_and_thins_none_while_it_grows(
    depths: tuple[int, ...], more: int
):
    total = len(depths) + more
    pairs = zip(spread_depth(total, depths), depths, strict=True)
    assert all(blocks >= depth if total >= sum(depths) else blocks <= depth for blocks, depth in pairs)


@given(stage_depths)
def test_spread_depth_of_the_bases_total_is_the_base(depths: tuple[int, ...]):
    assert spread_depth(sum(depths), depths) == depths


@given(stage_depths, st.integers(1, 6))
def test_spread_depth_of_a_multiple_is_the_multiple(depths: tuple[int, ...], factor: int):
    assert spread_depth(factor * sum(depths), depths) == tuple(factor * depth for depth in depths)


@given(stage_depths, st.integers(0, 200))
def test_equal_stages_stay_within_one_block_of_each_other_and_the_earlier_has_more(depths: tuple[int, ...], more: int):
    given_out = spread_depth(len(depths) + more, depths)
    for depth in set(depths):
        equal = [blocks for blocks, own in zip(given_out, depths, strict=True) if own == depth]
        assert equal == sorted(equal, reverse=True)
        assert equal[0] - equal[-1] <= 1


def test_ties_go_to_the_earlier_stage():
    assert spread_depth(5, (2, 2)) == (3, 2)
    assert spread_depth(8, (2, 2, 2)) == (3, 3, 2)


def test_the_papers_point_spreads_19_blocks_as_the_design_says():
    # 19 of (1, 2, 2, 3, 3, 4, 1): shares 1.19 2.375 2.375 3.56 3.56 4.75 1.19, largest remainders .75 .56 .56
    assert spread_depth(19, B0.depths) == (1, 2, 2, 4, 4, 5, 1)


def test_widths_of_a_levelled_network_obey_the_familys_rounding():
    for one in levelled_grid():
        assert all(round_width(width, ROUNDING) == width for width in one.network.widths)
