"""Networks with layers in the form that suits a CPU: the same tensors by the same names, the same results."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from scalesearch.families import find_base
from scalesearch.nets.lean import LeanDepthwise, LeanSqueezeExcite, slim
from scalesearch.nets.network import build
from scalesearch.nets.stacked import stack
from scalesearch.spec import Head, Network, SqueezeExcite, Stage, Stem

NETWORK = Network(
    stem=Stem(width=8, stride=1),
    stages=(
        Stage(block="mbconv", depth=2, width=8, stride=2, expansion=2.0, se_ratio=0.25),
        Stage(block="mbconv", depth=1, width=12, kernel=5, expansion=4.0, se_ratio=0.5),
    ),
    head=Head(width=16),
    resolution=9,
    num_classes=3,
)
OTHER = replace(
    NETWORK, activation="hardswish", squeeze_excite=SqueezeExcite(activation="relu", gate="hardsigmoid", divisor=8)
)


@pytest.mark.parametrize("network", [NETWORK, OTHER], ids=["silu", "hardswish"])
def test_a_slim_network_computes_what_the_plain_one_does(network: Network):
    plain = build(network, seed=1).double()
    lean = slim(copy.deepcopy(plain))
    assert sum(isinstance(layer, LeanSqueezeExcite) for layer in lean.modules()) == 3
    assert sum(isinstance(layer, LeanDepthwise) for layer in lean.modules()) == 1
    assert list(lean.state_dict()) == list(plain.state_dict())
    images = torch.randn(6, 3, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(6) % 3
    for training in (True, False):
        losses = [functional.cross_entropy(one.train(training)(images), labels) for one in (plain, lean)]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-12, atol=0)
    for loss in losses:
        loss.backward()
    for (name, left), (_, right) in zip(plain.named_parameters(), lean.named_parameters(), strict=True):
        torch.testing.assert_close(right.grad, left.grad, rtol=1e-9, atol=1e-12, msg=name)


def test_the_parameters_are_those_of_the_network():
    module = build(NETWORK, seed=0)
    before = dict(module.named_parameters())
    assert all(before[name] is weight for name, weight in slim(module).named_parameters())


@settings(deadline=None, max_examples=60)
@given(
    kernel=st.sampled_from([5, 7]),
    stride=st.sampled_from([1, 2, 3]),
    channels=st.integers(1, 9),
    side=st.integers(1, 11),
    batch=st.integers(1, 3),
    is_padded=st.booleans(),
)
def test_a_gradient_taken_by_columns_is_that_of_the_whole_kernel(
    kernel: int, stride: int, channels: int, side: int, batch: int, is_padded: bool
):
    side = side if is_padded else side + kernel - 1
    plain = nn.Conv2d(channels, channels, kernel, stride, kernel // 2 if is_padded else 0, groups=channels, bias=False)
    plain = plain.double()
    lean = LeanDepthwise(copy.deepcopy(plain))
    images = torch.randn(batch, channels, side, side, dtype=torch.float64)
    results = []
    for layer in (plain, lean):
        x = images.clone().requires_grad_()
        out = layer(x)
        (out * out.detach().cos()).sum().backward()
        results.append((out, x.grad, layer.weight.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-12)


def test_what_has_no_such_layer_is_left_as_it_is():
    module = build(find_base("resnet18").network, seed=0)
    layers = list(module.modules())
    assert all(one is other for one, other in zip(slim(module).modules(), layers, strict=True))


def test_stacked_seeds_keep_their_squeeze_excite_and_compute_the_same():
    plain = stack([build(NETWORK, seed=seed).double() for seed in range(2)])
    lean = slim(copy.deepcopy(plain))
    assert not any(isinstance(layer, LeanSqueezeExcite) for layer in lean.modules())
    images = torch.randn(4, 6, 9, 9, dtype=torch.float64)
    for one in (plain, lean):
        one(images).square().sum().backward()
    for left, right in zip(plain.parameters(), lean.parameters(), strict=True):
        torch.testing.assert_close(right.grad, left.grad, rtol=1e-9, atol=1e-11)
