"""A stack is its networks: the same outputs, gradients, statistics and steps as each of them has alone."""

import copy
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from networks import SMALL, networks
from torch import Tensor, nn
from torch.nn import functional

from scalesearch.errors import SpecError
from scalesearch.families import find_base
from scalesearch.nets import blocks
from scalesearch.nets.network import build
from scalesearch.nets.stacked import StackedConv2d, joined, stack, stackable, unstack
from scalesearch.proxy.device import on_device
from scalesearch.proxy.evaluate import evaluate
from scalesearch.proxy.images import fingerprinted
from scalesearch.proxy.state import State
from scalesearch.proxy_base import narrowed, relaxed
from scalesearch.recipe import Recipe
from scalesearch.spec import Head, Network, Stage, Stem

K = 3
BATCH = 4


def proxy(name: str) -> Network:
    """A shipped network as a narrow proxy of 10 px: every second stage, with a block or two."""
    base = find_base(name)
    small, _ = narrowed(relaxed(base.network, 10, 5), base.family.rounding, 3)
    return dataclasses.replace(
        small, stages=tuple(dataclasses.replace(s, depth=min(2, s.depth)) for s in small.stages[::2])
    )


GROUPED = Network(
    stem=Stem(width=6, kernel=5, stride=2, pool=2),
    stages=(
        Stage(block="bottleneck", depth=2, width=12, stride=2, expansion=0.5, groups=3),
        Stage(block="separable", depth=1, width=10, kernel=5, stride=2),
    ),
    head=Head(width=0, hidden=7),
    resolution=19,
    num_classes=4,
    activation="relu6",
    padding="same",
)
NETWORKS = {
    **{name: proxy(name) for name in ("b0", "mobilenet_v3_large", "mobilenet_v1", "resnet18", "resnet50")},
    "grouped, padding same": GROUPED,
}
EACH_NETWORK = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


def seeds(network: Network, dtype: torch.dtype = torch.float64) -> list[nn.Module]:
    """Trained-looking networks: norms that are not the identity, statistics that are not those of the start."""
    generator = torch.Generator().manual_seed(1)
    modules: list[nn.Module] = [build(network, seed=seed) for seed in range(K)]
    for layer in (layer for module in modules for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)):
        nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
        nn.init.normal_(layer.bias, 0, 0.3, generator=generator)
        layer.running_mean.normal_(0, 0.1, generator=generator)
        layer.running_var.uniform_(0.5, 1.5, generator=generator)
    return [module.to(dtype).to(memory_format=torch.channels_last) for module in modules]


def batches(network: Network, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (BATCH, 3, network.resolution, network.resolution)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(K)]


def labels(network: Network) -> Tensor:
    """(batch, networks)."""
    return torch.randint(network.num_classes, (BATCH, K), generator=torch.Generator().manual_seed(2))


def side_by_side(images: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(images), 1).contiguous(memory_format=torch.channels_last)


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum over the networks of each one's mean cross-entropy: (batch, networks, classes), (batch, networks)."""
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / len(logits)


def descend(module: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """The logits (batch, networks, classes); the gradients are left in the module."""
    logits = module(images)
    logits = logits if logits.ndim == 3 else logits.unsqueeze(1)
    module.zero_grad(set_to_none=True)
    loss(logits, targets).backward()
    return logits.detach()


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}


def assert_near(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Equal up to `tolerance` times 1 or the largest value of all tensors together."""
    assert got.keys() == expected.keys()
    scale = max(1.0, *(float(tensor.detach().abs().max()) for tensor in expected.values()))
    for name, tensor in expected.items():
        different = (got[name].double() - tensor).detach().abs().max()
        assert different <= tolerance * scale, f"{name}: {float(different)} of {scale}"


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def compare_one_step(network: Network, dtype: torch.dtype, tolerance: float, *, backward: bool = True) -> None:
    """One pass of a stack in `dtype` against that of every network alone in double precision."""
    alone, images, targets = seeds(network), batches(network), labels(network)
    stacked = stack(seeds(network, dtype))
    logits = descend(stacked, side_by_side(images).to(dtype), targets)
    assert logits.shape == (BATCH, K, network.num_classes)
    for k, module in enumerate(alone):
        expected = descend(module, images[k], targets[:, k : k + 1])
        assert_near({"logits": logits[:, k]}, {"logits": expected[:, 0]}, tolerance)
        assert_near(unstack(stacked.state_dict(), k, count=K), module.state_dict(), tolerance)
        if backward:
            assert_near(unstack(gradients(stacked), k, count=K), gradients(module), tolerance)


@EACH_NETWORK
def test_in_double_precision_a_stack_is_its_networks_up_to_rounding(network: Network):
    compare_one_step(network, torch.float64, 1e-12)


@EACH_NETWORK
def test_in_single_precision_a_stack_is_its_networks_up_to_a_few_roundings_per_layer(network: Network):
    layers = sum(not list(layer.children()) for layer in build(network).modules())
    is_smooth = network.activation == "silu"  # elsewhere a rounding across a kink turns a gradient on or off
    compare_one_step(network, torch.float32, 8 * layers * torch.finfo(torch.float32).eps, backward=is_smooth)


def still(network: Network) -> Network:
    """Without random numbers, and small enough to train many of it."""
    return dataclasses.replace(
        network,
        drop_path=0.0,
        head=dataclasses.replace(network.head, dropout=0.0),
        resolution=min(network.resolution, 17),
    )


@given(networks().map(still))
@settings(max_examples=15, deadline=None)
def test_any_network_stacks(network: Network):
    compare_one_step(network, torch.float64, 1e-10)  # norms of four values that hardly differ magnify rounding


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(by_decay(module), lr=0.05, momentum=0.9, nesterov=True, fused=True)


def adamw(module: nn.Module) -> torch.optim.Optimizer:
    # a gradient that is nothing but rounding, as before a norm that undoes its weight, is divided by itself and epsilon
    return torch.optim.AdamW(by_decay(module), lr=0.01, eps=1e-3, fused=True)


def by_decay(module: nn.Module) -> list[dict]:
    weights = list(module.parameters())
    decayed, spared = [w for w in weights if w.ndim > 1], [w for w in weights if w.ndim <= 1]
    return [{"params": decayed, "weight_decay": 0.1}, {"params": spared, "weight_decay": 0.0}]


def trained(module: nn.Module, optimizer: torch.optim.Optimizer, steps: Sequence[Tensor], targets: Tensor) -> None:
    for images in steps:
        descend(module, images, targets)
        optimizer.step()


@EACH_NETWORK
@pytest.mark.parametrize("method", [sgd, adamw])
def test_after_steps_weights_statistics_and_evaluation_are_those_of_each_network_alone(
    network: Network, method: Callable[[nn.Module], torch.optim.Optimizer]
):
    steps, targets = [batches(network, seed=seed) for seed in range(3)], labels(network)
    alone, stacked = seeds(network), stack(seeds(network))
    trained(stacked, method(stacked), [side_by_side(images) for images in steps], targets)
    evaluated = stacked.eval()(side_by_side(steps[0]))
    for k, module in enumerate(alone):
        trained(module, method(module), [images[k] for images in steps], targets[:, k : k + 1])
        assert_near(unstack(stacked.state_dict(), k, count=K), module.state_dict(), 1e-10)
        assert_near({"": evaluated[:, k]}, {"": module.eval()(steps[0][k])}, 1e-10)


def estimate(module: nn.Module, steps: Sequence[Tensor]) -> None:
    """Running statistics as the plain mean over batches."""
    for layer in module.eval().modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
            layer.train()
    with torch.no_grad():
        for images in steps:
            module(images)


def test_norm_statistics_measured_anew_are_those_of_each_network_alone():
    network = NETWORKS["b0"]
    steps, alone = [batches(network, seed=seed) for seed in range(3)], seeds(network)
    stacked = stack(alone)
    estimate(stacked, [side_by_side(images) for images in steps])
    for k, module in enumerate(alone):
        estimate(module, [images[k] for images in steps])
        assert_near(unstack(stacked.state_dict(), k, count=K), module.state_dict(), 1e-12)


def test_an_evaluation_finds_of_each_network_what_it_finds_of_it_alone():
    """With more images for the norms than are taken at once, of a stack or of a network."""
    alone = seeds(NETWORKS["b0"], torch.float32)
    pixels = np.random.default_rng(0).integers(0, 256, (150, 3, 10, 10), np.uint8)
    targets = np.arange(150) % 5
    parts = {"train_images": pixels, "train_labels": targets, "validation_images": pixels, "validation_labels": targets}
    data = on_device(fingerprinted(**parts), resolution=10, device=torch.device("cpu"), memory=10**9)
    recipe = Recipe(norm_images=120, average=0.0)
    accuracies, losses = evaluate(State(stack(alone), recipe, seeds=K), data)
    for k, module in enumerate(alone):
        [accuracy], [expected] = evaluate(State(module, recipe), data)
        assert losses[k] == pytest.approx(expected, rel=1e-5)
        assert accuracies[k] == pytest.approx(accuracy, abs=100 / 150)  # rounding may turn an image


def test_autocast_to_bfloat16_costs_a_stack_no_more_than_its_networks():
    network = NETWORKS["b0"]
    alone, images = seeds(network, torch.float32), batches(network, torch.float32)
    stacked = stack(alone)
    exact = torch.stack([module(image) for module, image in zip(alone, images, strict=True)], 1)
    with torch.autocast("cpu", torch.bfloat16):
        plain = torch.stack([module(image) for module, image in zip(alone, images, strict=True)], 1)
        got = stacked(side_by_side(images))
    assert got.dtype == plain.dtype == torch.bfloat16
    assert (got - exact).square().mean() <= 2 * (plain - exact).square().mean()
    loss(got.float(), labels(network)).backward()
    assert all(gradient.isfinite().all() for gradient in gradients(stacked).values())
    assert len(gradients(stacked)) == len(list(stacked.parameters()))


@EACH_NETWORK
def test_what_is_not_a_number_stays_with_its_network(network: Network):
    images, targets = batches(network), labels(network)
    clean, spoilt = stack(seeds(network)), stack(seeds(network))
    expected = descend(clean, side_by_side(images), targets)
    images[1] = torch.full_like(images[1], torch.nan)
    got = descend(spoilt, side_by_side(images), targets)
    assert got[:, 1].isnan().all()
    assert unstack(gradients(spoilt), 1, count=K)["head.classify.weight"].isnan().all()
    for k in (0, 2):
        assert torch.equal(got[:, k], expected[:, k])
        for tensors in (gradients, nn.Module.state_dict):
            assert same(unstack(tensors(spoilt), k, count=K), unstack(tensors(clean), k, count=K))


@pytest.mark.parametrize(("stride", "bias"), [(1, False), (1, True), (2, False)])
def test_a_1x1_convolution_as_products_is_the_convolution(stride: int, bias: bool):
    torch.manual_seed(0)
    layer = StackedConv2d(nn.Conv2d(5, 7, 1, stride=stride, bias=bias), K).double()
    image = torch.randn(2, K * 5, 5, 3, dtype=torch.float64, requires_grad=True)
    wanted = [image, *layer.parameters()]
    expected, got = functional.conv2d(image, layer.weight, layer.bias, stride, groups=K), layer.as_products(image)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-14)
    assert got.is_contiguous(memory_format=torch.channels_last)
    weigh = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(got, wanted, weigh), torch.autograd.grad(expected, wanted, weigh), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
    with torch.no_grad():
        image[:, :5] = torch.nan
    assert torch.equal(layer.as_products(image)[:, 7:], got[:, 7:])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@EACH_NETWORK
def test_on_a_gpu_a_stack_is_its_networks(network: Network):
    alone, images, targets = seeds(network), batches(network), labels(network)
    stacked = stack([copy.deepcopy(module).cuda() for module in alone])
    logits = descend(stacked, side_by_side(images).cuda(), targets.cuda())
    for k, module in enumerate(alone):
        expected = descend(module, images[k], targets[:, k : k + 1])
        assert_near({"": logits[:, k].cpu()}, {"": expected[:, 0]}, 1e-11)
        part = unstack(gradients(stacked), k, count=K)
        assert_near({name: tensor.cpu() for name, tensor in part.items()}, gradients(module), 1e-11)


@EACH_NETWORK
def test_networks_come_out_of_a_stack_as_they_went_in(network: Network):
    alone = seeds(network, torch.float32)
    stacked = stack(alone)
    for k, module in enumerate(alone):
        part = unstack(stacked.state_dict(), k, count=K)
        assert list(part) == list(module.state_dict())
        assert same(part, module.state_dict())
        build(network).load_state_dict(part)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, kept in state.items() for name, value in kept.items()}


def test_the_state_of_an_optimizer_comes_apart_as_the_weights_do():
    network, targets = NETWORKS["b0"], labels(NETWORKS["b0"])
    steps, alone = [batches(network, seed=seed) for seed in range(2)], seeds(network)
    stacked = stack(alone)
    optimizer = adamw(stacked)
    trained(stacked, optimizer, [side_by_side(images) for images in steps], targets)
    parts = [unstack(optimizer_tensors(optimizer), k, count=K) for k in range(K)]
    for k, module in enumerate(alone):
        own = adamw(module)
        trained(module, own, [images[k] for images in steps], targets[:, k : k + 1])
        assert_near(parts[k], optimizer_tensors(own), 1e-11)
    assert same(joined(parts), optimizer_tensors(optimizer))


def test_what_decays_in_a_network_decays_in_a_stack():
    network = NETWORKS["mobilenet_v3_large"]
    alone = seeds(network)
    decays = {name: weight.ndim > 1 for name, weight in alone[0].named_parameters()}
    assert {name: weight.ndim > 1 for name, weight in stack(alone).named_parameters()} == decays
    assert set(decays.values()) == {True, False}


def test_a_stack_holds_copies_and_takes_no_random_numbers():
    alone = seeds(NETWORKS["b0"])
    before = copy.deepcopy([module.state_dict() for module in alone])
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    stacked = stack(alone)
    assert torch.equal(torch.rand(1), expected)
    for tensor in stacked.state_dict().values():
        tensor.zero_()
    assert all(same(old, module.state_dict()) for old, module in zip(before, alone, strict=True))


def test_a_stack_is_in_the_mode_of_its_networks():
    alone = seeds(NETWORKS["b0"])
    assert all(layer.training for layer in stack(alone).modules())
    assert not any(layer.training for layer in stack([module.eval() for module in alone]).modules())


def user_made() -> dict[str, nn.Module]:
    foreign = build(SMALL)
    foreign.head.pool = nn.AvgPool2d(2)
    return {
        "a sequence": nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
        "a layer of another kind": foreign,
        "dropout": build(dataclasses.replace(SMALL, head=Head(width=16, dropout=0.1))),
        "stochastic depth": build(dataclasses.replace(SMALL, drop_path=0.2)),
    }


@pytest.mark.parametrize("name", user_made())
def test_a_network_with_anything_else_in_it_is_not_stacked(name: str):
    module = user_made()[name]
    assert not stackable(module)
    with pytest.raises(SpecError, match="cannot be stacked; train it by itself"):
        stack([module, module])


def test_only_networks_that_are_alike_are_stacked():
    assert stackable(build(SMALL))
    other = build(dataclasses.replace(SMALL, activation="relu"))
    with pytest.raises(SpecError, match="not alike"):
        stack([build(SMALL), other])
    older = build(SMALL)
    older(torch.randn(2, 3, 32, 32))
    with pytest.raises(SpecError, match="num_batches_tracked"):
        stack([build(SMALL), older])
    assert isinstance(stack([build(SMALL)]), blocks.ConvNet)
