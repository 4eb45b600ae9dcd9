"""Builders as users write them, `build(*, depth, width, resolution)`: good ones first, then those that are refused."""

import math
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scalesearch.nets.network import build
from scalesearch.scaling import Multipliers, Rounding, scale
from scalesearch.spec import Head, Network, Stage, Stem

CALLS = count()
ROUNDING = Rounding(divisor=4)
BASE = Network(
    stem=Stem(width=16),
    stages=(
        Stage(block="mbconv", depth=2, width=24, stride=2, expansion=4, se_ratio=0.25),
        Stage(block="bottleneck", depth=2, width=48, stride=2, expansion=0.5),
    ),
    head=Head(width=96),
    resolution=32,
    num_classes=10,
)


def channels(base: int, width: float) -> int:
    """Rounded to 4."""
    return max(4, round(base * width / 4) * 4)


def layer(inputs: int, outputs: int, stride: int = 1, **options: Any) -> nn.Sequential:
    """A convolution with its norm and activation."""
    options = {"padding": 1, **options}
    conv = nn.Conv2d(inputs, outputs, 3, stride, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def head(inputs: int, classes: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def convnet(*, depth: float, width: float, resolution: int = 64, classes: int = 10) -> nn.Module:
    """Four stages; depth is rounded up."""
    widths = [channels(base, width) for base in (16, 24, 32, 48)]
    layers = [layer(3, widths[0], 2)]
    inputs = widths[0]
    for outputs, blocks in zip(widths, (1, 2, 3, 2), strict=True):
        for index in range(math.ceil(blocks * depth)):
            layers.append(layer(inputs, outputs, 2 if index == 0 and outputs != widths[0] else 1))
            inputs = outputs
    return nn.Sequential(*layers, head(inputs, classes))


def tied(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    """Two layers with one weight, and a draw that no state dict holds."""
    module = nn.Sequential(layer(3, 16, 2), layer(16, 16), layer(16, 16), head(16))
    module[2][0].weight = module[1][0].weight
    module.shift = float(torch.rand(()))  # type: ignore[assignment]
    return module


def addressed(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    """Raises at some widths, never twice with the same words."""
    if width > 1.2:
        raise ValueError(f"refused for the {next(CALLS)}. time")
    return convnet(depth=depth, width=width, resolution=resolution)


def rigid(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    """Heavy, whatever the width."""
    return nn.Sequential(layer(3, 64), layer(64, 64), layer(64, 64), layer(64, 64), head(64))


class Solving(nn.Module):
    """Inverts a matrix, which multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(layer(3, 16, 2), head(16))
        self.matrix = nn.Parameter(torch.eye(10))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) @ torch.linalg.inv(self.matrix)


def solving(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    return Solving()


def own_value(*, depth: float, width: float, resolution: int) -> Network:
    """A network of stages, for which there is a closed form."""
    return replace(scale(BASE, Multipliers(depth=depth, width=width), ROUNDING), resolution=resolution)


def own(*, depth: float, width: float, resolution: int = 32) -> nn.Module:
    """The same as a module."""
    return build(own_value(depth=depth, width=width, resolution=resolution))


class Attention(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.heads = features // 8
        self.qkv, self.out = nn.Linear(features, 3 * features), nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.qkv(x).unflatten(2, (3, self.heads, 8)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(*rows).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, features: int, attention: nn.Module) -> None:
        super().__init__()
        self.attention, self.norms = attention, nn.ModuleList(nn.LayerNorm(features) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(features, 2 * features), nn.GELU(), nn.Linear(2 * features, features))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norms[0](x))
        return x + self.mlp(self.norms[1](x))


class Transformer(nn.Module):
    """Images in patches of 8 px; sides that they do not divide are refused, as most of these networks do."""

    def __init__(self, features: int, blocks: list[nn.Module], side: int) -> None:
        super().__init__()
        if side % 8:
            raise ValueError(f"the side {side} is no multiple of the patch 8")
        self.patches = nn.Conv2d(3, features, 8, 8)
        self.places = nn.Parameter(torch.zeros(1, (side // 8) ** 2, features))
        self.blocks, self.classify = nn.Sequential(*blocks), nn.Linear(features, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.blocks(self.patches(x).flatten(2).transpose(1, 2) + self.places).mean(1))


def vit(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    """A vision transformer whose widths are multiples of its heads of 8."""
    features = max(8, round(96 * width / 8) * 8)
    blocks = [Block(features, Attention(features)) for _ in range(math.ceil(3 * depth))]
    return Transformer(features, blocks, resolution)


class SelfAttention(nn.Module):
    """torch's own layer."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(features, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x, x, need_weights=False)[0]


def multihead(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    """The same with `nn.MultiheadAttention`."""
    features = channels(24, width)
    blocks = [Block(features, SelfAttention(features)) for _ in range(math.ceil(2 * depth))]
    return Transformer(features, blocks, resolution)


class Biased(nn.Module):
    """Attention written out, with a bias for each pair of places."""

    def __init__(self, features: int, places: int) -> None:
        super().__init__()
        self.bias, self.value = nn.Parameter(torch.zeros(1, places, places)), nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, x.transpose(1, 2)).softmax(2) @ self.value(x)


def biased(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    """The same with `torch.baddbmm`."""
    features = channels(24, width)
    blocks = [Block(features, Biased(features, (resolution // 8) ** 2)) for _ in range(math.ceil(2 * depth))]
    return Transformer(features, blocks, resolution)


def same(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    """Convolutions with padding="same" and with groups."""
    wide = channels(48, width)
    rows = [layer(wide, wide, padding="same", groups=4) for _ in range(math.ceil(3 * depth))]
    return nn.Sequential(layer(3, wide, 2), *rows, layer(wide, 2 * wide, padding="same", dilation=2), head(2 * wide))


class Drawn(nn.Module):
    """Draws its strength while it is made, which a tensor without memory cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = torch.rand(()).item()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.strength


def drawn(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    """Cannot be made on the meta device."""
    return nn.Sequential(convnet(depth=depth, width=width, resolution=resolution), Drawn())


def frozen(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    """Its first layer is not trained."""
    module = convnet(depth=depth, width=width, resolution=resolution)
    module.get_submodule("0").requires_grad_(False)
    return module


GOOD = ("convnet", "own", "vit", "multihead", "biased", "same", "drawn")


# ---- operators that multiply and have no formula


class Multiplies(nn.Module):
    """Pools an image to 3 numbers, and hands them to an operator."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.weight = how, nn.Parameter(torch.zeros(10, 3))
        self.layer = {"bilinear": nn.Bilinear(3, 3, 10), "lstm": nn.LSTM(3, 10, batch_first=True)}.get(how)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        if self.how == "mv":
            return torch.mv(self.weight, x[0])[None]
        if self.how == "cdist":
            return torch.cdist(x, self.weight)
        assert self.layer is not None
        return self.layer(x[:, None])[0][:, 0] if self.how == "lstm" else self.layer(x, x)


def bilinear(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    return Multiplies("bilinear")


def vector(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    return Multiplies("mv")


def distances(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    return Multiplies("cdist")


def recurrent(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    return Multiplies("lstm")


# ---- what is no classifier of square images


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = convnet(depth=1, width=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner(x), x


def pair(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    return Pair()


def feature_map(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    return layer(3, 8)


def nothing(*, depth: float, width: float, resolution: int = 64) -> None:
    return None


def other_names(*, d: float, w: float, r: int) -> nn.Module:
    return convnet(depth=d, width=w, resolution=r)


def lazy(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    return nn.Sequential(layer(3, 8), nn.LazyConv2d(8, 3), head(8))


def broken(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    raise RuntimeError("no such thing\nas this network")


def three_classes(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    """Too few for ten digits."""
    return convnet(depth=depth, width=width, resolution=resolution, classes=3)


def no_narrow(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    """Some widths are beyond it."""
    if channels(16, width) % 8:
        raise ValueError(f"the width {width} leads to no multiple of 8")
    return convnet(depth=depth, width=width, resolution=resolution)


STEPS: dict[str, int] = {"wider": 0}


def changing(*, depth: float, width: float, resolution: int = 64) -> nn.Module:
    """Its code changes when `STEPS` does."""
    return convnet(depth=depth, width=width + STEPS["wider"], resolution=resolution)


class NotAModule:
    pass


A_NUMBER = 3


def other_side(*, depth: float, width: float, resolution: int) -> nn.Module:
    """Has no default side."""
    return convnet(depth=depth, width=width, resolution=resolution)
