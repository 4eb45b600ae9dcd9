"""A network is a validated, frozen value with a dict form and an identity."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from networks import B0, MOBILENET_V2, RESNET50, SMALL, networks

from scalesearch.errors import ScaleSearchError, SpecError
from scalesearch.spec import Head, Network, Stage, Stem


@given(networks())
def test_the_dict_form_survives_json_and_reads_back_as_the_same_network(network: Network):
    read = Network.from_dict(json.loads(json.dumps(network.to_dict())))
    assert read == network
    assert read.digest == network.digest


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reversed(value[key]) for key in reversed(value)}
    return [_reversed(entry) for entry in value] if isinstance(value, list) else value


@given(networks())
def test_the_order_of_keys_does_not_change_the_digest(network: Network):
    assert Network.from_dict(_reversed(network.to_dict())).digest == network.digest


@given(networks(), networks())
def test_digests_are_equal_exactly_where_networks_are(one: Network, other: Network):
    assert (one.digest == other.digest) == (one == other)


def test_a_whole_float_and_its_int_are_one_network_with_one_digest():
    whole = dataclasses.replace(RESNET50, drop_path=0, norm_momentum=0)
    real = dataclasses.replace(RESNET50, drop_path=0.0, norm_momentum=0.0)
    assert whole == real
    assert whole.digest == real.digest


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 225},
        {"num_classes": 999},
        {"activation": "relu"},
        {"norm_eps": 1e-5},
        {"drop_path": 0.1},
        {"head": Head(width=1280)},
        {"stem": Stem(width=32, kernel=5)},
        {"stages": B0.stages[:-1]},
        {"stages": (*B0.stages[:-1], dataclasses.replace(B0.stages[-1], se_ratio=0.5))},
    ],
)
def test_each_field_is_part_of_the_identity(change: dict[str, Any]):
    assert dataclasses.replace(B0, **change).digest != B0.digest


@pytest.mark.parametrize("block", ["basic", "separable"])
def test_a_block_without_hidden_channels_has_no_expansion(block: str):
    with pytest.raises(SpecError, match=r"stage.expansion = 4; it must be 1 unless"):
        Stage(block=block, depth=1, width=8, expansion=4)  # type: ignore[arg-type]


def test_b0_is_table_1_of_the_paper():
    # arXiv:1905.11946, Table 1, without the stem (row 1) and the head (row 9)
    assert B0.depths == (1, 2, 2, 3, 3, 4, 1)
    assert B0.widths == (16, 24, 40, 80, 112, 192, 320)
    assert [stage.kernel for stage in B0.stages] == [3, 3, 5, 3, 5, 5, 3]
    assert [stage.expansion for stage in B0.stages] == [1, 6, 6, 6, 6, 6, 6]
    assert [stage.stride for stage in B0.stages] == [1, 2, 2, 2, 1, 2, 1]
    assert {stage.se_ratio for stage in B0.stages} == {0.25}
    assert (B0.stem.width, B0.head.width, B0.resolution) == (32, 1280, 224)
    # "has 18 convolutional layers" (Fig. 4): stem, 16 blocks, head
    assert B0.depth == 16


def test_a_network_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        B0.resolution = 240  # type: ignore[misc]


BAD_VALUES = [
    ("resolution", 0),
    ("resolution", 224.0),
    ("resolution", True),
    ("num_classes", -1),
    ("num_classes", "1000"),
    ("activation", "gelu"),
    ("norm_eps", 1.0),
    ("norm_momentum", -0.1),
    ("norm_momentum", float("nan")),
    ("drop_path", 1),
    ("drop_path", None),
    ("stages", []),
    ("stages", 7),
    ("schema", 2),
    ("stem.width", 0),
    ("stem.width", None),
    ("stem.kernel", 4),
    ("stem.kernel", 3.0),
    ("stem.stride", 0),
    ("stem.pool", 0),
    ("head.width", -1),
    ("head.dropout", 1.0),
    ("head.dropout", "0.2"),
    ("stages[0].depth", 0),
    ("stages[1].width", 2.5),
    ("stages[1].block", "MBConv"),
    ("stages[2].stride", False),
    ("stages[2].kernel", 0),
    ("stages[2].expansion", 0),
    ("stages[1].expansion", 65),
    ("stages[1].expansion", float("inf")),
    ("stages[2].se_ratio", 1),
    ("stages[2].se_ratio", -0.25),
]


def _with(path: str, value: object) -> dict[str, Any]:
    """SMALL's dict with the entry at a path such as `stages[1].width` set."""
    values = SMALL.to_dict()
    target: Any = values
    *outer, last = path.replace("[", ".").replace("]", "").split(".")
    for key in outer:
        target = target[int(key) if key.isdigit() else key]
    target[last] = value
    return values


@pytest.mark.parametrize(("path", "value"), BAD_VALUES)
def test_a_bad_value_is_refused_by_its_path(path: str, value: object):
    with pytest.raises(SpecError) as caught:
        Network.from_dict(_with(path, value))
    told = "stages is empty" if value == [] else f"{path} = {value!r}"
    assert str(caught.value).startswith(told)
    assert caught.value.mend


def test_squeeze_excite_belongs_to_mbconv_alone():
    with pytest.raises(SpecError, match=r"stage\.se_ratio = 0\.25; it must be 0 unless block is mbconv"):
        Stage(block="basic", depth=1, width=8, se_ratio=0.25)


@pytest.mark.parametrize(
    ("place", "key"), [((), "color"), (("stem",), "widht"), (("stages", 1), "repeats"), (("head",), "width_")]
)
def test_an_unknown_key_is_named_with_its_place_and_the_known_ones(place: tuple[Any, ...], key: str):
    values = SMALL.to_dict()
    target: Any = values
    for step in place:
        target = target[step]
    target[key] = 1
    name = {(): "", ("stages", 1): "stages[1]."}.get(place, f"{place[0]}." if place else "")
    with pytest.raises(SpecError) as caught:
        Network.from_dict(values)
    assert str(caught.value).startswith(f"{name}{key} is not a key")
    assert "width" in str(caught.value) or "resolution" in str(caught.value)


@pytest.mark.parametrize(("place", "key"), [("network", "resolution"), ("stem", "width"), ("stages[2]", "block")])
def test_a_missing_key_is_named_with_its_place(place: str, key: str):
    values = SMALL.to_dict()
    del {"network": values, "stem": values["stem"], "stages[2]": values["stages"][2]}[place][key]
    with pytest.raises(SpecError) as caught:
        Network.from_dict(values)
    where = "" if place == "network" else f"{place}."
    assert str(caught.value).startswith(f"{where}{key} is missing")


@pytest.mark.parametrize("values", [None, [], "b0", 3])
def test_only_a_mapping_is_a_network(values: Any):
    with pytest.raises(SpecError, match=r"network = .* it must be a mapping"):
        Network.from_dict(values)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stages": list(SMALL.stages)}, "stages = "),
        ({"stages": ()}, "stages is empty; it must be a list of at least one stage"),
        ({"stages": (SMALL.stages[0], {"block": "basic"})}, "stages = .*tuple of Stage"),
        ({"stem": {"width": 8}}, "stem = "),
        ({"head": None}, "head = None"),
    ],
)
def test_parts_of_the_wrong_type_are_refused(change: dict[str, Any], told: str):
    with pytest.raises(SpecError, match=told):
        dataclasses.replace(SMALL, **change)


def test_a_spec_error_is_a_value_error_of_the_projects_tree():
    with pytest.raises(ValueError, match=r"stem\.width") as caught:
        Stem(width=-3)
    assert isinstance(caught.value, ScaleSearchError)


def test_the_dict_form_is_plain_data():
    def plain(value: object) -> bool:
        if isinstance(value, dict):
            return all(type(key) is str and plain(entry) for key, entry in value.items())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or type(value) in (int, float, str)

    assert plain(MOBILENET_V2.to_dict())
