"""The families are the published tables, under the names people use."""

import pytest
from networks import EFFICIENTNET

from scalesearch.cost import BLOCK_LAYERS, count
from scalesearch.errors import ScalingError, SpecError
from scalesearch.families import FAMILIES, base_names, find_base
from scalesearch.scaling import Multipliers, round_width, scale
from scalesearch.spec import Network


def test_every_family_goes_by_its_own_name_and_says_where_it_comes_from():
    for name, family in FAMILIES.items():
        assert family.name == name
        assert "arXiv" in family.source


def test_the_table_of_families_cannot_be_changed():
    with pytest.raises(TypeError):
        FAMILIES["mine"] = EFFICIENTNET  # type: ignore[index]


def test_no_two_bases_share_a_name():
    assert len(set(base_names())) == len(base_names())


def test_the_baseline_keeps_its_channels_under_its_own_rounding():
    for family in FAMILIES.values():
        baseline = family.baseline
        assert scale(baseline, Multipliers(), family.rounding) == baseline
        assert all(round_width(width, family.rounding) == width for width in baseline.widths)


@pytest.mark.parametrize("name", base_names())
def test_a_member_survives_the_dict_form_and_counts_by_known_blocks(name: str):
    network = find_base(name).network
    assert Network.from_dict(network.to_dict()) == network
    assert {stage.block for stage in network.stages} <= set(BLOCK_LAYERS)


# macs / macs of B0, rebuilt with a counter that matches fvcore and pycls to the unit
@pytest.mark.parametrize(
    ("name", "growth"),
    [
        ("b0", "1.00"), ("b1", "1.78"), ("b2", "2.58"), ("b3", "4.74"), ("b4", "11.39"), ("b5", "26.61"),
        ("b6", "49.42"), ("b7", "97.83"), ("b8", "162.2"), ("l2", "1233"),
    ],
)  # fmt: skip
def test_published_members_cost_what_others_rebuilt(name: str, growth: str):
    digits = len(growth.partition(".")[2])
    built = count(find_base(name).network).macs / count(EFFICIENTNET.baseline).macs
    assert f"{built:.{digits}f}" == growth


@pytest.mark.parametrize(
    ("name", "resolution", "dropout"),
    [
        ("b0", 224, 0.2), ("b1", 240, 0.2), ("b2", 260, 0.3), ("b3", 300, 0.3), ("b4", 380, 0.4),
        ("b5", 456, 0.4), ("b6", 528, 0.5), ("b7", 600, 0.5), ("b8", 672, 0.5), ("l2", 800, 0.5),
    ],
)  # fmt: skip
def test_published_members_have_the_published_side_and_dropout(name: str, resolution: int, dropout: float):
    # tensorflow/tpu, efficientnet_builder.py, efficientnet_params
    network = find_base(name).network
    assert (network.resolution, network.head.dropout) == (resolution, dropout)


@pytest.mark.parametrize("typed", ["b3", "B3", "efficientnet_b3", "EfficientNet-B3", "efficientnet-b3"])
def test_a_base_is_found_by_the_names_people_type(typed: str):
    base = find_base(typed)
    assert (base.name, base.family) == ("b3", EFFICIENTNET)
    assert base.network == EFFICIENTNET.member("b3")


def test_an_unknown_base_is_answered_with_the_nearest_and_with_all():
    with pytest.raises(SpecError) as caught:
        find_base("bO")
    message = str(caught.value)
    assert "unknown base 'bO'" in message
    assert "did you mean b" in message
    assert all(name in message for name in base_names())


def test_an_unknown_member_is_answered_with_all():
    with pytest.raises(ScalingError, match=r"no network 'b9'.*b0, b1"):
        EFFICIENTNET.member("b9")
