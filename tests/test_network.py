"""Built modules are the peers' networks: same shapes in the same order, same outputs from the same weights."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torchvision
from hypothesis import given, settings
from networks import B0, NETWORKS, SMALL, networks
from torch import Tensor, nn

from scalesearch.cost import BLOCK_LAYERS
from scalesearch.nets import blocks
from scalesearch.nets.blocks import ACTIVATIONS, Residual, start_near_identity
from scalesearch.nets.network import build
from scalesearch.spec import Network

PEERS: dict[str, Callable[..., nn.Module]] = {
    "efficientnet_b0": torchvision.models.efficientnet_b0,
    "efficientnet_b1": torchvision.models.efficientnet_b1,
    "resnet18": torchvision.models.resnet18,
    "resnet50": torchvision.models.resnet50,
    "mobilenet_v2_1.0": torchvision.models.mobilenet_v2,
}


def shapes(tensors: dict[str, Tensor]) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in tensors.values()]


@pytest.mark.parametrize("name", PEERS)
def test_parameters_and_buffers_have_the_shapes_and_order_of_torchvision(name: str):
    with torch.device("meta"):
        peer = PEERS[name](weights=None)
    ours = build(NETWORKS[name])
    assert shapes(ours.state_dict()) == shapes(peer.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters())


def randomised(peer: nn.Module) -> nn.Module:
    """The peer in eval mode with statistics and norms that are not the identity, so that a swap of any two shows."""
    generator = torch.Generator().manual_seed(7)
    for layer in peer.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.bias, 0, 0.1, generator=generator)
    return peer.eval()


@pytest.mark.parametrize("name", PEERS)
def test_outputs_equal_those_of_torchvision_with_the_same_weights(name: str):
    torch.manual_seed(3)
    peer = randomised(PEERS[name](weights=None))
    # the peer's efficientnet_b0 keeps torch's default epsilon, the paper's code has 1e-3
    network = dataclasses.replace(NETWORKS[name], norm_eps=epsilon(peer))
    ours = build(network).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), peer.state_dict().values(), strict=True)))
    image = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        expected, got = peer(image), ours(image)
    assert expected.std() > 1e-3
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def epsilon(module: nn.Module) -> float:
    return next(layer.eps for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))


@given(networks())
@settings(max_examples=25, deadline=None)
def test_any_network_turns_images_into_one_logit_per_class(network: Network):
    module = build(network).eval()
    with torch.inference_mode():
        logits = module(torch.randn(2, 3, network.resolution, network.resolution))
    assert logits.shape == (2, network.num_classes)
    assert torch.isfinite(logits).all()


def test_block_names_of_the_spec_the_count_and_the_modules_are_the_same():
    for name in BLOCK_LAYERS:
        assert callable(getattr(blocks, name))


@pytest.mark.parametrize(("name", "kind"), [("silu", nn.SiLU), ("relu", nn.ReLU), ("relu6", nn.ReLU6)])
def test_the_activation_of_the_spec_is_the_only_one_in_the_module(name: str, kind: type[nn.Module]):
    found = {type(m) for m in build(dataclasses.replace(SMALL, activation=name)).modules()}
    assert found & set(ACTIVATIONS.values()) == {kind}


def test_one_seed_gives_one_network_and_another_seed_another():
    one, again, other = (build(SMALL, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["head.classify.weight"], other["head.classify.weight"])
    assert not torch.equal(one["stem.0.weight"], other["stem.0.weight"])


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    build(SMALL, seed=4)
    assert torch.equal(torch.rand(1), expected)


def test_initial_weights_have_the_deviation_of_the_reference_code():
    # tensorflow/tpu: normal, variance 2 / (kernel² · output channels); classifier uniform in ±1/sqrt(outputs)
    module = build(B0)
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 20_000]
    assert len(convolutions) > 30
    for conv in convolutions:
        fan_out = conv.kernel_size[0] ** 2 * conv.out_channels / conv.groups
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    linear = module.head.classify
    assert linear.weight.abs().max().item() == pytest.approx(1000**-0.5, rel=1e-3)
    assert not linear.bias.any()


def test_norms_start_at_identity_with_the_numbers_of_the_spec():
    for norm in (m for m in build(B0).modules() if isinstance(m, nn.BatchNorm2d)):
        assert (norm.eps, norm.momentum) == (1e-3, 0.01)
        assert (norm.weight == 1).all()
        assert (norm.running_var == 1).all()
        assert not norm.bias.any()
        assert not norm.running_mean.any()


def test_drop_path_rises_linearly_with_the_block_from_nothing():
    # arXiv:1603.09382: survival falls linearly; torchvision and tensorflow/tpu use rate · index / blocks
    rates = [m.drop_path for m in build(B0).modules() if isinstance(m, Residual)]
    assert rates == pytest.approx([0.2 * index / 16 for index in range(16)])


def test_a_dropped_branch_leaves_the_shortcut_and_a_kept_one_is_scaled_up():
    doubled = nn.Sequential(nn.Identity())
    block = Residual(doubled, shortcut=nn.Identity(), drop_path=0.25).train()
    torch.manual_seed(0)
    out = block(torch.ones(4000, 1, 1, 1))
    assert sorted(out.unique().tolist()) == pytest.approx([1, 1 + 1 / 0.75])
    assert out.mean().item() == pytest.approx(2, abs=0.05)
    assert (block.eval()(torch.ones(5, 1, 1, 1)) == 2).all()


def test_near_identity_makes_each_residual_block_its_shortcut():
    module = build(SMALL).eval()
    start_near_identity(module)
    residual = [m for m in module.modules() if isinstance(m, Residual) and m.shortcut is not None]
    assert len(residual) == 3  # the first stage keeps width and side; the others in their second block
    for block in residual:
        x = torch.randn(2, block.branch[0][0].in_channels, 5, 5)
        torch.testing.assert_close(block(x.clone()), x)
