"""MNASNet-B1 (no squeeze-excite), as torchvision's mnasnet1_0: the stem scales with the stages, the head does not."""

from __future__ import annotations

from types import MappingProxyType

from scalesearch.scaling import Family, Rounding
from scalesearch.spec import Head, Network, Stage, Stem

# expansion, width, depth, kernel, stride
ROWS = (
    (1, 16, 1, 3, 1),
    (3, 24, 3, 3, 2),
    (3, 40, 3, 5, 2),
    (6, 80, 3, 5, 2),
    (6, 96, 2, 3, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)

MNASNET = Family(
    name="mnasnet",
    networks=MappingProxyType(
        {
            "mnasnet_b1": Network(
                stem=Stem(width=32),
                stages=tuple(
                    Stage(block="mbconv", depth=depth, width=width, kernel=kernel, stride=stride, expansion=expansion)
                    for expansion, width, depth, kernel, stride in ROWS
                ),
                head=Head(width=1280, dropout=0.2),
                resolution=224,
                num_classes=1000,
                activation="relu",
                norm_momentum=1 - 0.9997,
            )
        }
    ),
    rounding=Rounding(divisor=8, floor=0.9, stem="scaled", head="fixed", fixed_depths="none"),
    aliases=MappingProxyType({"mnasnet1_0": "mnasnet_b1", "mnasnet_100": "mnasnet_b1", "mnasnet": "mnasnet_b1"}),
    source="arXiv:1807.11626, section 5; pytorch/vision, torchvision/models/mnasnet.py",
)
