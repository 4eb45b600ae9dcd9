"""The closed form equals published counts, arithmetic done by hand, and adds up."""

import dataclasses

import pytest
from hypothesis import given
from networks import B0, EFFICIENTNET, EXACT, NETWORKS, SMALL, networks

from scalesearch.cost import Cost, count, count_parts, squeezed_width
from scalesearch.spec import Head, Network, Stage, Stem


def test_every_network_with_exact_counts_has_a_value():
    assert set(NETWORKS) == set(EXACT)


@pytest.mark.parametrize("name", EXACT)
def test_the_closed_form_equals_the_exact_counts(name: str):
    exact, cost = EXACT[name], count(NETWORKS[name])
    assert cost.params == exact["params"]
    assert cost.macs == exact["macs"]
    assert cost.activations == exact["activations"]
    assert cost.fvcore_total == exact["fvcore_eval_total"]
    by_operator = {operator: getattr(cost, operator) for operator in exact["fvcore_eval_by_operator"]}
    assert by_operator == exact["fvcore_eval_by_operator"]


def one_block(stage: Stage, *, head: int = 0) -> Network:
    """A 3x3 stem of 8 channels and stride 2 at 15 px (8x8 behind it), one block, 5 classes."""
    return Network(stem=Stem(width=8), stages=(stage,), head=Head(width=head), resolution=15, num_classes=5)


STEM = Cost(conv=64 * 3 * 9 * 8, batch_norm=64 * 2 * 8, params=3 * 9 * 8 + 16, activations=64 * 8)


def classifier(features: int, pixels: int) -> Cost:
    return Cost(linear=features * 5, adaptive_avg_pool2d=features * pixels, params=features * 5 + 5, activations=5)


def test_a_separable_block_by_hand():
    stage = Stage(block="separable", depth=1, width=12, kernel=5, stride=2)
    block = Cost(
        conv=16 * (8 * 25 + 8 * 12),  # depthwise, pointwise, both on 4x4
        batch_norm=16 * 2 * (8 + 12),
        params=(8 * 25 + 16) + (8 * 12 + 24),
        activations=16 * (8 + 12),
    )
    assert count_parts(one_block(stage)) == {"stem": STEM, "stages.0": block, "head": classifier(12, 16)}


def test_an_mbconv_block_with_squeeze_excite_and_a_wide_head_by_hand():
    stage = Stage(block="mbconv", depth=1, width=12, kernel=5, stride=2, expansion=2, se_ratio=0.25)
    block = Cost(
        # expand on 8x8 to 16, depthwise to 4x4, squeeze 16 -> 2 -> 16 on one pixel (a quarter of 8), project
        conv=64 * 8 * 16 + 16 * 16 * 25 + (16 * 2 + 2 * 16) + 16 * 16 * 12,
        batch_norm=2 * (64 * 16 + 16 * 16 + 16 * 12),
        adaptive_avg_pool2d=16 * 16,
        params=(8 * 16 + 32) + (16 * 25 + 32) + (16 * 2 + 2) + (2 * 16 + 16) + (16 * 12 + 24),
        activations=64 * 16 + 16 * 16 + (2 + 16) + 16 * 12,
    )
    widen = Cost(conv=16 * 12 * 20, batch_norm=16 * 2 * 20, params=12 * 20 + 40, activations=16 * 20)
    expected = {"stem": STEM, "stages.0": block, "head": widen + classifier(20, 16)}
    assert count_parts(one_block(stage, head=20)) == expected


def test_an_mbconv_block_without_expansion_has_no_expanding_convolution():
    stage = Stage(block="mbconv", depth=1, width=8, expansion=1)
    block = Cost(conv=64 * (8 * 9 + 8 * 8), batch_norm=64 * 2 * 16, params=8 * 9 + 16 + 8 * 8 + 16, activations=64 * 16)
    assert count_parts(one_block(stage))["stages.0"] == block


@pytest.mark.parametrize(("inputs", "squeezed"), [(32, 8), (40, 10), (11, 2), (15, 3), (3, 1), (1, 1)])
def test_squeeze_excite_truncates_a_quarter_of_the_unexpanded_input_and_keeps_one(inputs: int, squeezed: int):
    # max(1, int(input_filters * se_ratio)) in tensorflow/tpu, efficientnet_model.py
    stage = Stage(block="mbconv", depth=1, width=8, expansion=6, se_ratio=0.25)
    assert squeezed_width(one_block(stage), stage, inputs) == squeezed


def test_a_basic_block_with_a_projected_shortcut_by_hand():
    stage = Stage(block="basic", depth=1, width=12, stride=2)
    block = Cost(
        conv=16 * (8 * 9 * 12 + 12 * 9 * 12 + 8 * 12),
        batch_norm=16 * 2 * 3 * 12,
        params=8 * 9 * 12 + 12 * 9 * 12 + 8 * 12 + 3 * 24,
        activations=16 * 3 * 12,
    )
    assert count_parts(one_block(stage)) == {"stem": STEM, "stages.0": block, "head": classifier(12, 16)}


def test_a_bottleneck_block_strides_in_its_middle_convolution_by_hand():
    stage = Stage(block="bottleneck", depth=1, width=16, stride=2, expansion=0.25)
    block = Cost(
        conv=64 * 8 * 4 + 16 * (4 * 9 * 4 + 4 * 16 + 8 * 16),
        batch_norm=2 * (64 * 4 + 16 * (4 + 16 + 16)),
        params=8 * 4 + 8 + 4 * 9 * 4 + 8 + 4 * 16 + 32 + 8 * 16 + 32,
        activations=64 * 4 + 16 * (4 + 16 + 16),
    )
    assert count_parts(one_block(stage)) == {"stem": STEM, "stages.0": block, "head": classifier(16, 16)}


def test_repeated_blocks_keep_width_and_side_and_need_no_projection():
    once, thrice = (count_parts(one_block(Stage(block="basic", depth=n, width=12, stride=2))) for n in (1, 3))
    repeat = Cost(conv=16 * 2 * 12 * 9 * 12, batch_norm=16 * 2 * 24, params=2 * (12 * 9 * 12 + 24), activations=16 * 24)
    assert thrice["stages.0"] == once["stages.0"] + repeat + repeat
    assert (thrice["stem"], thrice["head"]) == (once["stem"], once["head"])


@given(networks())
def test_the_parts_add_up_to_the_whole(network: Network):
    parts = count_parts(network)
    assert list(parts) == ["stem", *(f"stages.{i}" for i in range(len(network.stages))), "head"]
    assert sum(parts.values(), Cost()) == count(network)


@given(networks())
def test_resolution_changes_no_parameter_and_more_pixels_never_cost_less(network: Network):
    larger = count(dataclasses.replace(network, resolution=network.resolution + 1))
    assert larger.params == count(network).params
    assert larger.macs >= count(network).macs
    assert larger.activations >= count(network).activations


def test_the_staircase_of_resolution_on_b0_is_a_ceil_of_stride_32():
    # GMACs of B0 by side, rebuilt: 224 .386, 228 .450, 256 .503, 260 .576, 288 .637, 292 .718, 320 .785
    published = {224: 0.386, 228: 0.450, 256: 0.503, 260: 0.576, 288: 0.637, 292: 0.718, 300: 0.730, 320: 0.785}
    built = {side: round(count(dataclasses.replace(B0, resolution=side)).macs / 1e9, 3) for side in published}
    assert built == published


def test_activation_dropout_and_norm_cost_nothing():
    plain = dataclasses.replace(
        SMALL, activation="relu", norm_eps=0.0, drop_path=0.5, head=Head(width=SMALL.head.width, dropout=0.9)
    )
    assert count(plain) == count(SMALL)


@pytest.mark.parametrize(
    ("name", "printed"),
    [("b0", 0.39), ("b1", 0.70), ("b2", 1.0), ("b3", 1.8), ("b4", 4.2), ("b5", 9.9), ("b6", 19), ("b7", 37)],
)
def test_the_papers_flops_are_macs_within_five_percent(name: str, printed: float):
    # arXiv:1905.11946, Table 2, column "#FLOPs" [billions]
    assert count(EFFICIENTNET.member(name)).macs / 1e9 == pytest.approx(printed, rel=0.05)
