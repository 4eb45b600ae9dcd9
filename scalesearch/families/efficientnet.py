"""EfficientNet: Table 1 as rows, and the published B0-B8 and L2 as data.

The published coefficients are not on the formula: B1-B7 sit near phi = 0.5, 1, 2, 3.5, 5, 6, 7 of 1.2/1.1/1.15,
rounded by hand. So the table is data and the rule is apart from it. Stem, head and squeeze-excite scale with the
stages.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from scalesearch.scaling import Family, Published, Rounding, tabled
from scalesearch.spec import Head, Network, Stage, Stem


def _mbconv(depth: int, width: int, kernel: int, stride: int, expansion: int) -> Stage:
    return Stage(
        block="mbconv", depth=depth, width=width, kernel=kernel, stride=stride, expansion=expansion, se_ratio=0.25
    )


B0 = Network(
    stem=Stem(width=32, kernel=3, stride=2),
    stages=(
        _mbconv(1, 16, kernel=3, stride=1, expansion=1),
        _mbconv(2, 24, kernel=3, stride=2, expansion=6),
        _mbconv(2, 40, kernel=5, stride=2, expansion=6),
        _mbconv(3, 80, kernel=3, stride=2, expansion=6),
        _mbconv(3, 112, kernel=5, stride=1, expansion=6),
        _mbconv(4, 192, kernel=5, stride=2, expansion=6),
        _mbconv(1, 320, kernel=3, stride=1, expansion=6),
    ),
    head=Head(width=1280, dropout=0.2),
    resolution=224,
    num_classes=1000,
    activation="silu",
    norm_eps=1e-3,
    norm_momentum=0.01,
    drop_path=0.2,
)
ROUNDING = Rounding(divisor=8, floor=0.9, stem="scaled", head="scaled", fixed_depths="none")
PUBLISHED = (
    Published(name="b0", width=1.0, depth=1.0, resolution=224, dropout=0.2),
    Published(name="b1", width=1.0, depth=1.1, resolution=240, dropout=0.2),
    Published(name="b2", width=1.1, depth=1.2, resolution=260, dropout=0.3),
    Published(name="b3", width=1.2, depth=1.4, resolution=300, dropout=0.3),
    Published(name="b4", width=1.4, depth=1.8, resolution=380, dropout=0.4),
    Published(name="b5", width=1.6, depth=2.2, resolution=456, dropout=0.4),
    Published(name="b6", width=1.8, depth=2.6, resolution=528, dropout=0.5),
    Published(name="b7", width=2.0, depth=3.1, resolution=600, dropout=0.5),
    Published(name="b8", width=2.2, depth=3.6, resolution=672, dropout=0.5),
    Published(name="l2", width=4.3, depth=5.3, resolution=800, dropout=0.5),
)
SOURCE = "arXiv:1905.11946, Table 1 and sections 4-5; tensorflow/tpu, efficientnet_builder.py"

# B1-B7 at the compute that the paper's spacing means: phi = 0.5, 1, 2, 3.5, 5, 6, 7, a fit to the table above
GROWTHS = {f"B{k}": 2.0**log for k, log in enumerate((0.5, 1, 2, 3.5, 5, 6, 7), start=1)}

EFFICIENTNET = Family(
    name="efficientnet",
    networks=tabled(B0, ROUNDING, PUBLISHED),
    rounding=ROUNDING,
    aliases=MappingProxyType({"efficientnet": "b0"} | {f"efficientnet_{row.name}": row.name for row in PUBLISHED}),
    published=PUBLISHED,
    growths=MappingProxyType(GROWTHS),
    source=SOURCE,
)

TF_EFFICIENTNET = Family(
    name="tf_efficientnet",
    networks=MappingProxyType(
        {f"tf_{name}": replace(network, padding="same") for name, network in EFFICIENTNET.networks.items()}
    ),
    rounding=ROUNDING,
    aliases=MappingProxyType({f"tf_efficientnet_{row.name}": f"tf_{row.name}" for row in PUBLISHED}),
    published=tuple(replace(row, name=f"tf_{row.name}") for row in PUBLISHED),
    growths=MappingProxyType({f"TF_{name}": growth for name, growth in GROWTHS.items()}),
    source=f"{SOURCE}; TensorFlow's SAME padding, as in timm's tf_efficientnet_*",
)
