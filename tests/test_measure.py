"""The two ways to a cost agree to the unit, operator by operator, and say so where they do not."""

import dataclasses
import warnings

import pytest
from hypothesis import given, settings
from networks import EXACT, NETWORKS, SMALL, networks

from scalesearch.cost import count, count_parts
from scalesearch.errors import CostMismatchError
from scalesearch.nets.measure import measure, measure_parts
from scalesearch.nets.network import build
from scalesearch.spec import Network


@pytest.mark.parametrize("name", EXACT)
def test_fvcore_on_the_built_network_gives_the_exact_counts(name: str):
    exact, cost = EXACT[name], measure(NETWORKS[name])
    assert cost.params == exact["params"]
    assert cost.macs == exact["macs"]
    assert cost.activations == exact["activations"]
    assert cost.fvcore_total == exact["fvcore_eval_total"]
    by_operator = {operator: getattr(cost, operator) for operator in exact["fvcore_eval_by_operator"]}
    assert by_operator == exact["fvcore_eval_by_operator"]


@given(networks())
@settings(max_examples=40, deadline=None)
def test_count_equals_measure_part_by_part_on_any_network(network: Network):
    assert measure_parts(network) == count_parts(network)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_restores_the_mode_of_the_module(training: bool):
    module = build(SMALL).train(training)
    assert measure(SMALL, module) == count(SMALL)
    assert module.training is training
    assert module.stages[0].training is training


def _stage(index: int, **change: object) -> Network:
    stages = list(SMALL.stages)
    stages[index] = dataclasses.replace(stages[index], **change)
    return dataclasses.replace(SMALL, stages=tuple(stages))


@pytest.mark.parametrize(
    ("built", "part", "quantity"),
    [
        (dataclasses.replace(SMALL, stem=dataclasses.replace(SMALL.stem, kernel=5)), "stem", "conv"),
        (_stage(1, depth=3), "stages.1", "conv"),
        (_stage(2, se_ratio=0.0), "stages.2", "conv"),
        (dataclasses.replace(SMALL, num_classes=11), "head", "linear"),
    ],
)
def test_a_module_of_another_network_is_refused_by_part_and_quantity(built: Network, part: str, quantity: str):
    with pytest.raises(CostMismatchError) as caught:
        measure(SMALL, build(built))
    fault = caught.value
    assert (fault.part, fault.quantity) == (part, quantity)
    assert fault.counted == getattr(count_parts(SMALL)[part], quantity)
    assert fault.measured == getattr(count_parts(built)[part], quantity)
    assert f"{fault.counted:,}" in str(fault)
    assert f"{fault.measured:,}" in str(fault)


def test_measuring_is_silent(capfd: pytest.CaptureFixture[str]):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        measure(SMALL)
    assert caught == []
    assert capfd.readouterr() == ("", "")
