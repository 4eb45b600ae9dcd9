"""Layers in the form that a CPU trains fastest, with the parameters, names and results of the plain ones.

oneDNN takes a convolution of a 1x1 map as slowly as a map of its own, and the gradient of a mean over a map is divided
element by element. Its weight gradient of a depthwise convolution falls off a cliff beyond three columns of the kernel:
18 times the 3x3 for 5x5. Together 14 % of a step of B0's proxies (one core of an AMD EPYC, torch 2.15, batch 24).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalesearch.nets.blocks import SqueezeExcite

COLUMNS = 3
"""Of a depthwise kernel whose weight gradient is taken at once."""

Pair = tuple[int, int]


class LeanSqueezeExcite(nn.Module):
    """`blocks.SqueezeExcite` on one number per channel: (batch, channels, h, w) -> the same shape."""

    def __init__(self, plain: SqueezeExcite) -> None:
        super().__init__()
        self.squeeze = plain.squeeze
        self.activation = plain.activation
        self.excite = plain.excite
        self.gate = plain.gate

    def forward(self, x: Tensor) -> Tensor:
        """The gated map."""
        pooled = x.sum((2, 3)) * (1 / (x.shape[2] * x.shape[3]))
        squeezed = self.activation(_mixed(pooled, self.squeeze))
        return x * self.gate(_mixed(squeezed, self.excite))[:, :, None, None]


def _mixed(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """A 1x1 convolution on (batch, channels)."""
    return functional.linear(x, layer.weight.flatten(1), layer.bias)


class LeanDepthwise(nn.Conv2d):
    """A depthwise convolution whose weight gradient is taken three columns of the kernel at a time."""

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__(
            plain.in_channels,
            plain.out_channels,
            plain.kernel_size,  # type: ignore[arg-type]
            stride=plain.stride,  # type: ignore[arg-type]
            padding=plain.padding,  # type: ignore[arg-type]
            groups=plain.groups,
            bias=False,
            device="meta",
        )
        self.weight = plain.weight

    def forward(self, input: Tensor) -> Tensor:
        """The convolution of a map."""
        return _Depthwise.apply(input, self.weight, self.stride, self.padding)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x, weight, stride=stride, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        by_input, _ = _gradients(grads[0], x, weight, ctx.stride, ctx.padding, (True, False))
        rows, columns = ctx.padding
        padded = functional.pad(x, (columns, columns, rows, rows))
        span = (grads[0].shape[3] - 1) * ctx.stride[1]
        parts: list[Tensor] = []
        for part in weight.split(COLUMNS, 3):
            first = COLUMNS * len(parts)
            window = padded[..., first : first + span + part.shape[3]]
            parts.append(_gradients(grads[0], window, part, ctx.stride, (0, 0), (False, True))[1])
        return by_input, torch.cat(parts, 3), None, None


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """By the input and by the weight, where wanted, of a depthwise convolution."""
    sides = [list(stride), list(padding), [1, 1], False, [0, 0], len(weight), [*wanted, False]]
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *sides)[:2]


def slim(module: nn.Module) -> nn.Module:
    """The same network, its layers exchanged in place where there is a form that a CPU trains faster."""
    for name, layer in list(module.named_modules()):
        if type(layer) is SqueezeExcite and layer.squeeze.groups == 1:
            module.set_submodule(name, LeanSqueezeExcite(layer))
        elif isinstance(layer, nn.Conv2d) and _is_wide_depthwise(layer):
            module.set_submodule(name, LeanDepthwise(layer))
        elif isinstance(layer, nn.SiLU):
            layer.inplace = False  # in place, autograd keeps a copy of what it had
    return module


def _is_wide_depthwise(layer: nn.Conv2d) -> bool:
    is_depthwise = layer.groups == layer.in_channels == layer.out_channels
    return is_depthwise and layer.kernel_size[1] > COLUMNS and layer.bias is None and layer.dilation == (1, 1)
