"""The rule and the paper's rounding equal published networks, breakpoints and algebra."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import B0, EFFICIENTNET, MOBILENET_V1, MOBILENET_V2, RESNET50, networks

from scalesearch.cost import count
from scalesearch.errors import ScalingError
from scalesearch.scaling import (
    PAPER,
    Coefficients,
    Multipliers,
    Rounding,
    channels,
    resize,
    round_width,
    scale,
    scale_widths,
)
from scalesearch.spec import Head, Network, Stage, Stem

ROUNDING = EFFICIENTNET.rounding
real_channels = st.floats(0.5, 1e5)
roundings = st.builds(Rounding, divisor=st.sampled_from([1, 2, 4, 8, 16, 32]))


@given(real_channels, roundings)
def test_width_never_drops_below_ninety_percent(width: float, rounding: Rounding):
    assert round_width(width, rounding) >= 0.9 * width


@given(real_channels, roundings)
def test_width_is_a_positive_multiple_of_the_divisor_less_than_a_step_away(width: float, rounding: Rounding):
    rounded = round_width(width, rounding)
    assert rounded > 0
    assert rounded % rounding.divisor == 0
    assert abs(rounded - width) <= rounding.divisor


@given(real_channels, roundings)
def test_rounding_a_rounded_width_changes_nothing(width: float, rounding: Rounding):
    rounded = round_width(width, rounding)
    assert round_width(rounded, rounding) == rounded


@given(real_channels, real_channels, roundings)
def test_a_wider_request_never_gives_fewer_channels(one: float, other: float, rounding: Rounding):
    low, high = sorted((one, other))
    assert round_width(low, rounding) <= round_width(high, rounding)


def test_width_follows_the_reference_code():
    # by hand from tensorflow/tpu round_filters: 40 x 1.1 = 44 is half way and goes up; 10 would go down to 8 < 9
    assert [round_width(width, ROUNDING) for width in (44, 43.9, 10, 11.9, 3, 26.4)] == [48, 40, 16, 16, 8, 24]


@pytest.mark.parametrize(
    ("multiplier", "blocks"),
    [
        (1.00, 16), (1.01, 23), (1.25, 23), (1.26, 24), (1.34, 26), (1.51, 29), (1.67, 31), (1.76, 32),
        (2.00, 32), (2.01, 39), (2.26, 40), (2.34, 42), (2.51, 45), (2.67, 47), (2.76, 48), (3.01, 55),
    ],
)  # fmt: skip
def test_ceil_on_depth_breaks_where_it_does_in_the_reference(multiplier: float, blocks: int):
    assert scale(B0, Multipliers(depth=multiplier), ROUNDING).depth == blocks


@pytest.mark.parametrize("tenths", [11, 12, 14, 18, 22, 26, 31, 36])
def test_ceil_is_exact_where_the_product_is_whole(tenths: int):
    for depth in range(1, 40):
        network = dataclasses.replace(B0, stages=(dataclasses.replace(B0.stages[0], depth=depth),))
        assert scale(network, Multipliers(depth=tenths / 10), ROUNDING).depth == -(-depth * tenths // 10)


@pytest.mark.parametrize(
    ("name", "params"), [("b0", 5.3), ("b1", 7.8), ("b3", 12), ("b4", 19), ("b5", 30), ("b6", 43), ("b7", 66)]
)
def test_parameters_are_those_that_table_2_prints(name: str, params: float):
    # arXiv:1905.11946, Table 2; B2 prints 9.2M where every implementation builds 9.11M
    digits = 1 if isinstance(params, float) else 0
    assert round(count(EFFICIENTNET.member(name)).params / 1e6, digits) == params


def test_b2_has_the_parameters_that_implementations_build():
    assert count(EFFICIENTNET.member("b2")).params == 9_109_994


def test_b7_has_the_published_depths_and_widths():
    b7 = EFFICIENTNET.member("b7")
    assert b7.depths == (4, 7, 7, 10, 10, 13, 4)
    assert b7.widths == (32, 48, 80, 160, 224, 384, 640)
    assert (b7.stem.width, b7.head.width, b7.resolution, b7.head.dropout) == (64, 2560, 600, 0.5)


def test_b1_and_b2_share_their_depths():
    # every depth multiplier in (1.00, 1.25] builds the same 23 blocks
    assert EFFICIENTNET.member("b1").depths == EFFICIENTNET.member("b2").depths == (2, 3, 3, 4, 4, 5, 2)
    assert EFFICIENTNET.member("b1").widths == B0.widths


# GMACs of B0 along one dimension (arXiv:1905.11946, Fig. 3), rebuilt with a counter that matches fvcore and pycls
# to the unit
@pytest.mark.parametrize(
    ("dimension", "sweep"),
    [
        ("width", {1.4: 0.744, 1.8: 1.176, 2.0: 1.450, 2.6: 2.391, 3.8: 5.060, 5: 8.712}),
        ("depth", {2: 0.782, 3: 1.179, 4: 1.575, 6: 2.368, 8: 3.161}),
        ("resolution", {1.5: 0.893, 1.9: 1.458, 2: 1.538, 2.5: 2.447}),
    ],
)
def test_one_dimension_of_b0_costs_what_others_rebuilt(dimension: str, sweep: dict[float, float]):
    built = {m: count(scale(B0, Multipliers(**{dimension: m}), ROUNDING)).macs / 1e9 for m in sweep}
    assert {m: round(value, 3) for m, value in built.items()} == sweep


# arXiv:1905.11946, Table 3: printed FLOPs [billions]; the depth and width rows of ResNet-50 are swapped there
@pytest.mark.parametrize(
    ("base", "multipliers", "printed"),
    [
        (MOBILENET_V1, Multipliers(), 0.6),
        (MOBILENET_V1, Multipliers(width=2), 2.2),
        (MOBILENET_V1, Multipliers(resolution=2), 2.2),
        (MOBILENET_V1, Multipliers(depth=1.4, width=1.2, resolution=1.3), 2.3),
        (MOBILENET_V2, Multipliers(), 0.3),
        (MOBILENET_V2, Multipliers(depth=4), 1.2),
        (MOBILENET_V2, Multipliers(width=2), 1.1),
        (MOBILENET_V2, Multipliers(resolution=2), 1.2),
        (RESNET50, Multipliers(), 4.1),
        (RESNET50, Multipliers(depth=4), 14.7),
        (RESNET50, Multipliers(width=2), 16.2),
        (RESNET50, Multipliers(resolution=2), 16.4),
    ],
)
def test_table_3_of_the_paper_is_rebuilt_within_ten_percent(base: Network, multipliers: Multipliers, printed: float):
    assert count(scale(base, multipliers, ROUNDING)).macs / 1e9 == pytest.approx(printed, rel=0.10)


def test_multipliers_of_one_leave_every_network_as_it_is():
    for network in (B0, RESNET50, MOBILENET_V1, MOBILENET_V2):
        assert scale(network, Multipliers(), ROUNDING) == network


@given(networks(), roundings)
def test_a_width_multiplier_of_1_keeps_any_channels(network: Network, rounding: Rounding):
    assert scale_widths(network, 1.0, rounding) == channels(network)
    assert scale(network, Multipliers(), rounding) == network


# own networks need no channels in multiples of 8: 20, 36, 60 move in steps of 4, 49 in steps of 1 (7 groups of 7)
@given(st.floats(0.5, 2.0))
def test_channels_that_are_no_multiples_move_in_steps_that_divide_them(factor: float):
    stages = (
        Stage(block="basic", depth=2, width=20),
        Stage(block="basic", depth=2, width=36, stride=2),
        Stage(block="bottleneck", depth=1, width=49, expansion=1 / 7, groups=7),
    )
    network = Network(stem=Stem(width=20), stages=stages, head=Head(), resolution=32, num_classes=10)
    scaled = scale_widths(network, factor, ROUNDING)
    assert [width % step for width, step in zip(scaled.stages, (4, 4, 49), strict=True)] == [0, 0, 0]
    assert all(abs(a / b - factor) <= 2 / b + 0.5 for a, b in zip(scaled.stages[:2], (20, 36), strict=True))


def test_resize_to_its_own_sizes_is_the_identity():
    own = channels(B0)
    assert resize(B0, depths=B0.depths, widths=own, resolution=B0.resolution) == B0


def test_a_fixed_stem_and_head_stay_while_stages_widen():
    # EfficientNet-Lite fixes both; a head of 0 channels stays absent
    fixed = Rounding(stem="fixed", head="fixed")
    assert scale_widths(B0, 2.0, fixed) == (32, (32, 48, 80, 160, 224, 384, 640), 1280, 0)
    assert scale_widths(RESNET50, 2.0, ROUNDING).head == 0


@pytest.mark.parametrize(("factor", "head"), [(0.5, 1280), (1.0, 1280), (1.4, 1792)])
def test_a_widened_head_never_narrows(factor: float, head: int):
    # "for multipliers less than one, we apply width multiplier to all layers except the very last convolutional
    # layer", arXiv:1801.04381, section 6.1.1; 1792 = 1.4 x 1280 is the mobilenet_v2_1.4 of tensorflow/models
    assert scale_widths(MOBILENET_V2, factor, Rounding(head="widened")).head == head


def test_a_bottleneck_rounds_its_hidden_channels_and_keeps_their_ratio():
    # 64, 128, 256, 512 x 1.2 = 76.8, 153.6, 307.2, 614.4, each to a multiple of 8, times 4
    assert scale_widths(RESNET50, 1.2, ROUNDING) == (80, (320, 608, 1216, 2464), 0, 0)


# rebuilt at depth 1.4, width 1.2: 16.34 GMACs at 300 px, 16.43 at 304 (arXiv:1905.11946, Table 3, prints 16.7B)
@pytest.mark.parametrize(("side", "gmacs"), [(300, "16.34"), (304, "16.43")])
def test_the_compound_resnet50_costs_what_others_rebuilt(side: int, gmacs: str):
    network = scale(RESNET50, Multipliers(depth=1.4, width=1.2, resolution=side / 224), ROUNDING)
    assert f"{count(network).macs / 1e9:.2f}" == gmacs


@given(st.floats(0.3, 3), st.sampled_from([(256, 0.5, 32), (512, 0.5, 32), (96, 1.5, 16), (240, 0.3, 3)]))
def test_the_groups_of_a_stage_share_its_hidden_channels_at_every_width(factor: float, shape: tuple[int, float, int]):
    width, expansion, groups = shape
    stage = Stage(block="bottleneck", depth=1, width=width, expansion=expansion, groups=groups)
    network = Network(stem=Stem(width=64), stages=(stage,), head=Head(), resolution=32, num_classes=10)
    scaled = scale(network, Multipliers(width=factor), ROUNDING).stages[0]
    assert scaled.width * expansion % groups == 0
    assert scaled.groups == groups


def test_stages_of_fixed_depth_stay():
    # EfficientNet-Lite keeps the depth of the first and the last stage
    deeper = scale(B0, Multipliers(depth=2), Rounding(fixed_depths="ends"))
    assert deeper.depths == (1, 4, 4, 6, 6, 8, 1)


def test_the_papers_point_has_a_nominal_growth_of_1_92_and_builds_2_57():
    # 1.2 x 1.1^2 x 1.15^2 = 1.9203; built at 257-258 px it costs 2.57x (docs/design.md, 4)
    assert PAPER.nominal == pytest.approx(1.92027, abs=5e-6)
    built = scale(B0, PAPER.at(1.0), ROUNDING)
    assert built.resolution in (257, 258)
    assert round(count(built).macs / count(B0).macs, 2) == 2.57


# bounds keep alpha^phi well inside the range of floats
bases = st.floats(0.5, 3)
rules = st.builds(Coefficients, alpha=bases, beta=bases, gamma=bases)


@given(rules, st.floats(-4, 4))
def test_the_rule_is_a_power_of_phi(rule: Coefficients, phi: float):
    at = rule.at(phi)
    assert at.nominal == pytest.approx(rule.nominal**phi, rel=1e-9)
    back = rule.at(-phi)
    assert (at.depth * back.depth, at.width * back.width, at.resolution * back.resolution) == pytest.approx((1, 1, 1))


@given(
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0.01, 1)),
    st.one_of(st.floats(0.1, 0.9), st.floats(1.1, 16)),
)
def test_shares_and_budget_give_a_rule_that_spends_exactly_the_budget(parts: tuple[float, float, float], budget: float):
    shares = tuple(part / sum(parts) for part in parts)
    rule = Coefficients.from_shares(shares, budget)
    assert rule.alpha * rule.beta**2 * rule.gamma**2 == pytest.approx(budget, rel=1e-12)
    assert rule.shares == pytest.approx(shares, abs=1e-9)


def test_the_papers_shares_are_those_of_the_literature():
    # .28 .29 .43 for 1.2 / 1.1 / 1.15 (log-compute of depth, width, resolution)
    assert [round(share, 2) for share in PAPER.shares] == [0.28, 0.29, 0.43]


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("name", ["depth", "width", "resolution"])
def test_a_multiplier_that_is_not_a_positive_number_is_refused_by_name(name: str, value: float):
    with pytest.raises(ScalingError, match=f"{name} multiplier = .*it must be a positive number"):
        Multipliers(**{name: value})


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma"])
def test_a_coefficient_that_is_not_positive_is_refused_by_name(name: str):
    with pytest.raises(ScalingError, match=f"{name} = 0"):
        Coefficients(**{"alpha": 1.2, "beta": 1.1, "gamma": 1.15, name: 0})


def test_shares_of_no_growth_are_refused():
    with pytest.raises(ScalingError, match="growth other than 1"):
        _ = Multipliers(depth=4, width=0.5).shares
