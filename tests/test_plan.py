"""From what a user asks for to everything that fixes the answer: proxy bases, presets, files, all faults at once."""

import dataclasses
import math
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from networks import B0, EFFICIENTNET, MOBILENET_V1, MOBILENET_V2, RESNET50

from scalesearch.bases import find, halvings_to_fit
from scalesearch.cost import count
from scalesearch.dataset import Dataset, describe
from scalesearch.documents import plan_document
from scalesearch.errors import DataError, PlanError, ScaleSearchError, SpaceError, SpecError, StudyError
from scalesearch.families import base_names, find_base, own_network
from scalesearch.pace import Pace
from scalesearch.plan import Layout, Plan, lay_out, read_plan
from scalesearch.presets import PRESETS, PolicyName
from scalesearch.proxy_base import narrowed, native_side, relaxed
from scalesearch.request import Request, read_request, resolve
from scalesearch.runfolder import claimed
from scalesearch.spec import Head, Network, Stage, Stem
from scalesearch.staged import StagedBase


@cache
def planned(**asked: Any) -> tuple[Plan, Layout]:
    return resolve(Request(**{"preset": "quick", **asked}))


def images(side: int, *, photos: bool = False, classes: int = 10) -> Dataset:
    return dataclasses.replace(describe(None, root=None), side=side, is_photos=photos, num_classes=classes)


# ---- the proxy base


@pytest.mark.parametrize(
    ("native", "growth", "side"),
    [(28, 2.0, 20), (28, 4.0, 20), (28, 1.5, 23), (32, 2.0, 23), (64, 2.0, 45), (64, 4.0, 32), (16, 2.0, 20)],
)
def test_the_side_is_the_native_one_over_the_root_of_the_budget_and_at_least_20(native: int, growth: float, side: int):
    assert side == max(20, round(native / math.sqrt(growth)))
    for preset in PRESETS.values():
        assert find("b0").proxy_side(native_side(images(native), growth, preset.photo_side), growth) == side


@pytest.mark.parametrize("growth", [0.5, 2.0, 4.0])
def test_photos_have_a_side_by_preset(growth: float):
    photos = images(500, photos=True)
    assert {name: native_side(photos, growth, preset.photo_side) for name, preset in PRESETS.items()} == {
        "quick": 32,
        "standard": 128,
    }


def test_fashion_mnist_at_2x_is_looked_at_from_20_pixels():
    plan, _ = planned()
    assert plan.data.name == "fashion-mnist"
    assert plan.resolution == plan.proxy_base.network.resolution == 20
    assert plan.proxy_base.network.num_classes == 10


def test_the_side_can_be_given():
    plan, _ = planned(proxy_resolution=28)
    assert plan.proxy_base.network.resolution == 28


def strides(network: Network) -> tuple[int, ...]:
    """Of stem, stem pool and stages, in the order of the data."""
    return (network.stem.stride, network.stem.pool, *(stage.stride for stage in network.stages))


def last_map(network: Network) -> int:
    """Side of the last map, halved step by step as odd kernels with symmetric padding do."""
    side = network.resolution
    for stride in strides(network):
        side = (side - 1) // stride + 1
    return side


BASES = {"b0": B0, "resnet50": RESNET50, "mobilenet_v1": MOBILENET_V1, "mobilenet_v2": MOBILENET_V2}


@pytest.mark.parametrize("side", [8, 12, 16, 20, 23, 28, 32, 45, 64, 65, 96, 128, 224])
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_the_earliest_strides_go_until_the_last_map_is_3x3_and_no_further(base: Network, side: int):
    small = relaxed(base, side, 10)
    assert last_map(small) >= 3
    removed = [place for place, (new, old) in enumerate(zip(strides(small), strides(base), strict=True)) if new != old]
    strided = [place for place, stride in enumerate(strides(base)) if stride > 1]
    assert removed == strided[: len(removed)]
    assert all(strides(small)[place] == 1 for place in removed)
    if removed:  # the last one had to go
        kept = list(strides(small))
        kept[removed[-1]] = strides(base)[removed[-1]]
        assert math.ceil(side / math.prod(kept)) < 3


def test_b0_at_20_pixels_gives_up_stem_and_first_strided_stage():
    # 20 -> 20 -> 10 -> 5 -> 3 -> 3 -> ... : two of five stride-2 steps are too many
    small = relaxed(B0, 20, 10)
    assert strides(small) == (1, 1, 1, 1, 2, 2, 1, 2, 1)
    assert last_map(small) == 3


def test_a_stem_pool_goes_after_the_stem_and_before_any_stage():
    small = relaxed(RESNET50, 20, 10)
    assert strides(RESNET50) == (2, 2, 1, 2, 2, 2)
    assert strides(small) == (1, 1, 1, 2, 2, 2)
    assert strides(relaxed(RESNET50, 40, 10)) == (1, 2, 1, 2, 2, 2)


def test_relaxing_changes_strides_side_classes_and_regularisation_alone():
    small = relaxed(B0, 20, 10)
    assert (small.resolution, small.num_classes, small.head.dropout, small.drop_path) == (20, 10, 0.0, 0.0)
    back = dataclasses.replace(
        small,
        stem=B0.stem,
        stages=tuple(dataclasses.replace(s, stride=b.stride) for s, b in zip(small.stages, B0.stages, strict=True)),
        head=dataclasses.replace(small.head, dropout=B0.head.dropout),
        drop_path=B0.drop_path,
        resolution=B0.resolution,
        num_classes=B0.num_classes,
    )
    assert back == B0


def test_halving_halves_every_width_and_nothing_else():
    small = relaxed(B0, 20, 10)
    narrow, rounding = narrowed(small, EFFICIENTNET.rounding, 2)
    assert narrow.stem.width == 8
    assert narrow.widths == tuple(width // 4 for width in B0.widths)
    assert narrow.head.width == 320
    assert (narrow.depths, narrow.resolution) == (B0.depths, 20)
    assert rounding.divisor == 2  # steps as fine as at full width


@pytest.mark.parametrize("name", base_names())
def test_no_stage_of_a_proxy_base_has_fewer_than_4_channels(name: str):
    small = find(name).small(20, 10, 9).network
    assert isinstance(small, Network)
    inside = [stage.width * stage.expansion for stage in small.stages if stage.block == "bottleneck"]
    assert min(small.stem.width, *small.widths, *inside) >= 4
    assert all(depth >= 1 for depth in small.depths)


def test_halvings_that_would_starve_a_stage_shorten_the_network_instead():
    # 16 channels in the narrowest stage of B0 can be halved twice
    quarter, shorter = (narrowed(B0, EFFICIENTNET.rounding, times)[0] for times in (2, 3))
    assert shorter.widths == quarter.widths
    assert (quarter.depth, shorter.depth) == (16, 8)


OWN = {
    "no multiples of 8": [
        {"block": "basic", "depth": 2, "width": w, "stride": s} for w, s in ((20, 1), (36, 2), (60, 2))
    ],
    "seven groups": [
        {"block": "bottleneck", "depth": 2, "width": w, "stride": s, "expansion": 0.5, "groups": 7}
        for w, s in ((140, 1), (280, 2))
    ],
}


@pytest.mark.parametrize("stages", OWN.values(), ids=OWN)
def test_own_networks_of_any_channels_are_planned_with_references_that_move_one_dimension(
    stages: list[dict[str, Any]], tmp_path: Path
):
    network = {"stem": {"width": stages[0]["width"]}, "stages": stages, "head": {}, "resolution": 64, "num_classes": 10}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"network": network}))
    plan, layout = resolve(Request(base=str(tmp_path / "own.yaml"), preset="quick"))
    assert len(layout.candidates) >= 12
    base = plan.scalable.network
    assert isinstance(base, Network)
    for one in layout.candidates:
        if "depth" in one.references:
            assert isinstance(one.scaled.network, Network)
            assert (one.scaled.network.widths, one.scaled.network.resolution) == (base.widths, base.resolution)


def test_a_network_of_thousands_of_blocks_is_planned_at_once(tmp_path: Path):
    stages = [{"block": "basic", "depth": 1300, "width": 8, "stride": 2} for _ in range(3)]
    network = {"stem": {"width": 8}, "stages": stages, "head": {}, "resolution": 256, "num_classes": 10}
    (tmp_path / "deep.yaml").write_text(yaml.safe_dump({"network": network}))
    _, layout = resolve(Request(base=str(tmp_path / "deep.yaml"), budget="4x", preset="quick"))
    assert len(layout.candidates) >= 20


def test_channels_beyond_the_widest_are_left_out(tmp_path: Path):
    stages = [{"block": "basic", "depth": 2, "width": 60_000}]
    network = {"stem": {"width": 64}, "stages": stages, "head": {}, "resolution": 64, "num_classes": 10}
    (tmp_path / "wide.yaml").write_text(yaml.safe_dump({"network": network}))
    _, layout = resolve(Request(base=str(tmp_path / "wide.yaml"), preset="standard"))
    assert all(max(one.scaled.network.widths) <= 65_536 for one in layout.candidates)


def test_groups_narrow_with_the_channels_they_share():
    stage = Stage(block="bottleneck", depth=2, width=256, expansion=0.5, groups=32)
    network = Network(stem=Stem(width=64), stages=(stage,), head=Head(), resolution=32, num_classes=10)
    narrow, _ = narrowed(network, EFFICIENTNET.rounding, 2)
    assert (narrow.stages[0].width, narrow.stages[0].groups) == (64, 8)


def test_a_fixed_stem_and_head_narrow_too():
    lite = find_base("lite0")
    narrow, _ = narrowed(lite.network, lite.family.rounding, 2)
    assert (narrow.stem.width, narrow.head.width) == (8, 320)


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
@pytest.mark.parametrize("most", [3_000_000, 8_000_000, 60_000_000])
def test_the_base_is_halved_no_more_often_than_it_takes_to_fit(base: Network, most: int):
    found = StagedBase(named=own_network("any", base, EFFICIENTNET.rounding))
    times = halvings_to_fit(found, 20, 10, most)
    assert found.small(20, 10, times).cost.macs <= most
    assert times == 0 or found.small(20, 10, times - 1).cost.macs > most


def test_without_a_limit_nothing_is_narrowed():
    assert halvings_to_fit(find("b0"), 128, 10, None) == 0
    assert planned(preset="standard")[0].proxy_base.network.widths == B0.widths


# ---- what the presets spend


def spent(plan: Plan, layout: Layout) -> tuple[int, float]:
    """Training images seen by all trials of a grid together, and multiply-adds of their forward passes."""
    networks = [plan.proxy_base.network, *(layout.candidate(name).proxy.network for name in layout.trained)]
    passes = plan.images * plan.epochs * plan.seeds
    return passes * len(networks), passes * float(sum(count(network).macs for network in networks))


def most_spent(plan: Plan, layout: Layout) -> tuple[int, float]:
    """The same for a policy that chooses: at most, the heaviest proxy on budget as often as there are trials left.

    A reference off budget is trained once.
    """
    costs = {off: [0, *_costs(layout, off)] for off in (True, False)}
    anchors, trials = plan.seeds, plan.search_epochs(len(layout.trained)) // plan.epochs
    off = costs[True]
    macs = count(plan.proxy_base.network).macs * anchors + sum(off) + max(costs[False]) * (trials - len(off) + 1)
    passes = plan.images * plan.epochs
    return passes * (anchors + trials), passes * float(macs)


def _costs(layout: Layout, off_budget: bool) -> list[int]:
    trained = [layout.candidate(name) for name in layout.trained]
    return [count(one.proxy.network).macs for one in trained if one.off_budget is off_budget]


@pytest.mark.parametrize("budget", ["2x", "0.5x", "4x"])
@pytest.mark.parametrize("base", ["b0", "b1", "b4"])
def test_quick_keeps_a_grid_within_its_image_passes_and_image_macs(base: str, budget: str):
    plan, layout = planned(base=base, budget=budget, policy="grid")
    passes, work = spent(plan, layout)
    limit = PRESETS["quick"]
    assert passes <= 96_000
    assert work <= limit.image_macs
    assert passes > 0.95 * 96_000 or work > 0.95 * limit.image_macs  # and uses one of them up
    document = plan_document(plan, layout)
    assert document["image_passes"] == passes
    assert document["most_epochs"] == plan.epochs * plan.seeds * (len(layout.trained) + 1)


@pytest.mark.parametrize("budget", ["2x", "0.5x", "4x"])
@pytest.mark.parametrize("base", ["b0", "b1", "b4"])
@pytest.mark.parametrize("policy", get_args(PolicyName))
def test_quick_keeps_whatever_a_policy_chooses_within_reach_of_its_limits(policy: str, base: str, budget: str):
    plan, layout = planned(base=base, budget=budget, policy=policy)
    passes, work = most_spent(plan, layout)
    limit = PRESETS["quick"]
    assert passes == plan_document(plan, layout)["image_passes"] <= 96_000
    assert work <= 1.04 * limit.image_macs  # proxies on budget differ by up to 3 % either way
    assert passes > 0.95 * 96_000 or work > 0.95 * limit.image_macs


def test_quick_on_b0_at_2x_searches_all_59_proxies_with_26_trials():
    plan, layout = planned()
    assert plan.evidence == "quick look"
    assert len(layout.trained) == 59 == len({one.proxy_id for one in layout.candidates})
    assert (plan.policy, plan.seeds, plan.validation_images) == ("fit", 2, 2_000)
    assert plan.anchor_epochs + plan.search_epochs(59) == 26 * plan.epochs == plan.most_epochs
    assert 87_000 < most_spent(plan, layout)[0] <= 96_000
    assert count(plan.proxy_base.network).macs <= PRESETS["quick"].proxy_macs


@pytest.mark.parametrize("policy", ["race", "grid"])
def test_quick_races_and_grids_12_proxies_and_the_anchor_with_2_seeds(policy: str):
    plan, layout = planned(policy=policy)
    assert plan.evidence == "quick look"
    assert (len(layout.trained), plan.seeds, plan.validation_images) == (12, 2, 2_000)
    assert plan.most_epochs is None
    assert plan.anchor_epochs + plan.search_epochs(12) == 26 * plan.epochs
    assert 87_000 < most_spent(plan, layout)[0] <= 96_000


def test_the_epochs_of_a_search_can_be_bounded_and_the_images_stay():
    plan, layout = planned(max_epochs_total=20)
    assert plan.anchor_epochs + plan.search_epochs(len(layout.trained)) == 20
    assert plan.images == planned()[0].images, "fewer epochs are less compute, not more images"
    grid, layout = planned(policy="grid", candidates=5, max_epochs_total=1000)
    assert grid.search_epochs(len(layout.trained)) == 5 * 2 * 2  # no more than the policy takes


@pytest.mark.parametrize("policy", get_args(PolicyName))
def test_epochs_that_train_no_two_proxies_are_refused_with_the_least_that_does(policy: str):
    plan, layout = planned(policy=policy, max_epochs_total=8)
    assert plan.search_epochs(len(layout.trained)) == 2 * plan.epochs
    with pytest.raises(PlanError, match="7 epochs in all, 4 of them the unscaled base's, train no two") as caught:
        planned(policy=policy, max_epochs_total=7)
    assert "--max-epochs-total 8 or more" in caught.value.mend
    assert planned(seeds=25)[0].anchor_seeds == 3, "of the 26 trials of the preset"


def test_heavier_budgets_get_fewer_images():
    images = [planned(budget=budget)[0].images for budget in ("2x", "3x", "4x")]
    assert images == sorted(images, reverse=True)
    assert len(set(images)) == 3


def test_the_counts_can_be_given():
    plan, layout = planned(seeds=3, epochs=1, candidates=5, images=500)
    assert (plan.seeds, plan.epochs, plan.images, len(layout.trained)) == (3, 1, 500, 5)


def test_standard_trains_every_distinct_proxy_on_every_image_it_does_not_hold_out():
    plan, layout = planned(preset="standard")
    assert plan.evidence == "standard"
    assert set(layout.trained) == {one.proxy_id for one in layout.candidates}
    assert plan.images + plan.validation_images == plan.data.train_count


def test_more_images_than_there_are_is_all_of_them():
    plan, _ = planned(images=10**9)
    assert plan.images == plan.data.train_count - plan.validation_images


def test_too_little_compute_to_rank_anything_is_said():
    with pytest.raises(PlanError, match=r"affords 73 training images; a search needs at least 256") as caught:
        planned(epochs=50, seeds=20)
    assert "--images" in caught.value.mend


def test_the_layout_does_not_depend_on_how_many_images_are_trained_on():
    plan, layout = planned()
    assert lay_out(plan) == layout


# ---- plan.yaml


def test_a_plan_survives_its_file():
    for plan in (planned()[0], planned(budget="0.5x", data="torchvision:CIFAR10", preset="standard")[0]):
        assert Plan.from_dict(plan.to_dict()) == plan
        text = yaml.safe_dump(plan.to_dict())
        assert Plan.from_dict(yaml.safe_load(text)) == plan
        assert Plan.from_dict(yaml.safe_load(text)).digest == plan.digest


def test_equal_requests_have_equal_digests():
    again = resolve(Request(preset="quick"))[0]
    assert again.digest == planned()[0].digest
    assert len(again.digest) == 64


OTHER = {
    "policy": "race",
    "margin": 0.2,
    "most_epochs": 40,
    "confirm": 3,
    "check_phi": 2.0,
    "base": find("b1"),
    "budget": "2.0x",
    "preset": "standard",
    "resolution": 21,
    "halvings": 1,
    "proxies": 12,
    "seeds": 3,
    "epochs": 5,
    "images": 1000,
    "validation_images": 1000,
    "threads": 2,
    "together": 2,
}


def changed() -> dict[str, Plan]:
    """The default plan with one field changed, for every field, those of its parts included."""
    plan = planned()[0]
    plans = {name: dataclasses.replace(plan, **{name: value}) for name, value in OTHER.items()}
    parts = {
        "space": {"budget": 3.0, "policy": "paper", "step": 0.1, "tolerance": 0.2},
        "data": {"name": "x", "source": "x", "root": "x", "num_classes": 3, "class_names": ("a",), "side": 9}
        | {"is_photos": True, "train_count": 7, "has_validation": True, "has_test": False},
        "limits": {"params": 7, "activations": 7, "memory": 7, "batch": 7},
        "recipe": {"learning_rate": 0.5, "batch_size": 99, "optimizer": "sgd", "near_identity": False},
    }
    for name, fields in parts.items():
        for key, value in fields.items():
            part = dataclasses.replace(getattr(plan, name), **{key: value})
            plans[f"{name}.{key}"] = dataclasses.replace(plan, **{name: part})
    return plans


def test_every_field_of_a_plan_is_in_its_digest():
    plan, plans = planned()[0], changed()
    assert {name.split(".")[0] for name in plans} | {"pace"} == {field.name for field in dataclasses.fields(Plan)}
    for part in ("space", "data", "limits"):
        fields = {field.name for field in dataclasses.fields(getattr(plan, part))}
        assert {name.split(".")[1] for name in plans if name.startswith(f"{part}.")} == fields
    digests = {plan.digest, *(one.digest for one in plans.values())}
    assert len(digests) == len(plans) + 1
    assert dataclasses.replace(plan, pace=Pace(threads=7)).digest == plan.digest  # measured, not asked for


def test_the_run_folder_is_named_after_base_budget_data_and_digest():
    plan = planned()[0]
    assert plan.folder_name == f"b0-2x-fashion-mnist-{plan.digest[:8]}"
    assert planned(budget="0.5X")[0].folder_name.startswith("b0-0.5x-fashion-mnist-")


DAMAGED = {
    "a missing key": lambda values: values.pop("seeds"),
    "an unknown key": lambda values: values.update(colour="red"),
    "another schema": lambda values: values.update(schema=99),
    "a space without a step": lambda values: values["space"].pop("step"),
    "a space that is a word": lambda values: values.update(space="wide"),
    "an unknown recipe key": lambda values: values["recipe"].update(speed=3),
    "data without a side": lambda values: values["data"].pop("side"),
    "no such preset": lambda values: values.update(preset="fast"),
    "no such base": lambda values: values.update(base="b9"),
    "no seeds": lambda values: values.update(seeds=0),
    "seeds in words": lambda values: values.update(seeds="two"),
    "no such policy": lambda values: values.update(policy="halving"),
    "a margin below 0": lambda values: values.update(margin=-0.1),
    "half a confirmation": lambda values: values.update(confirm=0.5),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_plan_is_refused_with_its_file(damage: Any, tmp_path: Path):
    values = yaml.safe_load(yaml.safe_dump(planned()[0].to_dict()))
    damage(values)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(StudyError, match=r"plan\.yaml is damaged"):
        lay_out(read_plan(tmp_path))


@pytest.mark.parametrize("text", ["{", "- 1", "", "a: [", "\x00"])
def test_a_plan_that_is_no_mapping_is_refused(text: str, tmp_path: Path):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(StudyError, match=r"plan\.yaml is damaged"):
        read_plan(tmp_path)


def test_a_folder_without_a_plan_is_no_run_folder(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(StudyError, match="not a run folder"):
            read_plan(folder)


def test_a_run_folder_keeps_its_plan_and_takes_the_same_one_again(tmp_path: Path):
    plan = planned()[0]
    for _ in range(2):
        with claimed(tmp_path, plan):
            assert read_plan(tmp_path) == plan


def test_a_run_folder_of_another_plan_is_refused_with_the_difference(tmp_path: Path):
    with claimed(tmp_path, planned()[0]):
        pass
    before = (tmp_path / "plan.yaml").read_bytes()
    with pytest.raises(StudyError, match="another plan") as caught, claimed(tmp_path, planned(seeds=3, epochs=1)[0]):
        pytest.fail("claimed")
    assert "- seeds: 2" in caught.value.message
    assert "+ seeds: 3" in caught.value.message
    assert "--out" in caught.value.mend
    assert (tmp_path / "plan.yaml").read_bytes() == before


# ---- study.yaml


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return path


def test_a_study_file_says_what_the_options_say(tmp_path: Path):
    text = """
    base: b1
    budget: 1.5x
    rounding: paper
    step: 0.1
    tolerance: 0.2
    data: torchvision:CIFAR10
    data_root: somewhere
    preset: standard
    policy: grid
    margin: 0.3
    max_epochs_total: 600
    confirm: 2
    check_phi: 2.5
    candidates: 7
    seeds: 4
    epochs: 3
    images: 5000
    proxy_resolution: 24
    recipe: {learning_rate: 0.01, schedule: {knots: [0, 1], values: [1, 0]}}
    """
    asked = read_request(written(tmp_path, text))
    assert asked == Request(
        base="b1", budget="1.5x", rounding="paper", step=0.1, tolerance=0.2, data="torchvision:CIFAR10",
        data_root="somewhere", preset="standard", policy="grid", margin=0.3, max_epochs_total=600, confirm=2,
        check_phi=2.5, candidates=7, seeds=4, epochs=3, images=5000, proxy_resolution=24,
        recipe={"learning_rate": 0.01, "schedule": {"knots": [0, 1], "values": [1, 0]}},
    )  # fmt: skip
    plan, _ = resolve(asked)
    assert plan.recipe.learning_rate == 0.01
    assert plan.recipe.schedule(0.5) == 0.5
    assert (plan.resolution, plan.epochs, plan.images, plan.proxies) == (24, 3, 5000, 7)
    found = (plan.policy, plan.margin, plan.most_epochs, plan.confirm, plan.check_phi)
    assert found == ("grid", 0.3, 600, 2, 2.5)


def test_a_study_file_may_leave_everything_to_the_rules(tmp_path: Path):
    assert read_request(written(tmp_path, "{}")) == Request()


def test_the_file_of_a_study_names_every_key_of_a_request(tmp_path: Path):
    with pytest.raises(PlanError) as caught:
        read_request(written(tmp_path, "colour: red"))
    assert all(field.name in caught.value.mend for field in dataclasses.fields(Request))


def test_all_faults_of_a_study_file_are_told_at_once_each_with_its_key(tmp_path: Path):
    path = written(tmp_path, "buget: 2x\nbase: 7\nseeds: two\nrounding: up\nstep: [1]\npreset: fast\nepochs: true\n")
    with pytest.raises(PlanError) as caught:
        read_request(path)
    faults = caught.value.faults
    assert len(faults) == 7
    assert all(str(path) in fault for fault in faults)
    for key in ("buget", "base", "seeds", "rounding", "step", "preset", "epochs"):
        assert sum(f": {key}" in fault for fault in faults) == 1
    assert "did you mean budget?" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "budget: [2x", "a: b: c", "\x00"])
def test_what_is_no_yaml_is_one_line(text: str, tmp_path: Path):
    with pytest.raises(PlanError) as caught:
        read_request(written(tmp_path, text))
    assert "study.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["- base", "2x", "null"])
def test_yaml_that_is_no_mapping_is_refused(text: str, tmp_path: Path):
    with pytest.raises(PlanError, match="not a mapping"):
        read_request(written(tmp_path, text))


def test_a_study_file_that_cannot_be_read_is_one_line(tmp_path: Path):
    (tmp_path / "latin.yaml").write_bytes(b"base: \xe9\xff")
    for path in (tmp_path / "nowhere.yaml", tmp_path, tmp_path / "latin.yaml"):
        with pytest.raises(PlanError) as caught:
            read_request(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


# ---- resolving


def test_each_fault_of_a_request_has_its_own_kind():
    wrong: dict[type[ScaleSearchError], dict[str, Any]] = {
        SpecError: {"base": "b9"},
        SpaceError: {"budget": "abc"},
        DataError: {"data": "/nowhere"},
        PlanError: {"seeds": 0},
    }
    for kind, asked in wrong.items():
        with pytest.raises(kind):
            resolve(Request(preset="quick", **asked))


def test_all_faults_of_a_request_are_told_at_once_each_with_its_mend():
    with pytest.raises(PlanError) as caught:
        resolve(Request(base="b9", budget="abc", data="/nowhere", seeds=0, images=3, recipe={"speed": 1}))
    text = str(caught.value)
    assert len(caught.value.faults) == 6
    for part in ("'b9'", "known bases", "'abc'", "2x", "/nowhere", "torchvision:NAME", "seeds 0", "images 3", "speed"):
        assert part in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("candidates", 1), ("seeds", 0), ("epochs", 0), ("images", 255), ("proxy_resolution", 7)),
        *(("margin", -1), ("max_epochs_total", 0), ("confirm", -1)),
    ],
)
def test_a_count_that_is_too_small_is_told_with_the_least(key: str, value: int):
    with pytest.raises(PlanError, match="at least") as caught:
        resolve(Request(preset="quick", **{key: value}))
    assert str(value + 1) in caught.value.mend


@pytest.mark.parametrize(
    "recipe",
    [
        {"learning_rate": "fast"},
        {"learning_rate": -1.0},
        {"batch_size": "many"},
        {"optimizer": "lion"},
        {"schedule": 5},
        {"schedule": {"knots": [0, 1]}},
        {"schedule": {"knots": ["a", "b"], "values": [0, 1]}},
        {"speed": 3},
    ],
)
def test_a_recipe_that_is_none_is_a_fault_of_the_plan(recipe: dict[str, Any]):
    with pytest.raises(PlanError):
        resolve(Request(preset="quick", recipe=recipe))


def test_a_confirmation_needs_a_test_part(tmp_path: Path):
    path = tmp_path / "two.npz"
    np.savez(path, train_images=np.zeros((600, 12, 12), np.uint8), train_labels=np.arange(600) % 3)
    with pytest.raises(PlanError, match=r"--confirm: .* has no test part"):
        resolve(Request(preset="quick", data=str(path), confirm=1))
    assert resolve(Request(preset="quick", data=str(path), confirm=0))[0].confirm == 0


@pytest.mark.parametrize("phi", [-3, 0, 1, 3.9])
def test_a_rule_is_checked_neither_where_it_says_nothing_new_nor_out_of_reach(phi: float):
    with pytest.raises(PlanError, match=f"--check-phi {phi:g} asks for") as caught:
        planned(check_phi=phi, budget="4x")
    assert "other than 0 and 1" in str(caught.value)


def test_a_builders_rule_is_checked_at_no_other_budget():
    with pytest.raises(PlanError, match="--check-phi: networks of a builder"):
        resolve(Request(preset="quick", base="builders:convnet", check_phi=2))


def test_a_proxy_resolution_beyond_reason_is_refused():
    with pytest.raises(ScaleSearchError, match="proxy-resolution"):
        resolve(Request(preset="quick", proxy_resolution=10**6))


@pytest.mark.parametrize(
    "less", [{"seeds": 2}, {"epochs": 15}, {"images": 7_999}, {"candidates": 20}, {"max_epochs_total": 500}]
)
def test_less_than_the_standard_preset_is_a_quick_look(less: dict[str, int]):
    assert resolve(Request(preset="standard"))[0].evidence == "standard"
    assert resolve(Request(preset="standard", **less))[0].evidence == "quick look"


def test_a_dataset_too_small_to_rank_on_is_told_so(tmp_path: Path):
    path = tmp_path / "few.npz"
    np.savez(path, train_images=np.zeros((120, 8, 8), np.uint8), train_labels=np.arange(120) % 3)
    told = r"leaves 96 training images beside 24 for validation; a search needs at least 256 \(docs/data.md\)"
    with pytest.raises(PlanError, match=told):
        resolve(Request(preset="quick", data=str(path)))
