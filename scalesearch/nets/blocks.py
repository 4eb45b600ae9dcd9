"""The modules that networks are made of. Needs torch alone: an emitted `network.py` holds this very source.

Shapes are (batch, channels, height, width). Kernels are odd and padded symmetrically, so a map of side n leaves a
convolution of stride s with side ceil(n / s).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
}
GATES: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "hardsigmoid": nn.Hardsigmoid}


class SamePad(nn.Module):
    """TensorFlow's SAME padding for a kernel and a stride: what is odd goes to the right and below."""

    def __init__(self, kernel: int, stride: int, *, value: float = 0.0) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (max(0, (-(-n // self.stride) - 1) * self.stride + self.kernel - n) for n in x.shape[2:])
        sides = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        return nn.functional.pad(x, sides, value=self.value)


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm, and (unless `activation` is empty) a non-linearity."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: str = "",
        norm: tuple[float, float] = (1e-5, 0.1),
        padding: str = "symmetric",
    ) -> None:
        eps, momentum = norm
        same = padding == "same" and stride > 1  # at stride 1 an odd kernel is padded alike on all sides
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=0 if same else kernel // 2, groups=groups, bias=False)
        layers: list[nn.Module] = [conv, nn.BatchNorm2d(outputs, eps=eps, momentum=momentum)]
        if same:
            layers.insert(0, SamePad(kernel, stride))
        if activation:
            layers.append(ACTIVATIONS[activation](inplace=True))
        super().__init__(*layers)


class SqueezeExcite(nn.Module):
    """Channel gates from the pooled map: (batch, channels, h, w) -> the same shape."""

    def __init__(self, channels: int, *, squeezed: int, activation: str, gate: str) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.activation = ACTIVATIONS[activation](inplace=True)
        self.excite = nn.Conv2d(squeezed, channels, 1)
        self.gate = GATES[gate]()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.excite(self.activation(self.squeeze(self.pool(x)))))


class Residual(nn.Module):
    """`after(shortcut(x) + drop_path(branch(x)))`; a `shortcut` of None means that there is nothing to add to."""

    def __init__(
        self,
        branch: nn.Sequential,
        *,
        shortcut: nn.Module | None,
        after: nn.Module | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut
        self.after = after if after is not None else nn.Identity()
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        out = self.branch(x)
        if self.shortcut is not None:
            if self.training and self.drop_path:
                keep = 1 - self.drop_path
                out = out * out.new_empty((out.shape[0], 1, 1, 1)).bernoulli_(keep).div_(keep)
            out = self.shortcut(x) + out
        return self.after(out)


def stem(
    inputs: int,
    outputs: int,
    *,
    kernel: int,
    stride: int,
    pool: int,
    activation: str,
    norm: tuple[float, float],
    padding: str,
) -> nn.Module:
    """The convolution that meets the image, and a 3x3 max-pool of stride `pool` unless that is 1."""
    conv = ConvNorm(inputs, outputs, kernel=kernel, stride=stride, activation=activation, norm=norm, padding=padding)
    if pool == 1:
        return conv
    if padding == "same":
        return nn.Sequential(conv, SamePad(3, pool, value=-math.inf), nn.MaxPool2d(3, pool))
    return nn.Sequential(conv, nn.MaxPool2d(3, pool, padding=1))


def mbconv(
    inputs: int,
    outputs: int,
    *,
    hidden: int,
    kernel: int,
    stride: int,
    squeeze: dict[str, Any] | None,
    activation: str,
    norm: tuple[float, float],
    padding: str,
    drop_path: float,
) -> Residual:
    """Inverted residual: expand 1x1, depthwise, squeeze-excite (arguments of it, or None), linear 1x1."""
    layers: list[nn.Module] = []
    if hidden != inputs:
        layers.append(ConvNorm(inputs, hidden, activation=activation, norm=norm))
    spatial: dict[str, Any] = {"kernel": kernel, "stride": stride, "groups": hidden, "padding": padding}
    layers.append(ConvNorm(hidden, hidden, activation=activation, norm=norm, **spatial))
    if squeeze is not None:
        layers.append(SqueezeExcite(hidden, **squeeze))
    layers.append(ConvNorm(hidden, outputs, norm=norm))
    shortcut = nn.Identity() if stride == 1 and inputs == outputs else None
    return Residual(nn.Sequential(*layers), shortcut=shortcut, drop_path=drop_path)


def separable(
    inputs: int,
    outputs: int,
    *,
    kernel: int,
    stride: int,
    activation: str,
    norm: tuple[float, float],
    padding: str,
) -> nn.Sequential:
    """Depthwise then pointwise convolution, no shortcut."""
    spatial: dict[str, Any] = {"kernel": kernel, "stride": stride, "groups": inputs, "padding": padding}
    return nn.Sequential(
        ConvNorm(inputs, inputs, activation=activation, norm=norm, **spatial),
        ConvNorm(inputs, outputs, activation=activation, norm=norm),
    )


def _projection(inputs: int, outputs: int, stride: int, norm: tuple[float, float], padding: str) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return ConvNorm(inputs, outputs, stride=stride, norm=norm, padding=padding)


def basic(
    inputs: int,
    outputs: int,
    *,
    kernel: int,
    stride: int,
    activation: str,
    norm: tuple[float, float],
    padding: str,
    drop_path: float,
) -> Residual:
    """Two convolutions of one kernel with a shortcut."""
    branch = nn.Sequential(
        ConvNorm(inputs, outputs, kernel=kernel, stride=stride, activation=activation, norm=norm, padding=padding),
        ConvNorm(outputs, outputs, kernel=kernel, norm=norm),
    )
    shortcut = _projection(inputs, outputs, stride, norm, padding)
    return Residual(branch, shortcut=shortcut, after=ACTIVATIONS[activation](inplace=True), drop_path=drop_path)


def bottleneck(
    inputs: int,
    outputs: int,
    *,
    hidden: int,
    kernel: int,
    stride: int,
    groups: int = 1,
    activation: str,
    norm: tuple[float, float],
    padding: str,
    drop_path: float,
) -> Residual:
    """1x1, strided kernel, 1x1 with a shortcut (v1.5: the stride sits in the middle)."""
    spatial: dict[str, Any] = {"kernel": kernel, "stride": stride, "groups": groups, "padding": padding}
    branch = nn.Sequential(
        ConvNorm(inputs, hidden, activation=activation, norm=norm),
        ConvNorm(hidden, hidden, activation=activation, norm=norm, **spatial),
        ConvNorm(hidden, outputs, norm=norm),
    )
    shortcut = _projection(inputs, outputs, stride, norm, padding)
    return Residual(branch, shortcut=shortcut, after=ACTIVATIONS[activation](inplace=True), drop_path=drop_path)


class Head(nn.Module):
    """1x1 convolution, global pooling, linear layer, dropout, classifier: (batch, inputs, h, w) -> (batch, classes).

    The convolution and the linear layer have an activation, and are left out where their channels are 0.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        *,
        width: int,
        hidden: int,
        dropout: float,
        activation: str,
        norm: tuple[float, float],
        padding: str,
    ) -> None:
        super().__init__()
        pooled = width or inputs
        self.widen = (
            ConvNorm(inputs, width, activation=activation, norm=norm, padding=padding) if width else nn.Identity()
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = (
            nn.Sequential(nn.Linear(pooled, hidden), ACTIVATIONS[activation](inplace=True)) if hidden else nn.Identity()
        )
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(hidden or pooled, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.dropout(self.hidden(self.pool(self.widen(x)).flatten(1))))


class ConvNet(nn.Module):
    """Stem, stages, head: (batch, 3, resolution, resolution) -> (batch, classes)."""

    def __init__(self, stem: nn.Module, stages: list[nn.Sequential], head: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(x)


def initialise(module: nn.Module, seed: int) -> None:
    """Set every weight from `seed`: He normal by fan-out for convolutions, the classifier uniform, norms at identity.

    Source: tensorflow/tpu, efficientnet_model.py, conv_kernel_initializer and dense_kernel_initializer.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan_out), generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            bound = 1.0 / math.sqrt(layer.out_features)
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()


def start_near_identity(module: nn.Module) -> None:
    """Zero the last norm of every residual branch, so that each block begins as its shortcut.

    Source: arXiv:1706.02677, section 5.1.
    """
    for block in module.modules():
        if isinstance(block, Residual) and block.shortcut is not None:
            norms = [layer for layer in block.branch.modules() if isinstance(layer, nn.BatchNorm2d)]
            nn.init.zeros_(norms[-1].weight)
