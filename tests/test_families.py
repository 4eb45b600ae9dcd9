"""The families are the published tables, under the names people use."""

import pytest
from networks import EFFICIENTNET

from scalesearch.cost import BLOCK_LAYERS, count
from scalesearch.errors import ScalingError, SpecError
from scalesearch.families import FAMILIES, base_names, find_base
from scalesearch.levelling import level
from scalesearch.request import Request, resolve
from scalesearch.scaling import Multipliers, round_width, scale
from scalesearch.space import Space
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


# names as users, torchvision and timm write them
@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("resnet50", "resnet50"), ("ResNet-50", "resnet50"), ("resnet_152", "resnet152"),
        ("mobilenet_v1", "mobilenet_v1"), ("mobilenetv1_100", "mobilenet_v1"), ("MobileNetV2", "mobilenet_v2"),
        ("mobilenetv2_100", "mobilenet_v2"), ("mobilenet_v3_large", "mobilenet_v3_large"),
        ("mobilenetv3_small_100", "mobilenet_v3_small"), ("mnasnet1_0", "mnasnet_b1"), ("mnasnet_100", "mnasnet_b1"),
        ("efficientnet_lite0", "lite0"), ("EfficientNet-Lite4", "lite4"), ("tf_efficientnet_b3", "tf_b3"), ("l2", "l2"),
    ],
)  # fmt: skip
def test_other_bases_are_found_by_the_names_people_type(typed: str, name: str):
    assert find_base(typed).name == name


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [("resnet51", "resnet50"), ("mobilnet_v2", "mobilenet_v2"), ("efficientnet_b9", "b"), ("lite5", "lite")],
)
def test_a_misspelt_base_suggests_the_nearest(typed: str, nearest: str):
    with pytest.raises(SpecError, match=f"did you mean {nearest}"):
        find_base(typed)


# tensorflow/tpu, efficientnet_lite_builder.py: width, depth, side; the parameters [M] as its README prints them
@pytest.mark.parametrize(
    ("name", "side", "printed"),
    [
        ("lite0", 224, "4.7"),
        ("lite1", 240, "5.4"),
        ("lite2", 260, "6.1"),
        ("lite3", 280, "8.2"),
        ("lite4", 300, "13.0"),
    ],
)
def test_lite_has_the_published_sides_and_parameters(name: str, side: int, printed: str):
    network = find_base(name).network
    assert network.resolution == side
    assert f"{count(network).params / 1e6:.1f}" == printed
    assert (network.stem.width, network.head.width) == (32, 1280)
    assert (network.depths[0], network.depths[-1]) == (1, 1)


# docs/design.md, section 4: 61-86 distinct networks each, every one of the 108 points within reach
@pytest.mark.parametrize(
    ("name", "networks"), [("resnet18", 61), ("resnet50", 86), ("mobilenet_v1", 68), ("mobilenet_v2", 75)]
)
def test_every_point_of_the_grid_at_2x_projects(name: str, networks: int):
    base = find_base(name)
    points = [point.at(1) for point in Space.of(2.0).grid()]
    found = level(points, base.network, base.family.rounding, 2.0)
    assert len(points) == 108
    assert all(one is not None and one.distance <= 0.15 for one in found)
    assert len({one.network for one in found if one is not None}) == networks


@pytest.mark.parametrize("name", [next(iter(family.networks)) for family in FAMILIES.values()])
@pytest.mark.parametrize("budget", ["0.5x", "0.25x", "4x"])
def test_every_family_scales_down_as_well_as_up(name: str, budget: str):
    _, layout = resolve(Request(base=name, budget=budget, preset="quick"))
    growth = float(budget[:-1])
    assert len(layout.candidates) >= 20
    for one in layout.candidates:
        if not one.off_budget:
            assert abs(one.scaled.growth / growth - 1) <= 0.03
            assert abs(one.proxy.growth / growth - 1) <= 0.03
        assert min(one.scaled.network.depths) >= 1


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
