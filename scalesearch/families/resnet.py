"""ResNet-18 to ResNet-152, v1.5: the stride sits in the 3x3 convolution, as in torchvision.

The stem scales with the stages; the inner channels of a bottleneck are a quarter of its stage's.
"""

from __future__ import annotations

from types import MappingProxyType

from scalesearch.scaling import Family, Rounding
from scalesearch.spec import BlockName, Head, Network, Stage, Stem


def _resnet(block: BlockName, *depths: int) -> Network:
    growth, expansion = (4, 0.25) if block == "bottleneck" else (1, 1.0)
    stages = tuple(
        Stage(block=block, depth=depth, width=growth * width, stride=stride, expansion=expansion)
        for depth, width, stride in zip(depths, (64, 128, 256, 512), (1, 2, 2, 2), strict=True)
    )
    stem = Stem(width=64, kernel=7, stride=2, pool=2)
    return Network(stem=stem, stages=stages, head=Head(), resolution=224, num_classes=1000, activation="relu")


RESNET = Family(
    name="resnet",
    networks=MappingProxyType(
        {
            "resnet18": _resnet("basic", 2, 2, 2, 2),
            "resnet34": _resnet("basic", 3, 4, 6, 3),
            "resnet50": _resnet("bottleneck", 3, 4, 6, 3),
            "resnet101": _resnet("bottleneck", 3, 4, 23, 3),
            "resnet152": _resnet("bottleneck", 3, 8, 36, 3),
        }
    ),
    rounding=Rounding(divisor=8, floor=0.9, stem="scaled", head="scaled", fixed_depths="none"),
    source="arXiv:1512.03385, Table 1; pytorch/vision, torchvision/models/resnet.py",
)
