"""Batch norm, activation and squeeze-excite through the kernels, against torch's own modules in float64.

On a machine without a CUDA device Triton's interpreter runs the very same kernels.
"""

import copy
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from scalesearch.kernels import norm_act as kernels
from scalesearch.kernels.norm_act import Tiling, accepts, available, norm_act, norm_act_gated
from scalesearch.nets.blocks import ACTIVATIONS, SqueezeExcite

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EPS = torch.finfo(torch.float32).eps
gpu = [pytest.mark.gpu, pytest.mark.skipif(DEVICE.type != "cuda", reason="no CUDA device that torch can use")]


@pytest.fixture(autouse=True)
def exact_convolutions() -> Iterator[None]:
    """On a GPU cuDNN may round the inputs of a convolution to TF32, and add in any order."""
    cudnn = torch.backends.cudnn
    before = cudnn.conv.fp32_precision, cudnn.deterministic
    cudnn.conv.fp32_precision, cudnn.deterministic = "ieee", True
    yield
    cudnn.conv.fp32_precision, cudnn.deterministic = before


class Layers(NamedTuple):
    """What stands behind a convolution: a norm away from identity, an activation, and perhaps gates."""

    norm: nn.BatchNorm2d
    activation: str
    gates: SqueezeExcite | None

    @classmethod
    def of(cls, channels: int, activation: str = "silu", *, gated: bool = False) -> "Layers":
        norm = nn.BatchNorm2d(channels, momentum=0.3)
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(tensor)
        gates = SqueezeExcite(channels, squeezed=3, activation="silu", gate="sigmoid") if gated else None
        return cls(norm, activation, gates).to(DEVICE)

    def to(self, place: torch.device | torch.dtype) -> "Layers":
        gates = None if self.gates is None else copy.deepcopy(self.gates).to(place)
        return Layers(copy.deepcopy(self.norm).to(place), self.activation, gates)

    def plainly(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        if self.activation:
            y = ACTIVATIONS[self.activation]()(y)
        return y if self.gates is None else self.gates(y)

    def fused(self, x: Tensor) -> Tensor:
        if self.gates is None:
            return norm_act(x, self.norm, self.activation)
        gates = self.gates
        mlp = nn.Sequential(gates.squeeze, gates.activation, gates.excite, gates.gate)
        return norm_act_gated(x, self.norm, self.activation, mlp=mlp, parameters=tuple(gates.parameters()))

    def parameters(self) -> list[nn.Parameter]:
        return [*self.norm.parameters(), *([] if self.gates is None else self.gates.parameters())]

    def results(self, path: Callable[[Tensor], Tensor], x: Tensor, dy: Tensor) -> dict[str, Tensor]:
        """Output, gradients and running statistics of one training step through `fused` or `plainly`."""
        x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        y = path(x)
        gradients = torch.autograd.grad(y, [x, *self.parameters()], dy.to(y.dtype))
        names = ["x", "weight", "bias", "squeeze.weight", "squeeze.bias", "excite.weight", "excite.bias"]
        found = dict(zip(names, gradients, strict=False)) | {"y": y.detach()}
        return found | {name: tensor.clone() for name, tensor in self.norm.named_buffers()}


SUMS = ("weight", "bias", "running_mean")
"""Per channel, of terms that are about 1: where the only ones there are happen to cancel, the terms' roundings stay."""


def error(found: Tensor, exact: Tensor, least: float = 1e-30) -> float:
    """Largest difference over the largest exact value, or over the least that counts."""
    return ((found.double() - exact).abs().max() / exact.abs().max().clamp_min(least)).item()


def errors_of(layers: Layers, x: Tensor, dy: Tensor) -> dict[str, float]:
    """Of every result of the kernels, against torch in float64 on the same rounded inputs."""
    exact_layers = layers.to(torch.float64)
    found = layers.results(layers.fused, x, dy)
    exact = exact_layers.results(exact_layers.plainly, x.double(), dy.double())
    assert found["y"].dtype == found["x"].dtype == x.dtype
    assert found["y"].shape == x.shape
    assert torch.equal(found.pop("num_batches_tracked"), exact.pop("num_batches_tracked"))
    assert all(found[name].dtype == torch.float32 for name in found.keys() - {"x", "y"})
    return {name: error(found[name], exact[name], 0.1 if name in SUMS else 1e-30) for name in exact}


def maps(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A map with a mean and a spread of its own per channel, and a gradient of its shape; channels_last."""
    generator = torch.Generator().manual_seed(seed)
    noise, dy = torch.randn(2, *shape, generator=generator)
    spread = torch.rand(shape[1], 1, 1, generator=generator) + 0.5
    x = noise * spread + torch.randn(shape[1], 1, 1, generator=generator)
    return tuple(one.to(DEVICE, dtype).contiguous(memory_format=torch.channels_last) for one in (x, dy))


def float32_bound(shape: tuple[int, ...]) -> float:
    """A few roundings of float32, and what they grow to where a deviation of few rows is divided by."""
    return 32 * EPS * (1 + 16 / math.sqrt(shape[0] * shape[2] * shape[3]))


# ---- the numbers


def test_the_kernels_are_available_where_the_tests_run():
    assert available(DEVICE), "without a CUDA device TRITON_INTERPRET=1 must be set before triton is imported"


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("activation", ["", *ACTIVATIONS])
def test_float32_agrees_with_torch_in_float64_to_a_few_roundings(activation: str, gated: bool):
    torch.manual_seed(0)
    shape = (3, 20, 7, 9)
    found = errors_of(Layers.of(20, activation, gated=gated), *maps(*shape))
    assert max(found.values()) < float32_bound(shape), found


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize(
    ("dtype", "activation"),
    [(torch.float16, "silu"), *((torch.bfloat16, activation) for activation in ("", *ACTIVATIONS))],
)
def test_half_precision_loses_only_the_rounding_of_what_is_written(dtype: torch.dtype, activation: str, gated: bool):
    torch.manual_seed(0)
    shape = (3, 20, 7, 9)
    found = errors_of(Layers.of(20, activation, gated=gated), *maps(*shape, dtype=dtype))
    written = max(found.pop("x"), found.pop("y"))
    assert written < torch.finfo(dtype).eps
    assert max(found.values()) < float32_bound(shape), found


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize(
    "shape",
    [(2, 1, 1, 2), (3, 3, 1, 1), (4, 130, 1, 1), (2, 37, 4, 4), (4, 16, 9, 9), (2, 264, 3, 2), (1, 8, 40, 40)],
    ids=str,
)
def test_any_shape_is_done_in_one_tile_or_many(shape: tuple[int, ...], gated: bool, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    x, dy = maps(*shape)
    for programs in (kernels.PROGRAMS, 3):  # three programs walk through many tiles each
        monkeypatch.setattr(kernels, "PROGRAMS", programs)
        found = errors_of(Layers.of(shape[1], "silu", gated=gated), x, dy)
        assert max(found.values()) < float32_bound(shape), found


@example(shape=(2, 1, 2, 7), activation="", gated=False, seed=1)  # the terms of its running mean cancel
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 70), st.integers(1, 7), st.integers(1, 7)).filter(
        lambda shape: shape[0] * shape[2] * shape[3] > 3
    ),
    activation=st.sampled_from(["", *ACTIVATIONS]),
    gated=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=12, deadline=None)
def test_drawn_shapes_agree(shape: tuple[int, ...], activation: str, gated: bool, seed: int):
    torch.manual_seed(seed)
    found = errors_of(Layers.of(shape[1], activation, gated=gated), *maps(*shape, seed=seed))
    assert max(found.values()) < float32_bound(shape), found


def test_a_large_mean_leaves_the_variance_exact():
    torch.manual_seed(0)
    x = (1e4 + torch.randn(4, 5, 16, 16)).to(DEVICE)
    exact = x.double().var((0, 2, 3), correction=0)
    naive = (x * x).mean((0, 2, 3)) - x.mean((0, 2, 3)) ** 2
    assert error(naive, exact) > 0.5  # what the usual formula makes of it in float32
    norm = nn.BatchNorm2d(5, momentum=1.0).to(DEVICE)
    y = norm_act(x, norm)
    assert error(norm.running_var * (1 - 1 / 1024), exact) < 32 * EPS
    whole = nn.functional.batch_norm(x.double(), None, None, training=True)
    assert (y - whole).abs().max() < 2 * EPS * 1e4  # the mean has 24 bits


@pytest.mark.parametrize("activation", ["", *ACTIVATIONS])
def test_not_a_number_passes_through(activation: str):
    x, _ = maps(2, 3, 4, 4)
    x[0, 1, 2, 2] = math.nan
    y = norm_act(x, Layers.of(3).norm, activation)
    assert y[:, 1].isnan().all()
    assert y[:, [0, 2]].isfinite().all()


# ---- what a step leaves behind


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_equal_inputs_give_equal_bits(gated: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "PROGRAMS", 3)
    layers, (x, dy) = Layers.of(40, gated=gated), maps(3, 40, 9, 9)
    again = layers.to(DEVICE)
    first, second = layers.results(layers.fused, x, dy), again.results(again.fused, x, dy)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_memory_layout_changes_no_bit(gated: bool):
    layers, (x, dy) = Layers.of(6, gated=gated), maps(3, 6, 5, 5)
    again = layers.to(DEVICE)
    first = layers.results(layers.fused, x, dy)
    second = again.results(again.fused, x.contiguous(), dy.contiguous())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_gradient_that_is_one_number_for_all_is_taken():
    layers, (x, _) = Layers.of(6), maps(3, 6, 5, 5)
    x.requires_grad_()
    (found,) = torch.autograd.grad(layers.fused(x).mean(), x)
    (exact,) = torch.autograd.grad(layers.to(torch.float64).plainly(x.double()).mean(), x)
    assert error(found, exact.double()) < 1e-4  # sums of equal gradients nearly vanish behind a norm


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_of_all_maps_only_the_input_is_kept_for_the_backward_pass(gated: bool):
    layers, (x, _) = Layers.of(20, gated=gated), maps(2, 20, 6, 6)
    kept = set[int]()

    def note(tensor: Tensor) -> Tensor:
        kept.update([tensor.data_ptr()] if tensor.numel() >= x.numel() else [])
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = layers.fused(x.requires_grad_())
    assert y.requires_grad
    assert kept == {x.data_ptr()}


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_a_graph_can_be_walked_twice(gated: bool):
    layers, (x, dy) = Layers.of(5, gated=gated), maps(3, 5, 4, 4)
    y = layers.fused(x.requires_grad_())
    inputs = [x, *layers.parameters()]
    first = torch.autograd.grad(y, inputs, dy, retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(y, inputs, dy)))


def test_frozen_gates_get_no_gradient_and_the_others_are_the_same():
    layers, (x, dy) = Layers.of(5, gated=True), maps(3, 5, 4, 4)
    assert layers.gates is not None
    layers.fused(x.requires_grad_()).backward(dy)
    expected = layers.gates.excite.bias.grad
    frozen = layers.to(DEVICE)
    assert frozen.gates is not None
    frozen.gates.squeeze.requires_grad_(False)
    frozen.gates.zero_grad()
    frozen.fused(x).backward(dy)
    assert frozen.gates.squeeze.weight.grad is None
    assert expected is not None
    assert frozen.gates.excite.bias.grad is not None
    assert torch.equal(frozen.gates.excite.bias.grad, expected)


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_same_is_computed(without: Callable[[], torch.no_grad], gated: bool):
    layers, (x, _) = Layers.of(5, gated=gated), maps(3, 5, 4, 4)
    with without():
        y = layers.to(DEVICE).fused(x)
    assert not y.requires_grad
    assert torch.equal(y, layers.fused(x))


def test_running_statistics_follow_torch_over_many_steps():
    norm = Layers.of(6).norm
    exact = copy.deepcopy(norm).double()
    for seed in range(4):
        x, _ = maps(3, 6, 5, 5, seed=seed)
        norm_act(x, norm)
        exact(x.double())
    assert norm.num_batches_tracked.item() == 4
    assert error(norm.running_mean, exact.running_mean) < 32 * EPS
    assert error(norm.running_var, exact.running_var) < 32 * EPS


# ---- what is accepted


def test_only_batch_norm_in_training_of_more_than_one_row_is_accepted():
    x = torch.zeros(2, 4, 3, 3, device=DEVICE)

    def norm(**options: object) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(4, **options).to(DEVICE)

    assert accepts(x, norm())
    assert accepts(x[:1, :, :1, :2], norm())
    assert not accepts(x[:1, :, :1, :1], norm())
    assert not accepts(x[:0], norm())
    assert not accepts(x.double(), norm().double())
    assert not accepts(x, norm().to(torch.bfloat16))
    assert not accepts(x, norm().eval())
    assert not accepts(x, norm(momentum=None))
    assert not accepts(x, norm(affine=False))
    assert not accepts(x, norm(track_running_stats=False))
    assert not accepts(x, nn.SyncBatchNorm(4).to(DEVICE))
    assert not accepts(x.to("meta"), norm().to("meta"))


# ---- how a map is shared


@given(channels=st.integers(1, 5000), length=st.integers(1, 2**40), segments=st.integers(1, 2**16))
def test_every_row_is_in_one_part_and_no_part_is_empty(channels: int, length: int, segments: int):
    tiling = Tiling.of(channels, length=length, segments=segments)
    assert (tiling.parts - 1) * tiling.span < length <= tiling.parts * tiling.span
    assert tiling.parts <= kernels.PARTS
    assert tiling.span % tiling.rows == 0
    assert tiling.rows * tiling.width <= kernels.ELEMENTS
    assert tiling.rows.bit_count() == 1
    blocks = math.ceil(channels / tiling.width)
    assert segments * tiling.parts * blocks <= max(kernels.PROGRAMS, segments * blocks)
    assert blocks * tiling.width < 2 * channels + 16


# ---- what only a compiler or a GPU can show

COMPILES = """
import torch
import triton
from triton.backends.compiler import GPUTarget
from scalesearch.kernels import norm_act, passes


class Hopper:
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


class Compiled:
    def __init__(self, name, kernel):
        self.name, self.kernel = name, kernel

    def __getitem__(self, grid):
        return lambda *a, **k: self.note(self.kernel.warmup(*a, grid=grid, **k))

    def note(self, made):
        wide = ["ld.global.v4" in made.asm["ptx"], "st.global.v4" in made.asm["ptx"]]
        print(self.name, *wide)


triton.runtime.driver.set_active(Hopper())
for name in ("statistics", "finalise", "apply", "sums", "gradient"):
    setattr(passes, name, Compiled(name, getattr(passes, name)))
half = [(torch.bfloat16, activation) for activation in ("", "silu", "relu", "relu6", "hardswish")]
for dtype, activation in (*half, (torch.float16, "silu"), (torch.float32, "silu")):
    x = torch.zeros(4, 24, 8, 8, dtype=dtype, requires_grad=True)
    norm, gates = torch.nn.BatchNorm2d(24), torch.nn.Conv2d(24, 24, 1)
    norm_act.norm_act(x, norm, activation).sum().backward()
    norm_act.norm_act_gated(x, norm, activation, mlp=gates, parameters=tuple(gates.parameters())).sum().backward()
"""


@pytest.mark.slow
def test_every_kernel_compiles_for_hopper_and_moves_16_bytes_at_a_time(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "error", "-c", COMPILES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wide = {tuple(line.split()) for line in done.stdout.splitlines()} - {("finalise", "False", "False")}
    written = {("statistics", "True", "False"), ("sums", "True", "False")}  # these write a number per channel
    assert wide == {*written, ("apply", "True", "True"), ("gradient", "True", "True")}


class TestOnTheGpu:
    pytestmark = gpu

    @pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
    def test_a_captured_step_replays_to_the_same_bits(self, gated: bool):
        layers, (x, dy) = Layers.of(48, gated=gated), maps(8, 48, 14, 14, dtype=torch.bfloat16)
        x.requires_grad_()
        inputs = [x, *layers.parameters()]

        def step() -> tuple[Tensor, ...]:
            y = layers.fused(x)
            return y, *torch.autograd.grad(y, inputs, dy)

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step()
        fresh, dy_fresh = maps(8, 48, 14, 14, dtype=torch.bfloat16, seed=1)
        with torch.no_grad():
            x.copy_(fresh)
            dy.copy_(dy_fresh)
        graph.replay()
        assert all(map(torch.equal, captured, step()))

    @pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
    def test_maps_of_more_than_two_to_the_31_elements_are_reached_to_their_end(self, gated: bool):
        x = torch.zeros(260, 64, 384, 384, dtype=torch.bfloat16, device=DEVICE)
        x = x.contiguous(memory_format=torch.channels_last)
        assert x.numel() > 2**31
        x[-1] = 1.0
        layers = Layers.of(64, "", gated=gated)
        y = layers.fused(x.requires_grad_())
        mean, variance = 1 / 260, (1 / 260) * (259 / 260)
        scale = layers.norm.weight / math.sqrt(variance + layers.norm.eps)
        small = torch.stack([scale * -mean, scale * (1 - mean)]) + layers.norm.bias
        ends = small[:, :, None, None].expand(2, 64, 2, 2)
        expected = ends if layers.gates is None else layers.gates(ends)
        assert error(y[[0, -1]][:, :, -2:, -2:], expected.detach().double()) < 1e-2
        y.backward(torch.ones_like(y))
        assert x.grad is not None
        assert x.grad.isfinite().all()
