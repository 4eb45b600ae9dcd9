"""MobileNetV3-Large and -Small, as torchvision and timm build them; stem, head and both their layers scale.

A row of the paper's tables is a stage of its own where its expansion or activation differs from the row before.
Hidden and squeezed channels are multiples of 8; squeeze-excite takes a quarter of the hidden channels.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

from scalesearch.scaling import Family, Rounding
from scalesearch.spec import Head, Network, SqueezeExcite, Stage, Stem


def _stage(
    depth: int,
    width: int,
    kernel: int,
    stride: int,
    expansion: float,
    activation: Literal["relu", "hardswish"],
    *,
    squeezed: bool,
) -> Stage:
    return Stage(
        block="mbconv",
        depth=depth,
        width=width,
        kernel=kernel,
        stride=stride,
        expansion=expansion,
        se_ratio=0.25 if squeezed else 0.0,
        activation="relu" if activation == "relu" else None,
    )


LARGE = (
    _stage(1, 16, 3, 1, 1, "relu", squeezed=False),
    _stage(1, 24, 3, 2, 4, "relu", squeezed=False),
    _stage(1, 24, 3, 1, 3, "relu", squeezed=False),
    _stage(3, 40, 5, 2, 3, "relu", squeezed=True),
    _stage(1, 80, 3, 2, 6, "hardswish", squeezed=False),
    _stage(1, 80, 3, 1, 2.5, "hardswish", squeezed=False),
    _stage(2, 80, 3, 1, 2.3, "hardswish", squeezed=False),
    _stage(2, 112, 3, 1, 6, "hardswish", squeezed=True),
    _stage(3, 160, 5, 2, 6, "hardswish", squeezed=True),
)
SMALL = (
    _stage(1, 16, 3, 2, 1, "relu", squeezed=True),
    _stage(1, 24, 3, 2, 4.5, "relu", squeezed=False),
    _stage(1, 24, 3, 1, 88 / 24, "relu", squeezed=False),
    _stage(1, 40, 5, 2, 4, "hardswish", squeezed=True),
    _stage(2, 40, 5, 1, 6, "hardswish", squeezed=True),
    _stage(2, 48, 5, 1, 3, "hardswish", squeezed=True),
    _stage(3, 96, 5, 2, 6, "hardswish", squeezed=True),
)


def _network(stages: tuple[Stage, ...], head: Head) -> Network:
    return Network(
        stem=Stem(width=16),
        stages=stages,
        head=head,
        resolution=224,
        num_classes=1000,
        activation="hardswish",
        squeeze_excite=SqueezeExcite(of="hidden", divisor=8, activation="relu", gate="hardsigmoid"),
        hidden_divisor=8,
        norm_eps=1e-3,
        norm_momentum=0.01,
    )


MOBILENET_V3 = Family(
    name="mobilenet_v3",
    networks=MappingProxyType(
        {
            "mobilenet_v3_large": _network(LARGE, Head(width=960, hidden=1280, dropout=0.2)),
            "mobilenet_v3_small": _network(SMALL, Head(width=576, hidden=1024, dropout=0.2)),
        }
    ),
    rounding=Rounding(divisor=8, floor=0.9, stem="scaled", head="scaled", fixed_depths="none"),
    aliases=MappingProxyType(
        {
            "mobilenetv3_large_100": "mobilenet_v3_large",
            "mobilenetv3_small_100": "mobilenet_v3_small",
            "mobilenet_v3": "mobilenet_v3_large",
        }
    ),
    source="arXiv:1905.02244, Tables 1 and 2; pytorch/vision, torchvision/models/mobilenetv3.py",
)
