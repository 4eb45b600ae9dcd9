"""Networks that many tests use, and a strategy for any legal one.

Also the facts about them: `EXACT` is counts/exact_counts.json, whose every number names its source.
"""

import json
from pathlib import Path

from hypothesis import strategies as st

from scalesearch.families import FAMILIES, find_base
from scalesearch.spec import Head, Network, SqueezeExcite, Stage, Stem

EXACT = json.loads((Path(__file__).parent / "counts" / "exact_counts.json").read_text())["networks"]


EFFICIENTNET = FAMILIES["efficientnet"]
B0 = EFFICIENTNET.baseline
RESNET50 = find_base("resnet50").network
MOBILENET_V1 = find_base("mobilenet_v1").network
MOBILENET_V2 = find_base("mobilenet_v2").network

NETWORKS = {
    **{f"efficientnet_b{i}": EFFICIENTNET.member(f"b{i}") for i in range(6)},
    **{name: find_base(name).network for name in ("resnet18", "resnet34", "resnet50")},
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


ACTIVATIONS = st.sampled_from(["silu", "relu", "relu6", "hardswish"])


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    """Any legal stage of a few channels."""
    block = draw(st.sampled_from(["mbconv", "separable", "basic", "bottleneck"]))
    expansion = draw(st.sampled_from([0.25, 0.5, 1, 1.7, 2, 6.0])) if block in ("mbconv", "bottleneck") else 1
    width = draw(st.integers(1, 12))
    groups = [n for n in (1, 2, 3) if block == "bottleneck" and width * expansion % n == 0] or [1]
    return Stage(
        block=block,
        depth=draw(st.integers(1, 3)),
        width=width,
        kernel=draw(st.sampled_from([1, 3, 5])),
        stride=draw(st.integers(1, 3)),
        expansion=expansion,
        se_ratio=draw(st.sampled_from([0.0, 0.1, 0.25, 0.5])) if block == "mbconv" else 0.0,
        groups=draw(st.sampled_from(groups)),
        activation=draw(st.none() | ACTIVATIONS),
    )


def networks() -> st.SearchStrategy[Network]:
    """Any legal network of a few channels: all blocks, odd sides, with and without stem pool and head layers."""
    stems = st.builds(
        Stem,
        width=st.integers(1, 12),
        kernel=st.sampled_from([1, 3, 5, 7]),
        stride=st.integers(1, 3),
        pool=st.integers(1, 3),
    )
    squeezes = st.builds(
        SqueezeExcite,
        of=st.sampled_from(["input", "hidden"]),
        divisor=st.sampled_from([1, 4]),
        activation=st.none() | ACTIVATIONS,
        gate=st.sampled_from(["sigmoid", "hardsigmoid"]),
    )
    heads = st.builds(
        Head, width=st.sampled_from([0, 1, 17]), hidden=st.sampled_from([0, 5]), dropout=st.sampled_from([0, 0.5])
    )
    return st.builds(
        Network,
        stem=stems,
        stages=st.lists(stages(), min_size=1, max_size=3).map(tuple),
        head=heads,
        resolution=st.integers(1, 49),
        num_classes=st.integers(1, 12),
        activation=ACTIVATIONS,
        squeeze_excite=squeezes,
        hidden_divisor=st.sampled_from([1, 8]),
        padding=st.sampled_from(["symmetric", "same"]),
        drop_path=st.sampled_from([0.0, 0.2]),
    )
