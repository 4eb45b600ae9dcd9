"""Limits beside the budget: what is typed, what is excluded with its reason, and the memory estimate, measured."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from networks import B0
from torch import Tensor
from torch.nn import functional as F

from scalesearch.cli import _code
from scalesearch.cost import count
from scalesearch.direct import FamilyRequest, asked_family
from scalesearch.errors import ScalingError, SpaceError
from scalesearch.families import find_base
from scalesearch.levelling import Scaled
from scalesearch.limits import BATCH, Limits, parse_limits, training_memory
from scalesearch.members import Member, Unreached
from scalesearch.nets.measure import one_thread
from scalesearch.nets.network import build
from scalesearch.scaling import Multipliers

# ---- as typed


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1", 1),
        ("20M", 20_000_000),
        ("16GiB", 16 * 1024**3),
        ("3MB", 3_000_000),
        ("20m", 20_000_000),
        ("1.5G", 1_500_000_000),
        (".5K", 500),
        ("16 GB", 16_000_000_000),
        ("2T", 2 * 10**12),
        (" 7k ", 7_000),
    ],
)
def test_amounts_as_people_write_them(text: str, amount: int):
    assert parse_limits(text, None, None) == Limits(params=amount)
    assert parse_limits(None, text, None) == Limits(activations=amount)
    assert parse_limits(None, None, text) == Limits(memory=amount, batch=BATCH)
    assert parse_limits(None, None, f"{text}@64") == Limits(memory=amount, batch=64)


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "M", "20X", "1e9", "20M@8", "nan", "inf", "1,5M", "0.4", "9" * 30, "1.2.3", "٣"]
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_no_amount_is_refused_with_its_option(text: str, place: int):
    if place == 2 and "@" in text:
        return
    given = [None] * place + [text] + [None] * (2 - place)
    with pytest.raises(SpaceError) as caught:
        parse_limits(*given)
    option = ("max-params", "max-activations", "max-memory")[place]
    assert f"{option} {text!r}" in str(caught.value)
    assert "write a positive number such as" in caught.value.mend


@pytest.mark.parametrize("text", ["16G@", "16G@0", "16G@-1", "16G@x", "16G@1.5", "@64", "16G@64@2", "16G@1000001", "@"])
def test_a_batch_that_is_none_is_refused(text: str):
    with pytest.raises(SpaceError, match="max-memory"):
        parse_limits(None, None, text)


# ---- faults


SCALED = Scaled(network=B0, effective=Multipliers(), cost=count(B0), growth=1.0)


def test_a_network_on_its_limits_is_within_them_and_one_more_is_told():
    memory = training_memory(B0, SCALED.cost, 8)
    on = Limits(params=SCALED.cost.params, activations=SCALED.cost.activations, memory=memory, batch=8)
    assert on.fault(SCALED) == ""
    assert Limits().fault(SCALED) == ""
    assert replace(on, params=5_000_000).fault(SCALED) == "5.289 M parameters, more than 5 M"
    assert replace(on, activations=6_000_000).fault(SCALED) == "6.748 M activations, more than 6 M"
    assert replace(on, memory=memory - 1).fault(SCALED) == "732.4 M bytes to train at batch 8, more than 732.4 M"
    both = replace(on, params=900, activations=10**6).fault(SCALED)
    assert both == "5.289 M parameters, more than 900 and 6.748 M activations, more than 1 M"


def plan(capsys: pytest.CaptureFixture[str], *options: object) -> dict[str, Any]:
    capsys.readouterr()
    command = ["plan", "--preset", "quick", "--candidates", 3, *options, "--json"]
    assert _code([str(one) for one in command]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_plan_excludes_what_is_beyond_a_limit_and_says_why(capsys: pytest.CaptureFixture[str]):
    free = plan(capsys)
    most = sorted(row["params"] for row in free["candidates"])[len(free["candidates"]) // 2]
    found = plan(capsys, "--max-params", most)
    kept = {row["id"] for row in free["candidates"] if row["params"] <= most}
    assert {row["id"] for row in found["candidates"]} == kept
    assert found["limits"] == {"params": most, "activations": None, "memory": None, "batch": BATCH}
    assert found["digest"] != free["digest"]
    reasons = [
        row["reason"] for row in found["excluded"] if row["reason"] not in {r["reason"] for r in free["excluded"]}
    ]
    points = [row for row in free["candidates"] if row["id"] not in kept]
    assert len(reasons) == sum(len(row["points"]) + len(row["references"]) for row in points)
    assert all(" M parameters, more than " in reason for reason in reasons)


@pytest.mark.parametrize(("option", "text", "told"), [
    ("--max-activations", "11M", "M activations, more than 11 M"),
    ("--max-memory", "2G@16", "G bytes to train at batch 16, more than 2 G"),
])  # fmt: skip
def test_other_limits_exclude_too(option: str, text: str, told: str, capsys: pytest.CaptureFixture[str]):
    found = plan(capsys, option, text)
    assert found["candidates"]
    assert any(told in row["reason"] for row in found["excluded"])


def test_limits_that_nothing_meets_are_refused_with_an_example(capsys: pytest.CaptureFixture[str]):
    assert _code(["plan", "--preset", "quick", "--max-params", "1K"]) == 2
    line = capsys.readouterr().err
    assert "no candidate is left" in line
    assert "parameters, more than 1 K" in line


def test_limits_are_part_of_a_study_file(capsys: pytest.CaptureFixture[str], tmp_path: Any):
    file = tmp_path / "study.yaml"
    file.write_text("max_params: 9M\nmax_memory: 16G@8\n")
    assert plan(capsys, "--study", file)["limits"] == {
        "params": 9_000_000,
        "activations": None,
        "memory": 16_000_000_000,
        "batch": 8,
    }


def test_members_beyond_a_limit_are_unreached_with_the_reason():
    request = FamilyRequest(base="b0", coefficients="1.2,1.1,1.15", growth="1.5,2,8", max_params="9M")
    found = asked_family(request, None).members
    assert [type(one) for one in found] == [Member, Member, Unreached]
    assert all(one.cost.params <= 9_000_000 for one in found if isinstance(one, Member))
    assert isinstance(found[2], Unreached)
    assert found[2].reason.endswith(" M parameters, more than 9 M")
    with pytest.raises(ScalingError, match=r"no member can be reached: .* M parameters, more than 1 M"):
        asked_family(replace(request, max_params="1M"), None)


# ---- the estimate of memory


def held(base: str, batch: int) -> tuple[float, int]:
    """Estimate over measurement of a training step, and the bytes of maps that autograd keeps."""
    network = replace(find_base(base).network, resolution=128)
    module = build(network)
    own = {weight.untyped_storage().data_ptr() for weight in module.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(saved: Tensor) -> Tensor:
        kept[saved.untyped_storage().data_ptr()] = saved
        return saved

    images, labels = torch.randn(batch, 3, 128, 128), torch.zeros(batch, dtype=torch.long)
    with one_thread(), torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        loss = F.cross_entropy(module(images), labels)
    maps = sum(saved.untyped_storage().nbytes() for place, saved in kept.items() if place not in own)
    assert loss.requires_grad
    cost = count(network)
    return training_memory(network, cost, batch) / (maps + 16 * cost.params), maps


@pytest.mark.parametrize(
    "base",
    ["b0", "resnet18", "resnet50", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mnasnet_b1", "lite0"],
)
def test_the_estimate_is_near_what_a_training_step_holds(base: str):
    """Distinct storages that autograd saves; parameters, gradients and two moments of Adam are 16 bytes each."""
    ratio, _ = held(base, 4)
    assert 0.8 <= ratio <= 1.25


def test_what_is_held_grows_with_the_batch_as_the_estimate_does():
    (few, small), (many, large) = held("resnet18", 2), held("resnet18", 8)
    assert large / small == pytest.approx(4, rel=0.01)
    assert many == pytest.approx(few, rel=0.05)
