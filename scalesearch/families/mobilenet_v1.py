"""MobileNetV1: separable convolutions; the stem scales with the stages, and there is no head convolution."""

from __future__ import annotations

from types import MappingProxyType

from scalesearch.scaling import Family, Rounding
from scalesearch.spec import Head, Network, Stage, Stem

# depth, width, stride
ROWS = ((1, 64, 1), (2, 128, 2), (2, 256, 2), (6, 512, 2), (2, 1024, 2))

MOBILENET_V1 = Family(
    name="mobilenet_v1",
    networks=MappingProxyType(
        {
            "mobilenet_v1": Network(
                stem=Stem(width=32),
                stages=tuple(
                    Stage(block="separable", depth=depth, width=width, stride=stride) for depth, width, stride in ROWS
                ),
                head=Head(),
                resolution=224,
                num_classes=1000,
                activation="relu6",
            )
        }
    ),
    rounding=Rounding(divisor=8, floor=0.9, stem="scaled", head="scaled", fixed_depths="none"),
    aliases=MappingProxyType({"mobilenetv1_100": "mobilenet_v1", "mobilenet": "mobilenet_v1"}),
    source="arXiv:1704.04861, Table 1; ReLU6 as in tensorflow/models, research/slim/nets/mobilenet_v1.py",
)
