"""A network through the kernels is the same network: numbers, names, parameters, and what happens without kernels."""

import copy
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from scalesearch.nets.blocks import ConvNorm, SqueezeExcite, initialise, start_near_identity
from scalesearch.nets.fused import fuse
from scalesearch.nets.network import build
from scalesearch.spec import Head, Network, Stage, Stem
from scalesearch.spec import SqueezeExcite as Gates

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NETWORKS = {
    "b0": Network(
        stem=Stem(width=8),
        stages=(
            Stage(block="mbconv", depth=1, width=8, stride=1, expansion=1, se_ratio=0.25),
            Stage(block="mbconv", depth=2, width=12, kernel=5, stride=2, expansion=4, se_ratio=0.25),
        ),
        head=Head(width=40, dropout=0.2),
        resolution=8,
        num_classes=5,
        drop_path=0.2,
    ),
    "small": Network(
        stem=Stem(width=8),
        stages=(Stage(block="mbconv", depth=1, width=8, stride=2, expansion=2, se_ratio=0.25),),
        head=Head(),
        resolution=12,
        num_classes=5,
    ),
    "resnet": Network(
        stem=Stem(width=8, kernel=7, pool=2),
        stages=(
            Stage(block="basic", depth=2, width=8, stride=1),
            Stage(block="bottleneck", depth=1, width=16, stride=2),
        ),
        head=Head(),
        resolution=20,
        num_classes=5,
        activation="relu",
    ),
    "hardswish": Network(
        stem=Stem(width=6),
        stages=(
            Stage(block="mbconv", depth=2, width=10, stride=2, expansion=3, se_ratio=0.25),
            Stage(block="separable", depth=1, width=14, stride=1, activation="relu6"),
        ),
        head=Head(width=24, hidden=16),
        resolution=12,
        num_classes=5,
        padding="same",
        activation="hardswish",
        squeeze_excite=Gates(of="hidden", divisor=4, activation="relu", gate="hardsigmoid"),
    ),
}
BATCH = 4


@pytest.fixture(autouse=True)
def exact_convolutions() -> Iterator[None]:
    """On a GPU cuDNN may round the inputs of a convolution to TF32, and add in any order."""
    cudnn = torch.backends.cudnn
    before = cudnn.conv.fp32_precision, cudnn.deterministic
    cudnn.conv.fp32_precision, cudnn.deterministic = "ieee", True
    yield
    cudnn.conv.fp32_precision, cudnn.deterministic = before


def module_of(name: str, seed: int = 0) -> nn.Module:
    return build(NETWORKS[name], seed=seed).to(DEVICE, memory_format=torch.channels_last)


def images(name: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    side = NETWORKS[name].resolution
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, 3, side, side, generator=generator).to(DEVICE), torch.arange(BATCH, device=DEVICE) % 5


def loss_of(module: nn.Module, name: str, seed: int = 0) -> Tensor:
    """Cross entropy of a batch, with the same dropped paths and units whatever came before."""
    x, labels = images(name, seed)
    torch.manual_seed(seed)
    return nn.functional.cross_entropy(module(x.to(next(module.parameters()).dtype)), labels)


def gradients(module: nn.Module, loss: Tensor) -> Tensor:
    return torch.cat([one.flatten().double() for one in torch.autograd.grad(loss, list(module.parameters()))])


def distance(found: Tensor, exact: Tensor) -> float:
    return ((found - exact).norm() / exact.norm()).item()


def nodes(loss: Tensor) -> Counter[str]:
    """The kinds of backward steps behind a loss."""

    def walk(node: torch.autograd.graph.Node | None) -> Iterator[torch.autograd.graph.Node]:
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            for following, _ in node.next_functions:
                yield from walk(following)

    seen = set[torch.autograd.graph.Node]()
    return Counter(node.name() for node in walk(loss.grad_fn))


def through_kernels(module: nn.Module, loss: Tensor) -> bool:
    """Whether every norm, and every squeeze-excite, went through the kernels on the way to a loss."""
    kinds = nodes(loss)
    norms = sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())
    gated = sum(isinstance(layer, SqueezeExcite) for layer in module.modules())
    own = (kinds["_NormActBackward"], kinds["_NormActGatedBackward"])
    return own == (norms - gated, gated) and not [kind for kind in kinds if "BatchNorm" in kind]


# ---- the same numbers


@pytest.mark.parametrize("name", NETWORKS)
def test_through_the_kernels_loss_and_gradients_are_as_near_to_float64_as_those_of_torch(name: str):
    plain = module_of(name)
    exact, fused = copy.deepcopy(plain).double(), fuse(copy.deepcopy(plain))
    losses = {key: loss_of(module, name) for key, module in [("exact", exact), ("plain", plain), ("fused", fused)]}
    found = {"exact": exact, "plain": plain, "fused": fused}
    assert through_kernels(fused, losses["fused"])
    walked = {key: gradients(module, losses[key]) for key, module in found.items()}
    assert losses["fused"].item() == pytest.approx(losses["exact"].item(), rel=1e-6)
    assert distance(walked["fused"], walked["exact"]) < 2 * distance(walked["plain"], walked["exact"]) < 1e-4
    for (key, buffer), wanted in zip(fused.named_buffers(), exact.buffers(), strict=True):
        torch.testing.assert_close(buffer.double(), wanted.double(), rtol=1e-5, atol=1e-6, msg=key)


def test_under_autocast_it_is_as_near_to_float64_as_torch():
    plain = module_of("small")  # smooth: at the kinks of others a rounding may turn a slope over
    exact, fused = copy.deepcopy(plain).double(), fuse(copy.deepcopy(plain))
    wanted = gradients(exact, loss_of(exact, "small"))
    types = set[torch.dtype]()
    for layer in fused.modules():
        if isinstance(layer, ConvNorm | SqueezeExcite):
            layer.register_forward_hook(lambda layer, inputs, output: types.add(output.dtype))
    with torch.autocast(DEVICE.type, torch.bfloat16):
        losses = loss_of(plain, "small"), loss_of(fused, "small")
    errors = [distance(gradients(module, loss), wanted) for module, loss in zip((plain, fused), losses, strict=True)]
    assert errors[1] < 1.5 * errors[0] < 0.1
    assert types == {torch.bfloat16}


def test_trainings_stay_together():
    plain = module_of("small")
    fused = fuse(copy.deepcopy(plain))
    for module in (plain, fused):
        optimiser = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
        for seed in range(5):
            optimiser.zero_grad()
            loss_of(module, "small", seed).backward()
            optimiser.step()
    pairs = zip(plain.state_dict().values(), fused.state_dict().values(), strict=True)
    for expected, found in pairs:
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


# ---- the same network


@pytest.mark.parametrize("name", NETWORKS)
def test_names_parameters_buffers_and_norms_are_those_of_the_network(name: str):
    plain = module_of(name)
    kinds = [type(layer) for layer in plain.modules()]
    fused = fuse(plain)
    assert list(fused.state_dict()) == list(plain.state_dict())
    assert [id(one) for one in fused.parameters()] == [id(one) for one in plain.parameters()]
    assert [id(one) for one in fused.buffers()] == [id(one) for one in plain.buffers()]
    norms = [[id(one) for one in module.modules() if isinstance(one, nn.BatchNorm2d)] for module in (plain, fused)]
    assert norms[0] == norms[1]
    assert norms[0]
    assert [type(layer) for layer in plain.modules()] == kinds
    assert fuse(fused) is fused


def test_weights_move_between_the_two():
    fused, other = fuse(module_of("b0")), module_of("b0", seed=1)
    fused.load_state_dict(other.state_dict())
    other.load_state_dict(fused.state_dict())
    assert torch.equal(loss_of(fused.eval(), "b0"), loss_of(other.eval(), "b0"))


def test_initialising_reaches_the_same_weights():
    plain = module_of("resnet")
    fused = fuse(copy.deepcopy(plain)).cpu()
    for module in (plain.cpu(), fused):
        initialise(module, 7)
        start_near_identity(module)
    assert all(map(torch.equal, plain.state_dict().values(), fused.state_dict().values()))
    assert not plain.get_parameter("stages.0.0.branch.1.1.weight").any()


def test_a_deep_copy_has_weights_of_its_own():
    fused = fuse(module_of("small"))
    twin = copy.deepcopy(fused)
    before = loss_of(fused, "small")
    with torch.no_grad():
        for one in twin.parameters():
            one.zero_()
    assert loss_of(twin, "small") != before
    assert torch.equal(loss_of(fused, "small"), before)
    assert nodes(loss_of(twin, "small"))["_NormActGatedBackward"] == 1


def test_a_network_of_other_modules_is_returned_itself():
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 4, 1)))
    assert fuse(other) is other


def test_a_subclass_with_a_way_of_its_own_is_left_alone():
    class Doubled(ConvNorm):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    layer = nn.Sequential(Doubled(3, 4), ConvNorm(4, 4))
    fused = fuse(layer)
    assert fused[0] is layer[0]
    assert fused[1] is not layer[1]


# ---- where the plain path runs


def test_evaluation_is_that_of_the_network():
    plain = module_of("hardswish")
    fused = fuse(copy.deepcopy(plain))
    x, _ = images("hardswish")
    assert torch.equal(fused.eval()(x), plain.eval()(x))


def test_a_cumulative_mean_is_left_to_torch():
    plain = module_of("b0")
    for layer in plain.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    fused = fuse(copy.deepcopy(plain))
    for seed in range(2):
        assert torch.equal(loss_of(fused, "b0", seed), loss_of(plain, "b0", seed))
    assert all(map(torch.equal, fused.buffers(), plain.buffers()))


def test_float64_is_left_to_torch():
    plain = module_of("b0").double()
    loss = loss_of(fuse(copy.deepcopy(plain)), "b0")
    assert torch.equal(loss, loss_of(plain, "b0"))


def test_one_value_per_channel_is_refused_in_the_words_of_torch():
    layer = fuse(ConvNorm(3, 4).to(DEVICE))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(torch.zeros(1, 3, 1, 1, device=DEVICE))


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
import copy, torch
from test_fused import fuse, gradients, loss_of, module_of, nodes
from scalesearch.kernels.norm_act import available

assert not available(torch.device("cpu")) and not available(torch.device("cuda"))
for name in ("b0", "resnet"):
    plain = module_of(name)
    fused = fuse(copy.deepcopy(plain))
    losses = loss_of(plain, name), loss_of(fused, name)
    assert torch.equal(*losses)
    assert torch.equal(gradients(plain, losses[0]), gradients(fused, losses[1]))
    assert not [kind for kind in nodes(losses[1]) if "NormAct" in kind]
print("the same")
"""


def test_without_triton_the_network_trains_through_torch():
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TRITON]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "the same\n", done.stderr
