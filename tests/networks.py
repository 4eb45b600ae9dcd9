"""Networks that no family of the package holds, as `Network` values: the noun is wide enough for them.

Also the facts about them: `EXACT` is counts/exact_counts.json, whose every number names its source.
"""

import json
from pathlib import Path

from hypothesis import strategies as st

from scalesearch.families import FAMILIES
from scalesearch.spec import BlockName, Head, Network, Stage, Stem

EXACT = json.loads((Path(__file__).parent / "counts" / "exact_counts.json").read_text())["networks"]


def _resnet(block: BlockName, depths: tuple[int, ...], widths: tuple[int, ...], expansion: float = 1.0) -> Network:
    """arXiv:1512.03385, Table 1, with the stride in the 3x3 convolution (v1.5)."""
    stages = tuple(
        Stage(block=block, depth=depth, width=width, stride=1 if index == 0 else 2, expansion=expansion)
        for index, (depth, width) in enumerate(zip(depths, widths, strict=True))
    )
    stem = Stem(width=64, kernel=7, stride=2, pool=2)
    return Network(stem=stem, stages=stages, head=Head(), resolution=224, num_classes=1000, activation="relu")


def _mobilenet_v1() -> Network:
    """arXiv:1704.04861, Table 1."""
    rows = ((1, 64, 1), (2, 128, 2), (2, 256, 2), (6, 512, 2), (2, 1024, 2))
    return Network(
        stem=Stem(width=32),
        stages=tuple(Stage(block="separable", depth=depth, width=width, stride=s) for depth, width, s in rows),
        head=Head(),
        resolution=224,
        num_classes=1000,
        activation="relu",
    )


def _mobilenet_v2() -> Network:
    """arXiv:1801.04381, Table 2: expansion, channels, repeats, stride."""
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    return Network(
        stem=Stem(width=32),
        stages=tuple(Stage(block="mbconv", depth=n, width=c, stride=s, expansion=t) for t, c, n, s in rows),
        head=Head(width=1280, dropout=0.2),
        resolution=224,
        num_classes=1000,
        activation="relu6",
    )


EFFICIENTNET = FAMILIES["efficientnet"]
B0 = EFFICIENTNET.baseline
RESNET50 = _resnet("bottleneck", (3, 4, 6, 3), (256, 512, 1024, 2048), 0.25)
MOBILENET_V1 = _mobilenet_v1()
MOBILENET_V2 = _mobilenet_v2()

NETWORKS = {
    **{f"efficientnet_b{i}": EFFICIENTNET.member(f"b{i}") for i in range(6)},
    "resnet18": _resnet("basic", (2, 2, 2, 2), (64, 128, 256, 512)),
    "resnet34": _resnet("basic", (3, 4, 6, 3), (64, 128, 256, 512)),
    "resnet50": RESNET50,
    "mobilenet_v1_1.0": MOBILENET_V1,
    "mobilenet_v2_1.0": MOBILENET_V2,
}
"""One value per network of `EXACT`."""

SMALL = Network(
    stem=Stem(width=16),
    stages=(
        Stage(block="mbconv", depth=1, width=16, stride=1, expansion=1),
        Stage(block="mbconv", depth=2, width=24, stride=2, expansion=4, se_ratio=0.25),
        Stage(block="mbconv", depth=2, width=40, kernel=5, stride=2, expansion=4, se_ratio=0.25),
    ),
    head=Head(width=160),
    resolution=32,
    num_classes=10,
)
"""A base small enough to list every network around it."""


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    """Any legal stage of a few channels."""
    block = draw(st.sampled_from(["mbconv", "separable", "basic", "bottleneck"]))
    return Stage(
        block=block,
        depth=draw(st.integers(1, 3)),
        width=draw(st.integers(1, 12)),
        kernel=draw(st.sampled_from([1, 3, 5])),
        stride=draw(st.integers(1, 3)),
        expansion=draw(st.sampled_from([0.25, 0.5, 1, 1.7, 2, 6.0])),
        se_ratio=draw(st.sampled_from([0.0, 0.1, 0.25, 0.5])) if block == "mbconv" else 0.0,
    )


def networks() -> st.SearchStrategy[Network]:
    """Any legal network of a few channels: all blocks, odd sides, with and without stem pool and head convolution."""
    stems = st.builds(
        Stem,
        width=st.integers(1, 12),
        kernel=st.sampled_from([1, 3, 5, 7]),
        stride=st.integers(1, 3),
        pool=st.integers(1, 3),
    )
    return st.builds(
        Network,
        stem=stems,
        stages=st.lists(stages(), min_size=1, max_size=3).map(tuple),
        head=st.builds(Head, width=st.sampled_from([0, 1, 17]), dropout=st.sampled_from([0, 0.5])),
        resolution=st.integers(1, 49),
        num_classes=st.integers(1, 12),
        activation=st.sampled_from(["silu", "relu", "relu6"]),
        drop_path=st.sampled_from([0.0, 0.2]),
    )
