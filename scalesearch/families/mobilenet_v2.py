"""MobileNetV2: inverted residuals; the stem scales with the stages, the head has at least 1280 channels."""

from __future__ import annotations

from types import MappingProxyType

from scalesearch.scaling import Family, Rounding
from scalesearch.spec import Head, Network, Stage, Stem

# expansion, width, depth, stride
ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

MOBILENET_V2 = Family(
    name="mobilenet_v2",
    networks=MappingProxyType(
        {
            "mobilenet_v2": Network(
                stem=Stem(width=32),
                stages=tuple(
                    Stage(block="mbconv", depth=depth, width=width, stride=stride, expansion=expansion)
                    for expansion, width, depth, stride in ROWS
                ),
                head=Head(width=1280, dropout=0.2),
                resolution=224,
                num_classes=1000,
                activation="relu6",
            )
        }
    ),
    rounding=Rounding(divisor=8, floor=0.9, stem="scaled", head="widened", fixed_depths="none"),
    aliases=MappingProxyType({"mobilenetv2_100": "mobilenet_v2"}),
    source="arXiv:1801.04381, Table 2 and section 6.1; pytorch/vision, torchvision/models/mobilenetv2.py",
)
