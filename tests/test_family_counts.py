"""Every family that ships, counted three ways: closed form, fvcore on the built module, models of other libraries.

Then any legal member of a family: what the count, the module and the written config say of it is one thing.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import timm
import torch
import torchvision
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scalesearch.cost import OPERATORS, count, count_parts
from scalesearch.families import FAMILIES, TF_EFFICIENTNET, base_names, find_base, own_network
from scalesearch.levelling import level
from scalesearch.nets.measure import FlopCountAnalysis, measure_parts
from scalesearch.nets.network import shaped
from scalesearch.proxy_base import narrowed as narrowed_by
from scalesearch.scaling import Coefficients, Family, Multipliers, Rounding, scale
from scalesearch.spec import Network

SLOW = {"b5", "b6", "b7", "b8", "l2", "resnet101", "resnet152"} | (set(TF_EFFICIENTNET.networks) - {"tf_b0"})
TORCHVISION = {
    **{f"b{index}": f"efficientnet_b{index}" for index in range(8)},
    **{name: name for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")},
    **{name: name for name in ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")},
    "mnasnet_b1": "mnasnet1_0",
}
TIMM = {
    **{f"tf_b{index}": f"tf_efficientnet_b{index}" for index in range(9)},
    **{f"lite{index}": f"tf_efficientnet_lite{index}" for index in range(5)},
    "b8": "tf_efficientnet_b8",
    "l2": "tf_efficientnet_l2",
    "tf_l2": "tf_efficientnet_l2",
    "mobilenet_v1": "mobilenetv1_100",
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "mnasnet_b1": "mnasnet_100",
}


def peer(make: Callable[[], nn.Module], side: int) -> tuple[int, int]:
    """Parameters and multiply-adds of another library's model, by torch's own counter, without any memory for it."""
    with torch.device("meta"):
        model, image = make().eval(), torch.zeros(1, 3, side, side)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    return sum(weight.numel() for weight in model.parameters()), counter.get_total_flops() // 2


def test_every_network_that_ships_has_a_peer():
    assert set(TORCHVISION) | set(TIMM) == set(base_names())


@pytest.mark.parametrize(("name", "theirs"), TORCHVISION.items())
def test_a_network_has_the_parameters_and_multiply_adds_of_torchvisions(name: str, theirs: str):
    network = find_base(name).network
    cost = count(network)
    assert (cost.params, cost.macs) == peer(lambda: torchvision.models.get_model(theirs), network.resolution)


@pytest.mark.parametrize(("name", "theirs"), TIMM.items())
def test_a_network_has_the_parameters_and_multiply_adds_of_timms(name: str, theirs: str):
    network = find_base(name).network
    cost = count(network)
    assert (cost.params, cost.macs) == peer(lambda: timm.create_model(theirs), network.resolution)


def test_a_network_with_groups_has_the_parameters_and_multiply_adds_of_torchvisions_resnext():
    cost = count(GROUPED)
    assert (cost.params, cost.macs) == peer(lambda: torchvision.models.get_model("resnext50_32x4d"), 224)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in base_names()]
)
def test_fvcore_counts_a_network_as_the_closed_form_does_in_every_operator_of_every_part(name: str):
    small = replace(find_base(name).network, resolution=65)
    assert measure_parts(small) == count_parts(small)


def of_one(name: str) -> Family:
    """A shipped network that is no baseline, as a family of its own."""
    named = find_base(name)
    return own_network(name, named.network, named.family.rounding).family


GROUPED = replace(
    find_base("resnet50").network,
    stages=tuple(replace(s, expansion=0.5, groups=32) for s in find_base("resnet50").network.stages),
)
"""ResNeXt-50 32x4d, arXiv:1611.05431, Table 1."""
KINDS = {
    **FAMILIES,
    "resnet50": of_one("resnet50"),
    "mobilenet_v3_small": of_one("mobilenet_v3_small"),
    "groups": own_network("groups", GROUPED, Rounding()).family,
}
"""A family for every kind of block and head, each block with what it can have."""


def narrowed(family: Family) -> tuple[Network, Rounding]:
    """A quarter of the channels at 32 px, with the divisor narrowed alike, as proxies are."""
    network, rounding = narrowed_by(replace(family.baseline, resolution=32), family.rounding, 2)
    return network, rounding


REACHED = ((0.2, 0.4, 0.4), (0.1, 0.8, 0.1), (0.4, 0.3, 0.3), (0.1, 0.3, 0.6), (0.0, 0.5, 0.5))
"""Shares to fall back on where the narrowed base has no network near those that were drawn."""


@st.composite
def rounded_as_the_paper(draw: st.DrawFn, family: Family) -> Network:
    """The baseline at any multipliers that make it small, by the paper's rounding."""
    multipliers = Multipliers(
        depth=draw(st.floats(0.1, 1.6)),
        width=draw(st.floats(0.1, 0.5)),
        resolution=draw(st.integers(16, 64)) / family.baseline.resolution,
    )
    return scale(family.baseline, multipliers, family.rounding)


@st.composite
def levelled(draw: st.DrawFn, family: Family) -> Network:
    """A narrowed baseline projected onto a legal network of a budget, with any shares."""
    budget = draw(st.floats(0.4, 0.8) | st.floats(1.3, 3.0))
    cuts = sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1))))
    drawn = (cuts[0], cuts[1] - cuts[0], 1 - cuts[1])
    points = [Coefficients.from_shares(shares, budget).at(1.0) for shares in (drawn, *REACHED)]
    base, rounding = narrowed(family)
    found = next((one for one in level(points, base, rounding, budget, resolution_step=1) if one is not None), None)
    assume(found is not None)
    assert abs(count(found.network).macs / count(base).macs / budget - 1) <= 0.03
    return found.network


POLICIES = {"level": levelled, "paper": rounded_as_the_paper}


def check(network: Network, batch: int) -> None:
    """One network, one set of facts: by fvcore, by the module's output, and by what is written of it."""
    module, cost = shaped(network).eval(), count(network)
    images = torch.zeros(batch, 3, network.resolution, network.resolution)
    with torch.no_grad():
        flops = FlopCountAnalysis(module, images).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_operator = {name: int(work) for name, work in flops.by_operator().items() if work}
        assert module(images).shape == (batch, network.num_classes)
    assert by_operator == {name: batch * getattr(cost, name) for name in OPERATORS if getattr(cost, name)}
    assert sum(weight.numel() for weight in module.parameters()) == cost.params
    written = yaml.safe_load(yaml.safe_dump(network.to_dict()))
    for again in (Network.from_dict(network.to_dict()), Network.from_dict(written)):
        assert again == network
        assert again.digest == network.digest


EXAMPLES = 30 if os.environ.get("SCALESEARCH_FAULTS") == "full" else 4


@pytest.mark.parametrize(("name", "policy"), [(name, policy) for name in KINDS for policy in POLICIES])
def test_count_module_and_config_of_any_member_agree(name: str, policy: str):
    """`check` on members drawn at random, with any number of classes and images."""
    members = POLICIES[policy](KINDS[name])

    @given(members, st.integers(1, 1100), st.integers(1, 3))
    @settings(max_examples=EXAMPLES, deadline=None)
    def any_member(network: Network, classes: int, batch: int) -> None:
        check(replace(network, num_classes=classes), batch)

    any_member()


def test_a_digest_is_the_same_in_another_process():
    network = scale(find_base("mobilenet_v3_large").network, Multipliers(depth=1.3, width=0.7), Rounding())
    script = (
        "from scalesearch.families import find_base\n"
        "from scalesearch.scaling import Multipliers, Rounding, scale\n"
        "base = find_base('mobilenet_v3_large').network\n"
        "print(scale(base, Multipliers(depth=1.3, width=0.7), Rounding()).digest)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    shown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment)
    assert shown.stdout.split() == [network.digest]
